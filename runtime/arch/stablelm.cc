// StableLM: Llama with LayerNorm; a part of each head is rotated, and in the largest model attention and the
// feed-forward network read the same norm.
//
// Bellagente et al., "Stable LM 2 1.6B Technical Report", 2024, section 2.2.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class StableLm final : public Decoder {
 public:
  explicit StableLm(HParamReader& keys)
      : Decoder(keys, {.norm = NormKind::kLayer, .pairs = RopePairs::kHalves, .partial_rotation = true}) {
    keys.ignore({"use_parallel_residual"});  // the tensors tell: a layer without ffn_norm has it
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    parallel_ = !parts.holds("ffn_norm.weight");
    l.attention_norm.declare(parts, "attn_norm", hparams_.dim);
    l.attention.declare(parts, hparams_.dim);
    if (!parallel_) l.feed_forward_norm.declare(parts, "ffn_norm", hparams_.dim);
    l.feed_forward.declare(parts, hparams_.dim, hparams_.hidden_dim);
  }

  // x += attention(norm(x)) + feed_forward(norm(x)) where the two stand side by side.
  void layer(size_t index, Pass& pass) const override {
    if (!parallel_) return Decoder::layer(index, pass);
    normalise(layers_[index].attention_norm, x_, h_, pass);
    attend(index, h_, x_, /*add=*/true, pass);
    feed_forward(index, h_, x_, /*add=*/true, pass);
  }

 private:
  bool parallel_ = false;
};

}  // namespace

const Architecture kStableLm{"stablelm", make_network<StableLm>};

}  // namespace quern
