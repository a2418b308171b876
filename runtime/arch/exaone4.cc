// EXAONE 4: norms stand behind attention and the feed-forward network, heads of Q and K are normalised; where
// the model has a window, layers without it do not encode positions.
//
// LG AI Research, "EXAONE 4.0", 2025, section 2.1.
#include <cstdint>

#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Exaone4 final : public Decoder {
 public:
  explicit Exaone4(HParamReader& keys)
      : Decoder(keys, {.norms = NormPlaces::kBehind, .pairs = RopePairs::kHalves}) {
    const std::vector<bool> windowed = read_window_layers(keys, 4);
    const bool has_window = keys.uint_or("attention.sliding_window", 0, 0, UINT32_MAX) != 0;
    for (size_t i = 0; i < layers_.size(); ++i)
      if (has_window && !windowed[i]) layers_[i].attention.rope.reset();
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    Decoder::declare_layer(parts, l);
    l.attention.declare_head_norms(parts, hparams_.norm_eps);
  }
};

}  // namespace

const Architecture kExaone4{"exaone4", make_network<Exaone4>};

}  // namespace quern
