// SmolLM3: Llama, with every fourth layer's attention without positions.
//
// Yang et al., "Rope to Nope and Back Again: A New Hybrid Attention Strategy", 2025.
#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class SmolLm3 final : public Decoder {
 public:
  explicit SmolLm3(HParamReader& keys) : Decoder(keys, {}) {
    const std::string_view key = "attention.rope_pattern";
    std::optional<std::vector<bool>> rotated;
    if (const GgufValue* value = keys.find(key)) {
      rotated = value->as_bools();
      if (!rotated || rotated->size() != layers_.size())
        keys.refuse(key, fmt::format("expected {} booleans, one for each layer", layers_.size()));
    }
    for (size_t i = 0; i < layers_.size(); ++i)
      if (rotated ? !(*rotated)[i] : (i + 1) % 4 == 0) layers_[i].attention.rope.reset();
  }
};

}  // namespace

const Architecture kSmolLm3{"smollm3", make_network<SmolLm3>};

}  // namespace quern
