// What the steps of attention over one tile of keys share (segment.h, which explains the loops): the tile,
// the rows' state, and how rows are grouped.
//
// Templates over a set's Config, which says
//   Lanes         its widest registers (kernels/avx2/float_lanes.h lists what they can do)
//   kDirectRows   up to so many rows read the cache where it lies
//   kDirectGroup  rows that share one conversion in registers
//   kAhead        how far ahead they ask for the cache, in bytes; 0: not at all
//   kDenseGroup   of more rows, those that pass over a block in scratch at once
//   CodeKeys      queries and keys of Q8_0 (scores.h)
//
// Everything is anonymous: each file that is compiled for an instruction set has its own copy, so that the
// linker can never pick such a copy for code that runs on any CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/compiler.h"
#include "kernels/kernel_set.h"

namespace quern::attention {
namespace {

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
  const float* q;       // [n_rows, head_dim], scaled
  float* p;             // [n_rows, kAttentionTile]: scores, then probabilities
  float* lanes;         // [n_rows, 16]
  float* alpha;         // [n_rows], of the tile
  Range* ranges;        // [n_rows], of the tile
  float* block;         // [max(head_dim, kAttentionTile), 16]: keys or values, converted
  float* edge;          // [n_rows, 16]: sums of dims beyond the last multiple of 16
  float* value_scales;  // Q8_0: [kAttentionTile], of a group
  float *acc, *m, *l;   // the part
};

// What the cache holds of a float: told apart by type.
struct F16 {
  static constexpr size_t kBytes = 2;
};
struct F32 {
  static constexpr size_t kBytes = 4;
};

// One tile's keys and values in the cache, and what its valid keys are.
struct Tile {
  const uint8_t* k;
  const uint8_t* v;
  size_t begin, end;  // keys that some row sees
  bool full;          // every row sees all
};

QUERN_INLINE uint8_t* bytes_of(float* x) { return reinterpret_cast<uint8_t*>(x); }

// Takes arrays from scratch, each at the beginning of a cache line.
class Carver {
 public:
  explicit Carver(float* scratch) : next_(scratch) {}
  float* floats(size_t n) {
    float* const taken = next_;
    next_ += (n + 15) / 16 * 16;
    return taken;
  }

 private:
  float* next_;
};

// True when some row of [row, row + n) sees a key of the block.
inline bool sees_block(const State& state, size_t row, size_t n, size_t block) {
  const size_t begin = block * kKvBlockKeys, end = begin + kKvBlockKeys;
  for (size_t r = row; r < row + n; ++r)
    if (state.ranges[r].begin < end && state.ranges[r].end > begin) return true;
  return false;
}

// Calls f.template operator()<rows>(first_row) for groups of up to kMax rows.
template <size_t kMax, class F>
QUERN_INLINE void for_row_groups(size_t n_rows, F&& f) {
  static_assert(kMax == 4 || kMax == 6 || kMax == 8);
  size_t row = 0;
  for (; row + kMax <= n_rows; row += kMax) f.template operator()<kMax>(row);
  if constexpr (kMax > 6) {
    if (row + 4 <= n_rows) {
      f.template operator()<4>(row);
      row += 4;
    }
  }
  switch (n_rows - row) {
    // NOLINTNEXTLINE(bugprone-branch-clone): where kMax is more than 6, this case and the next are empty.
    case 5:
      if constexpr (kMax == 6) f.template operator()<5>(row);
      break;
    case 4:
      if constexpr (kMax == 6) f.template operator()<4>(row);
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
}  // namespace quern::attention
