#include "runtime/calibration/stages.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "quant/error.h"

namespace quern {
namespace {

constexpr std::string_view kQkv[] = {"attn_q.weight", "attn_k.weight", "attn_v.weight"};
constexpr std::string_view kAttentionOutput[] = {"attn_output.weight"};
constexpr std::string_view kGateUp[] = {"ffn_gate.weight", "ffn_up.weight"};
constexpr std::string_view kDown[] = {"ffn_down.weight"};
constexpr CalibrationStage kGatedDecoder[] = {{kQkv}, {kAttentionOutput}, {kGateUp}, {kDown}};

struct ArchitectureStages {
  std::string_view architecture;
  std::span<const CalibrationStage> stages;
};
// Decoders whose attention and feed-forward block come one behind the other, each with matrices of its own.
// Norms, biases and factors in between do not matter: what counts is which product reads what.
constexpr ArchitectureStages kArchitectures[] = {
    {"llama", kGatedDecoder},   {"ernie4_5", kGatedDecoder}, {"exaone4", kGatedDecoder},
    {"gemma", kGatedDecoder},   {"gemma2", kGatedDecoder},   {"gemma3", kGatedDecoder},
    {"granite", kGatedDecoder}, {"mistral3", kGatedDecoder}, {"olmo2", kGatedDecoder},
    {"qwen2", kGatedDecoder},   {"qwen3", kGatedDecoder},    {"seed_oss", kGatedDecoder},
    {"smollm3", kGatedDecoder},
};

void require_standard_layout(const GgufReader& gguf) {
  for (const TensorView& tensor : gguf.tensors())
    if (tensor.layout != TensorLayout::kRows)
      fail(ErrorCode::kMalformed,
           "{}: tensor '{}' is in the layout p16, expected standard: convert the file with --layout standard "
           "first, then calibrate",
           printable(gguf.path(), kPathBytes), printable(tensor.name));
}

void require_staged(const GgufReader& gguf, const TensorDeclaration& tensor,
                    std::span<const CalibrationStage> stages) {
  const auto has_tensor = [&](const CalibrationStage& stage) { return stage.has(tensor); };
  if (std::ranges::none_of(stages, has_tensor) || tensor.parts.size() != 1)
    fail(
        ErrorCode::kMalformed,
        "{}: tensor '{}': experts and stacked matrices cannot be calibrated yet; convert without --calibrate",
        printable(gguf.path(), kPathBytes), printable(tensor.name));
  constexpr std::string_view kWeight = ".weight";
  const std::string factor = tensor.name.substr(0, tensor.name.size() - kWeight.size()) + ".scale";
  if (gguf.find_tensor(factor) != nullptr)
    fail(ErrorCode::kMalformed,
         "{}: tensor '{}': matrices whose products have a factor cannot be calibrated yet; convert without "
         "--calibrate",
         printable(gguf.path(), kPathBytes), printable(factor));
}

}  // namespace

bool CalibrationStage::has(const TensorDeclaration& tensor) const {
  std::string_view name = tensor.name;  // blk.N.attn_q.weight
  for (int dot = 0; dot < 2; ++dot) name.remove_prefix(name.find('.') + 1);
  return std::ranges::find(matrices, name) != matrices.end();
}

std::span<const CalibrationStage> require_stages(const Model& model) {
  const std::string& architecture = model.hparams().architecture;
  const auto* const found =
      std::ranges::find(kArchitectures, architecture, &ArchitectureStages::architecture);
  if (found == std::end(kArchitectures)) {
    std::string known;
    for (const ArchitectureStages& row : kArchitectures)
      known += fmt::format("{}{}", known.empty() ? "" : ", ", row.architecture);
    fail(ErrorCode::kMalformed,
         "{}: models of architecture '{}' cannot be calibrated yet (those that can: {}); convert without "
         "--calibrate",
         printable(model.gguf().path(), kPathBytes), printable(architecture), known);
  }
  require_standard_layout(model.gguf());
  for (const TensorDeclaration& tensor : model.parts().tensors())
    if (tensor.is_matrix() && tensor.layer >= 0) require_staged(model.gguf(), tensor, found->stages);
  return found->stages;
}

}  // namespace quern
