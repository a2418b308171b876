// Which matrices of a layer share an input, in the order in which they are multiplied.
#pragma once

#include <span>
#include <string_view>

#include "runtime/model.h"

namespace quern {

struct CalibrationStage {
  std::span<const std::string_view> matrices;  // names behind "blk.N."

  bool has(const TensorDeclaration& tensor) const;
};

// Those of the model's layers. Throws kMalformed, naming it, for an architecture whose stages are not
// declared, for matrices that are in none, for those whose products have a factor, and for tensors in another
// layout than the standard one.
std::span<const CalibrationStage> require_stages(const Model& model);

}  // namespace quern
