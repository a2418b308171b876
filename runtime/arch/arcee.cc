// Arcee's AFM: Llama with a feed-forward network of squared ReLU.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Arcee final : public Decoder {
 public:
  explicit Arcee(HParamReader& keys) : Decoder(keys, {}) {
    for (DecoderLayer& l : layers_) l.feed_forward.activation = Activation::kRelu2;
  }
};

}  // namespace

const Architecture kArcee{"arcee", make_network<Arcee>};

}  // namespace quern
