// Qwen3: Qwen2 with a norm of each head of Q and K in place of the biases.
//
// Yang et al., "Qwen3 Technical Report", 2025, section 2.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Qwen3 final : public Decoder {
 public:
  explicit Qwen3(HParamReader& keys) : Decoder(keys, {.pairs = RopePairs::kHalves}) {
    read_window_layers(keys, /*period=*/0);
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    Decoder::declare_layer(parts, l);
    l.attention.declare_head_norms(parts, hparams_.norm_eps);
  }
};

}  // namespace

const Architecture kQwen3{"qwen3", make_network<Qwen3>};

}  // namespace quern
