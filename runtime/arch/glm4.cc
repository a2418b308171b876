// GLM-4: norms before and after each half of a layer; half of a head is rotated.
//
// GLM Team, "ChatGLM: A Family of Large Language Models from GLM-130B to GLM-4 All Tools", 2024; the layout
// of the 0414 models is that of their published code.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Glm4 final : public Decoder {
 public:
  explicit Glm4(HParamReader& keys) : Decoder(keys, {.norms = NormPlaces::kBoth, .partial_rotation = true}) {}
};

}  // namespace

const Architecture kGlm4{"glm4", make_network<Glm4>};

}  // namespace quern
