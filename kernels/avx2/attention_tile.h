// What the steps of attention over one tile of keys share (attention.cc, which explains the loops): the tile,
// the rows' state, and how rows are grouped.
//
// Everything is anonymous (see unpack.h). Included by kernels/avx2/attention*.h only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/compiler.h"
#include "kernels/kernel_set.h"

namespace quern::avx2 {
namespace {

constexpr size_t kDirectRows = 8;   // up to so many rows read the cache where it lies
constexpr size_t kDirectGroup = 4;  // rows that share one conversion in registers
constexpr size_t kDenseGroup = 6;   // rows x two vectors of a tile in scratch
constexpr size_t kSlabDims = 16;    // dims of a tile's values that are converted at once
constexpr size_t kCacheLine = 64;

// Valid keys [begin, end) of a row within a tile, counted from the tile's first key. Empty: begin == end.
struct Range {
  uint32_t begin, end;
  bool empty() const { return begin == end; }
};

// Everything that attend_segment() carries from tile to tile, in the caller's scratch and part. What belongs
// to one tile says so.
struct State {
  size_t n_rows, head_dim;
  const float* q;          // [n_rows, head_dim], scaled
  const int16_t* q_codes;  // Q8_0: [n_rows, head_dim], of four codes 0, 2, 1, 3
  const float* q_scales;   // Q8_0: [n_rows, head_dim / 32]
  float* p;                // [n_rows, kAttentionTile]: scores, then probabilities
  float* lanes;            // [n_rows, 16]
  float* alpha;            // [n_rows], of the tile
  Range* ranges;           // [n_rows], of the tile
  float* keys;             // a block of keys, converted; Q8_0: WideBlocks, which take no more
  float* values;           // [kAttentionTile, kSlabDims]
  float* value_scales;     // Q8_0: [kAttentionTile, head_dim / 32], of the tile
  float *acc, *m, *l;      // the part
};

// One tile's keys and values in the cache, and what its valid keys are.
struct Tile {
  const uint8_t* k;
  const uint8_t* v;
  const uint8_t* next_k;  // the keys that are probably wanted next; any address
  size_t begin, end;      // keys that some row sees
  bool full;              // every row sees all
};

QUERN_INLINE uint8_t* bytes_of(float* x) { return reinterpret_cast<uint8_t*>(x); }

// True when some row of [row, row + n) sees a key of the block.
bool sees_block(const State& state, size_t row, size_t n, size_t block) {
  const size_t begin = block * kKvBlockKeys, end = begin + kKvBlockKeys;
  for (size_t r = row; r < row + n; ++r)
    if (state.ranges[r].begin < end && state.ranges[r].end > begin) return true;
  return false;
}

// Calls f.template operator()<rows>(first_row) for groups of up to kMax rows.
template <size_t kMax, class F>
QUERN_INLINE void for_row_groups(size_t n_rows, F&& f) {
  static_assert(kMax == 4 || kMax == 6);
  size_t row = 0;
  for (; row + kMax <= n_rows; row += kMax) f.template operator()<kMax>(row);
  switch (n_rows - row) {
    case 5:
      if constexpr (kMax > 5) f.template operator()<5>(row);
      break;
    case 4:
      if constexpr (kMax > 4) f.template operator()<4>(row);
      break;
    case 3:
      f.template operator()<3>(row);
      break;
    case 2:
      f.template operator()<2>(row);
      break;
    case 1:
      f.template operator()<1>(row);
      break;
    default:
      break;
  }
}

}  // namespace
}  // namespace quern::avx2
