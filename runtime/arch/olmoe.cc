// OLMoE: Q and K are normalised whole, and may be clamped, as V; experts' weights are probabilities over all
// of them.
//
// Muennighoff et al., "OLMoE: Open Mixture-of-Experts Language Models", 2024, section 2.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Olmoe final : public Decoder {
 public:
  explicit Olmoe(HParamReader& keys) : Decoder(keys, {.pairs = RopePairs::kHalves}) {
    clamp_ = static_cast<float>(keys.float_or_zero("attention.clamp_kqv", 0));
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

 protected:
  void attend(size_t index, BufferId x, BufferId y, bool add, const Pass& pass) const override {
    const AttentionBlock& a = layers_[index].attention;
    a.project(pass[x], pass);
    a.normalise_whole(pass);
    if (clamp_ != 0)
      for (const BufferId heads : {a.q, a.k, a.v}) pass.device.clamp(pass[heads], clamp_, pass.n);
    a.finish(index, pass[y], add, pass);
  }

 private:
  float clamp_ = 0;  // of Q and K behind their norms, and of V; 0: none
};

}  // namespace

const Architecture kOlmoe{"olmoe", make_network<Olmoe>};

}  // namespace quern
