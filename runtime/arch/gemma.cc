// Gemma: embeddings grow by sqrt(dim), the feed-forward network is gated by GELU, the output is the
// embedding.
//
// Gemma Team, "Gemma: Open Models Based on Gemini Research and Technology", 2024, section 2.
#include <cmath>

#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Gemma final : public Decoder {
 public:
  explicit Gemma(HParamReader& keys) : Decoder(keys, {.pairs = RopePairs::kHalves}) {
    embedding_scale_ = static_cast<float>(std::sqrt(static_cast<double>(hparams_.dim)));
    for (DecoderLayer& l : layers_) l.feed_forward.activation = Activation::kGeglu;
  }
};

}  // namespace

const Architecture kGemma{"gemma", make_network<Gemma>};

}  // namespace quern
