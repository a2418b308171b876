// Ministral 3 and Mistral Small 3: Mistral with YaRN, whose queries grow with their position.
//
// Llama 4's attention temperature: 1 + beta ln(1 + floor(position / original context)).
#include <cmath>

#include "kernels/math_f64.h"
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Mistral3 final : public Decoder {
 public:
  explicit Mistral3(HParamReader& keys)
      : Decoder(keys, {}), beta_(keys.float_or("attention.temperature_scale", 0)) {
    for (DecoderLayer& l : layers_) l.attention.scale_queries = beta_ != 0;
    if (beta_ != 0 && rope_.original_context < 1)
      keys.refuse("rope.scaling.original_context_length", "is missing, which the temperature needs");
  }

  std::optional<double> query_scale(uint64_t position) const override {
    if (beta_ == 0) return std::nullopt;
    return 1 + beta_ * ln(1 + std::floor(static_cast<double>(position) / rope_.original_context));
  }

 private:
  double beta_;
};

}  // namespace

const Architecture kMistral3{"mistral3", make_network<Mistral3>};

}  // namespace quern
