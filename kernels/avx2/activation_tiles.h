// Activations as the AVX2 kernels read them. A tile is C tokens (1 to 4): for every group of 32 values a
// block of 40 * C bytes that all formats but one read,
//
//         0: 8 steps s of C x 4   codes k = 4s .. 4s+3
//    32 * C: C x f32              da
//    36 * C: C x 2 int16          -8 * sums of the codes with k % 4 in {0, 1} and in {2, 3}
//
// so that one step of a product reads 4 * C bytes that follow each other, each token's broadcast from memory;
// and behind these, again for every group, 20 * C bytes that some formats read:
//
//         0: C x f32              da * float(S)
//     4 * C: C x int32            16 * S; S is the sum of the codes
//     8 * C: C x 2 int16          -32 * the sums above of the first 16 codes
//    12 * C: C x 2 int16          -32 * those of the second 16 codes
//    16 * C: C x 2 int16          the sums of the first and of the second 16 codes
//
// Apart, because many tokens' activations come from the last-level cache for every panel. The tiles of n
// tokens are of four tokens each, the last one of those that are left.
//
// Q8_0 has a form of its own. Its tiles of four tokens hold codes as int16: for every group a block of
// 4 * 68 bytes,
//
//         0: 8 steps s of 4 tokens x 2 int16   codes k = 4s, 4s+2, then as many of k = 4s+1, 4s+3
//       256: 4 x f32                           da
//
// and its last tile, of fewer tokens, is one of the first form, of which it reads the blocks only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/avx2/avx2_kernels.h"

namespace quern::avx2 {

// Of a token and group, whatever the tile's width.
inline constexpr size_t kMainBytes = 40, kSideBytes = 20, kTokenGroupBytes = kMainBytes + kSideBytes;

template <size_t C>
struct TileBlock {
  static constexpr size_t kStepBytes = 4 * C, kScales = 32 * C, kBias8 = 36 * C, kBytes = kMainBytes * C;
};

template <size_t C>
struct TileSide {
  static constexpr size_t kScaledSums = 0, kSums16 = 4 * C, kBias32 = 8 * C, kHalfSums = 16 * C,
                          kBytes = kSideBytes * C;
};

struct PairBlock {
  static constexpr size_t kStepBytes = 16;  // 16 steps of two codes
  static constexpr size_t kTokenBytes = 68, kScales = 256, kBytes = kTokenBytes * kTileTokens;
};

// Where both parts of some group of a tile stand.
struct TilePosition {
  const uint8_t* block;
  const uint8_t* side;
};

}  // namespace quern::avx2
