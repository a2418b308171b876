// The architectures, each defined in the file of its name.
#pragma once

#include "runtime/architecture.h"

namespace quern {

extern const Architecture kArcee, kCohere2, kDeepSeek2, kErnie45, kExaone4, kGemma, kGemma2, kGemma3, kGemma4,
    kGlm4, kGpt2, kGptOss, kGranite, kGraniteMoe, kLlama, kMistral3, kNemotron, kOlmo2, kOlmoe, kPhi3, kQwen2,
    kQwen2Moe, kQwen3, kQwen3Moe, kQwen35, kQwen35Moe, kLfm2, kSeedOss, kSmolLm3, kStableLm, kStarCoder2;

template <class T>
std::unique_ptr<Network> make_network(HParamReader& keys) {
  return std::make_unique<T>(keys);
}

}  // namespace quern
