// ERNIE 4.5, the dense models: Llama's layer.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Ernie45 final : public Decoder {
 public:
  explicit Ernie45(HParamReader& keys) : Decoder(keys, {}) {}
};

}  // namespace

const Architecture kErnie45{"ernie4_5", make_network<Ernie45>};

}  // namespace quern
