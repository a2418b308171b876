// Phi-3, Phi-3.5 and Phi-4: Llama with Q, K and V in one tensor, gate and up in another, and LongRoPE.
//
// Abdin et al., "Phi-3 Technical Report", 2024, section 2.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Phi3 final : public Decoder {
 public:
  explicit Phi3(HParamReader& keys) : Decoder(keys, {.pairs = RopePairs::kHalves, .partial_rotation = true}) {
    const uint32_t window = keys.uint_or("attention.sliding_window", 0, 0, UINT32_MAX);
    for (DecoderLayer& l : layers_) l.attention.shape.window = window;
  }
};

}  // namespace

const Architecture kPhi3{"phi3", make_network<Phi3>};

}  // namespace quern
