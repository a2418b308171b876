// Nemotron 4 and Minitron: LayerNorm, half of a head rotated, a feed-forward network of squared ReLU.
//
// Parmar et al., "Nemotron-4 15B Technical Report", 2024, section 2.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Nemotron final : public Decoder {
 public:
  explicit Nemotron(HParamReader& keys)
      : Decoder(keys, {.norm = NormKind::kLayer, .pairs = RopePairs::kHalves, .partial_rotation = true}) {
    keys.ignore({"attention.layer_norm_rms_epsilon"});  // written beside the other, of no effect
    for (DecoderLayer& l : layers_) l.feed_forward.activation = Activation::kRelu2;
  }
};

}  // namespace

const Architecture kNemotron{"nemotron", make_network<Nemotron>};

}  // namespace quern
