#include "runtime/calibration/stages.h"

namespace quern {
namespace {

constexpr std::string_view kQkv[] = {"attn_q.weight", "attn_k.weight", "attn_v.weight"};
constexpr std::string_view kAttentionOutput[] = {"attn_output.weight"};
constexpr std::string_view kGateUp[] = {"ffn_gate.weight", "ffn_up.weight"};
constexpr std::string_view kDown[] = {"ffn_down.weight"};
constexpr CalibrationStage kGatedDecoder[] = {{kQkv}, {kAttentionOutput}, {kGateUp}, {kDown}};

constexpr ArchitectureStages kArchitectures[] = {{"llama", kGatedDecoder}};

}  // namespace

std::span<const ArchitectureStages> architecture_stages() noexcept { return kArchitectures; }

}  // namespace quern
