// StableLM: Llama with LayerNorm; a part of each head is rotated, and in the largest model attention and the
// feed-forward network read the same norm, and each head of Q and K has a LayerNorm of its own.
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
    q_norms_.resize(layers_.size());
    k_norms_.resize(layers_.size());
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    parallel_ = !parts.holds("ffn_norm.weight");
    l.attention_norm.declare(parts, "attn_norm", hparams_.dim);
    l.attention.declare(parts, hparams_.dim);
    normalises_heads_ = parts.holds("attn_q_norm.weight");
    if (normalises_heads_) {
      const AttentionShape& shape = l.attention.shape;
      parts.vectors("attn_q_norm.weight", shape.n_heads, shape.head_dim, &q_norms_[parts.layer()]);
      parts.vectors("attn_k_norm.weight", shape.n_kv_heads, shape.head_dim, &k_norms_[parts.layer()]);
    }
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

 protected:
  void attend(size_t index, BufferId x, BufferId y, bool add, const Pass& pass) const override {
    if (!normalises_heads_) return Decoder::attend(index, x, y, add, pass);
    const AttentionBlock& a = layers_[index].attention;
    a.project(pass[x], pass);
    pass.device.layer_norm_heads(pass[a.q], pass.n, *q_norms_[index], a.shape.head_dim, hparams_.norm_eps);
    pass.device.layer_norm_heads(pass[a.k], pass.n, *k_norms_[index], a.shape.head_dim, hparams_.norm_eps);
    a.finish(index, pass[y], add, pass);
  }

 private:
  bool parallel_ = false, normalises_heads_ = false;
  std::vector<Vector> q_norms_, k_norms_;  // of each layer: [n_heads * head_dim], [n_kv_heads * head_dim]
};

}  // namespace

const Architecture kStableLm{"stablelm", make_network<StableLm>};

}  // namespace quern
