// Qwen3 with experts, whose weights are normalised to a sum of one.
//
// Yang et al., "Qwen3 Technical Report", 2025, section 2.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Qwen3Moe final : public Decoder {
 public:
  explicit Qwen3Moe(HParamReader& keys)
      : Decoder(keys, {.pairs = RopePairs::kHalves}),
        expert_dim_(keys.require_uint("expert_feed_forward_length", 1, kMaxDim)) {
    for (DecoderLayer& l : layers_) {
      read_expert_counts(keys, &l.experts.n_experts, &l.experts.n_used);
      l.experts.rule.normalise = keys.bool_or("expert_weights_norm", true);
    }
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    if (parts.holds("ffn_gate.weight")) l.experts.n_experts = 0;  // a layer without a mixture
    Decoder::declare_layer(parts, l);
    l.attention.declare_head_norms(parts, hparams_.norm_eps);
    if (l.experts.n_experts != 0) l.experts.declare(parts, hparams_.dim, expert_dim_);
  }

 private:
  uint64_t expert_dim_;
};

}  // namespace

const Architecture kQwen3Moe{"qwen3moe", make_network<Qwen3Moe>};

}  // namespace quern
