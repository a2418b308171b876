// gpt-oss: experts with biases behind a clamped SwiGLU, heads with a sink, windows in every other layer.
//
// OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card", 2025, section 2.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class GptOss final : public Decoder {
 public:
  explicit GptOss(HParamReader& keys)
      : Decoder(keys, {.pairs = RopePairs::kHalves}),
        expert_dim_(keys.uint_or("expert_feed_forward_length", hparams_.hidden_dim, 1, kMaxDim)) {
    rope_.whole_correction = false;
    read_window_layers(keys, 2);
    for (DecoderLayer& l : layers_) {
      read_expert_counts(keys, &l.experts.n_experts, &l.experts.n_used);
      l.experts.rule.score = RouterScore::kSoftmaxOfChosen;
      l.experts.rule.normalise = true;
      l.experts.activation = Activation::kGptOss;
    }
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    l.attention_norm.declare(parts, "attn_norm", hparams_.dim);
    l.attention.declare(parts, hparams_.dim);
    parts.vector("attn_sinks.weight", hparams_.n_heads, &l.attention.sinks);
    l.feed_forward_norm.declare(parts, "post_attention_norm", hparams_.dim);
    l.experts.declare(parts, hparams_.dim, expert_dim_);
  }

 private:
  uint64_t expert_dim_;
};

}  // namespace

const Architecture kGptOss{"gpt-oss", make_network<GptOss>};

}  // namespace quern
