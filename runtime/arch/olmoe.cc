// OLMoE: Q and K are normalised whole; experts' weights are probabilities over all of them.
//
// Muennighoff et al., "OLMoE: Open Mixture-of-Experts Language Models", 2024, section 2.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Olmoe final : public Decoder {
 public:
  explicit Olmoe(HParamReader& keys) : Decoder(keys, {.pairs = RopePairs::kHalves}) {
    for (DecoderLayer& l : layers_) {
      read_expert_counts(keys, &l.experts.n_experts, &l.experts.n_used);
      l.experts.rule.normalise = keys.bool_or("expert_weights_norm", false);
    }
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    Decoder::declare_layer(parts, l);
    l.attention.declare_whole_norms(parts, hparams_.norm_eps);
    l.experts.declare(parts, hparams_.dim, hparams_.hidden_dim);
  }
};

}  // namespace

const Architecture kOlmoe{"olmoe", make_network<Olmoe>};

}  // namespace quern
