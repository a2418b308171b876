// OLMo 2: norms stand behind attention and the feed-forward network, and Q and K are normalised whole.
//
// OLMo Team, "2 OLMo 2 Furious", 2024, section 2.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Olmo2 final : public Decoder {
 public:
  explicit Olmo2(HParamReader& keys)
      : Decoder(keys, {.norms = NormPlaces::kBehind, .pairs = RopePairs::kHalves}) {}

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    Decoder::declare_layer(parts, l);
    l.attention.declare_whole_norms(parts, hparams_.norm_eps);
  }
};

}  // namespace

const Architecture kOlmo2{"olmo2", make_network<Olmo2>};

}  // namespace quern
