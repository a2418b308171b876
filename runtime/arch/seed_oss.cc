// Seed-OSS: Qwen2's biases and rotation; the norm before the feed-forward network goes by another name.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class SeedOss final : public Decoder {
 public:
  explicit SeedOss(HParamReader& keys) : Decoder(keys, {.pairs = RopePairs::kHalves}) {}

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    l.attention_norm.declare(parts, "attn_norm", hparams_.dim);
    l.attention.declare(parts, hparams_.dim);
    l.feed_forward_norm.declare(parts, "post_attention_norm", hparams_.dim);
    l.feed_forward.declare(parts, hparams_.dim, hparams_.hidden_dim);
  }
};

}  // namespace

const Architecture kSeedOss{"seed_oss", make_network<SeedOss>};

}  // namespace quern
