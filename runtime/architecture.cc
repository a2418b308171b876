#include "runtime/architecture.h"

#include "runtime/arch/arch.h"

namespace quern {

std::span<const Architecture> architectures() noexcept {
  static const Architecture table[] = {
      kLlama,    kArcee,     kCohere2, kDeepSeek2, kErnie45, kExaone4,  kGemma,      kGemma2,
      kGemma3,   kGemma4,    kGlm4,    kGpt2,      kGptOss,  kGranite,  kGraniteMoe, kMistral3,
      kNemotron, kOlmo2,     kOlmoe,   kPhi3,      kQwen2,   kQwen2Moe, kQwen3,      kQwen3Moe,
      kQwen35,   kQwen35Moe, kLfm2,    kSeedOss,   kSmolLm3, kStableLm, kStarCoder2,
  };
  return table;
}

const Architecture* find_architecture(std::string_view name) noexcept {
  for (const Architecture& row : architectures())
    if (row.name == name) return &row;
  return nullptr;
}

}  // namespace quern
