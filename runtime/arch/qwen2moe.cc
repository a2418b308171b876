// Qwen1.5-MoE and Qwen2-57B-A14B: Qwen2 with experts, beside one that every token takes, through a gate of
// its own.
//
// Yang et al., "Qwen2 Technical Report", 2024, section 2.2.2.
#include "runtime/arch/arch.h"
#include "runtime/arch/shared_expert.h"

namespace quern {
namespace {

class Qwen2Moe final : public WithSharedExpert<Decoder> {
 public:
  explicit Qwen2Moe(HParamReader& keys)
      : WithSharedExpert(keys, /*normalise=*/false, DecoderTraits{.pairs = RopePairs::kHalves}) {}
};

}  // namespace

const Architecture kQwen2Moe{"qwen2moe", make_network<Qwen2Moe>};

}  // namespace quern
