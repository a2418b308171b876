// What the scalar kernel set is made of. The reference: plainly right, kept for ever.
#pragma once

#include <cstddef>

#include "kernels/kernel_set.h"

namespace quern::scalar {

// One row for every format that can be decoded, on TensorLayout::kRows.
extern const MatmulRows kMatmulRows;

}  // namespace quern::scalar
