// Gemma 2 and 3: norms before and after each half of a layer, windows in most layers. Gemma 2 caps scores and
// logits; Gemma 3 normalises heads and rotates layers with a window by another base.
//
// Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size", 2024, section 2, and "Gemma 3
// Technical Report", 2025, section 2.
#include <cmath>

#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Gemma2 : public Decoder {
 public:
  explicit Gemma2(HParamReader& keys) : Gemma2(keys, /*window_period=*/2, /*layers_of_27b=*/46) {
    const double cap = keys.float_or_zero("attn_logit_softcapping", 50);
    for (DecoderLayer& l : layers_) l.attention.shape.softcap = cap;
    logit_cap_ = static_cast<float>(keys.float_or_zero("final_logit_softcapping", 30));
  }

 protected:
  // The largest model of each family, told by its number of layers, has a scale of its own.
  Gemma2(HParamReader& keys, uint32_t window_period, uint32_t layers_of_27b)
      : Decoder(keys, {.norms = NormPlaces::kBoth, .pairs = RopePairs::kHalves}) {
    embedding_scale_ = static_cast<float>(std::sqrt(static_cast<double>(hparams_.dim)));
    windowed_ = read_window_layers(keys, window_period);
    const double per_head = hparams_.n_layers == layers_of_27b
                                ? static_cast<double>(hparams_.dim) / static_cast<double>(hparams_.n_heads)
                                : static_cast<double>(hparams_.head_dim);
    const double scale = keys.float_or("attention.scale", 1 / std::sqrt(per_head));
    for (DecoderLayer& l : layers_) {
      l.attention.shape.scale = scale;
      l.feed_forward.activation = Activation::kGeglu;
    }
  }

  std::vector<bool> windowed_;  // of each layer
};

class Gemma3 final : public Gemma2 {
 public:
  explicit Gemma3(HParamReader& keys)
      : Gemma2(keys, /*window_period=*/6, /*layers_of_27b=*/62),
        window_base_(read_rope_base(keys, "rope.freq_base_swa")) {
    logit_cap_ = static_cast<float>(keys.float_or_zero("final_logit_softcapping", 0));
    for (size_t i = 0; i < layers_.size(); ++i) layers_[i].attention.rope = windowed_[i] ? 1 : 0;
  }

  std::vector<Rope> ropes(uint64_t context) const override {
    RopeSettings in_window;
    in_window.pairs = rope_.pairs;
    in_window.rotary_dim = rope_.rotary_dim;
    in_window.base = window_base_;
    return {rope_.make(context), in_window.make(context)};
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    Gemma2::declare_layer(parts, l);
    l.attention.declare_head_norms(parts, hparams_.norm_eps);
  }

 private:
  double window_base_;
};

}  // namespace

const Architecture kGemma2{"gemma2", make_network<Gemma2>};
const Architecture kGemma3{"gemma3", make_network<Gemma3>};

}  // namespace quern
