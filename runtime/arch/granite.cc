// Granite 3 and its mixtures of experts: Llama with four factors, of embeddings, scores, residuals and
// logits.
//
// Granite Team, "Granite 3.0 Language Models", 2024, section 2 (maximal update parametrisation).
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Granite : public Decoder {
 public:
  explicit Granite(HParamReader& keys) : Decoder(keys, {}) {
    embedding_scale_ = static_cast<float>(keys.float_or("embedding_scale", 1));
    logit_scale_ = static_cast<float>(1 / keys.float_or("logit_scale", 1));
    residual_scale_ = static_cast<float>(keys.float_or("residual_scale", 1));
    const double scale = keys.float_or("attention.scale", 0);
    for (DecoderLayer& l : layers_) l.attention.shape.scale = scale;
  }

  void layer(size_t index, Pass& pass) const override {
    const DecoderLayer& l = layers_[index];
    normalise(l.attention_norm, x_, h_, pass);
    attend(index, h_, h_, /*add=*/false, pass);
    pass.device.add(pass[x_], pass[h_], residual_scale_, pass.n);
    normalise(l.feed_forward_norm, x_, h_, pass);
    feed_forward(index, h_, h_, /*add=*/false, pass);
    pass.device.add(pass[x_], pass[h_], residual_scale_, pass.n);
  }

 private:
  float residual_scale_;
};

class GraniteMoe final : public Granite {
 public:
  explicit GraniteMoe(HParamReader& keys) : Granite(keys) {
    for (DecoderLayer& l : layers_) {
      read_expert_counts(keys, &l.experts.n_experts, &l.experts.n_used);
      l.experts.rule.score = RouterScore::kSoftmaxOfChosen;
      l.experts.rule.normalise = true;
    }
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    Granite::declare_layer(parts, l);
    l.experts.declare(parts, hparams_.dim, hparams_.hidden_dim);
  }
};

}  // namespace

const Architecture kGranite{"granite", make_network<Granite>};
const Architecture kGraniteMoe{"granitemoe", make_network<GraniteMoe>};

}  // namespace quern
