// Activations as the AVX2 kernels read them: for a tile of C tokens (1 to 4) and every group of 32 values one
// block of 64 * C bytes,
//
//         0: 8 steps s of C x 4   codes k = 4s .. 4s+3
//    32 * C: C x f32              da
//    36 * C: C x 2 int16          -8 * sums of the codes with k % 4 in {0, 1} and in {2, 3}
//    40 * C: C x f32              da * float(S)
//    44 * C: C x int32            16 * S; S is the sum of the codes
//    48 * C: C x 2 int16          -32 * the same sums of the first 16 codes
//    52 * C: C x 2 int16          -32 * those of the second 16 codes
//    56 * C: unused
//
// so that one step of a product reads 4 * C bytes that follow each other, each token's broadcast from memory,
// and what a format does not use of four tokens are whole cache lines. A tile's blocks follow each other; the
// tiles of n tokens are of four tokens each, the last one of those that are left.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/avx2/avx2_kernels.h"

namespace quern::avx2 {

inline constexpr size_t kTokenBlockBytes = 64;  // of a token and group, whatever the tile's width

template <size_t C>
struct TileBlock {
  static constexpr size_t kStepBytes = 4 * C, kScales = 32 * C, kBias8 = 36 * C, kScaledSums = 40 * C,
                          kSums16 = 44 * C, kBias32 = 48 * C, kBytes = kTokenBlockBytes * C;
};

}  // namespace quern::avx2
