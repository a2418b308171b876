// Qwen2 and Qwen2.5: Llama with biases of Q, K and V, and rotary pairs that lie half a head apart.
//
// Yang et al., "Qwen2 Technical Report", 2024, section 2.2.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Qwen2 final : public Decoder {
 public:
  explicit Qwen2(HParamReader& keys) : Decoder(keys, {.pairs = RopePairs::kHalves}) {
    read_window_layers(keys, /*period=*/0);
  }
};

}  // namespace

const Architecture kQwen2{"qwen2", make_network<Qwen2>};

}  // namespace quern
