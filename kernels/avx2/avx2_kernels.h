// What the AVX2 kernel set (AVX2, FMA, F16C) is made of. Callers have checked the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_set.h"

namespace quern::avx2 {

// The products, file by file. On TensorLayout::kPanels. The same bits as the scalar set's.
extern const MatmulRows kFloatRows, kByteRows, kSignedRows, kTwoScalesRows;
// The same on TensorLayout::kRows, from MatmulArgs::a.
extern const MatmulRows kCodebookRows;

// The activations' forms (activation_tiles.h): of signed codes and of the others.
inline constexpr size_t kTileTokens = 4;
extern const ActivationTiles kTiles, kPairTiles;

}  // namespace quern::avx2
