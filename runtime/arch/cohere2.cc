// Command R7B: attention and the feed-forward network read the same LayerNorm side by side; layers with a
// window encode positions, the others do not.
//
// Cohere, "Command A: An Enterprise-Ready Large Language Model", 2025, section 2.1.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Cohere2 final : public Decoder {
 public:
  explicit Cohere2(HParamReader& keys) : Decoder(keys, {.norm = NormKind::kLayer}) {
    logit_scale_ = static_cast<float>(keys.float_or("logit_scale", 1));
    const std::vector<bool> windowed = read_window_layers(keys, 4);
    for (size_t i = 0; i < layers_.size(); ++i)
      if (!windowed[i]) layers_[i].attention.rope.reset();
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    l.attention_norm.declare(parts, "attn_norm", hparams_.dim);
    l.attention.declare(parts, hparams_.dim);
    l.feed_forward.declare(parts, hparams_.dim, hparams_.hidden_dim);
  }

  // x += attention(norm(x)) + feed_forward(norm(x)).
  void layer(size_t index, Pass& pass) const override {
    normalise(layers_[index].attention_norm, x_, h_, pass);
    attend(index, h_, x_, /*add=*/true, pass);
    feed_forward(index, h_, x_, /*add=*/true, pass);
  }
};

}  // namespace

const Architecture kCohere2{"cohere2", make_network<Cohere2>};

}  // namespace quern
