// What the scalar kernel set is made of. The reference: plainly right, kept for ever.
#pragma once

#include <cstddef>

#include "kernels/kernel_set.h"

namespace quern::scalar {

// One row for every format that can be decoded, on WeightLayout::kRows.
extern const MatmulKernel kMatmuls[];
inline constexpr size_t kMatmulCount = 15;

}  // namespace quern::scalar
