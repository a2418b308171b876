// StarCoder2: LayerNorm, biases everywhere, and a feed-forward network of one matrix up and one down.
//
// Lozhkov et al., "StarCoder 2 and The Stack v2: The Next Generation", 2024, section 5.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class StarCoder2 final : public Decoder {
 public:
  explicit StarCoder2(HParamReader& keys)
      : Decoder(keys, {.norm = NormKind::kLayer, .pairs = RopePairs::kHalves}) {
    const uint32_t window = keys.uint_or("attention.sliding_window", 0, 0, UINT32_MAX);
    for (DecoderLayer& l : layers_) {
      l.attention.shape.window = window;
      l.feed_forward.activation = Activation::kGelu;
    }
  }
};

}  // namespace

const Architecture kStarCoder2{"starcoder2", make_network<StarCoder2>};

}  // namespace quern
