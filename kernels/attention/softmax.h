// Attention's probabilities: a tile's scores to powers of two below the running maximum, and their sums in
// the definition's sixteen lanes.
//
// Everything is anonymous (see tile.h).
#pragma once

#include "kernels/attention/tile.h"
#include "kernels/exp2q_lanes.h"

namespace quern::attention {
namespace {

// Steps 3 and 4 for one row: p: [kAttentionTile], scores in, probabilities out (+0 where no key is valid).
// kFull: all keys are valid.
template <class L, bool kFull>
void softmax_row(Range range, float* p, float* lanes, float* m, float* alpha) {
  using Floats = typename L::Floats;
  constexpr size_t kVectors = kAttentionTile / L::kCount, kSums = 16 / L::kCount;
  Floats s[kVectors];
  QUERN_UNROLL
  for (size_t i = 0; i < kVectors; ++i) s[i] = L::load(p + L::kCount * i);
  // A NaN may be lost in the maximum; it returns with its own probability below.
  Floats largest[2];
  QUERN_UNROLL
  for (size_t i = 0; i < kVectors; ++i) {
    const Floats valid = kFull ? s[i]
                               : L::select(L::lanes_within(L::kCount * i, range.begin, range.end), s[i],
                                           L::set1(-__builtin_inff()));
    largest[i % 2] = i < 2 ? valid : L::max(largest[i % 2], valid);
  }
  const float tile_m = L::horizontal_max(L::max(largest[0], largest[1]));
  const float new_m = tile_m > *m ? tile_m : *m;
  const Floats scale = exp2q_below_126<L>(L::set1(*m - new_m));
  *alpha = L::first(scale);
  *m = new_m;

  const Floats top = L::set1(new_m);
  Floats sum[kSums];
  QUERN_UNROLL
  for (size_t i = 0; i < kSums; ++i) sum[i] = L::load(lanes + L::kCount * i);
  QUERN_UNROLL
  for (size_t i = 0; i < kVectors; ++i) {
    Floats e = exp2q_below_126<L>(L::sub(s[i], top));
    if (!kFull) e = L::or_zero(L::lanes_within(L::kCount * i, range.begin, range.end), e);
    L::store(p + L::kCount * i, e);
    sum[i % kSums] = i < kSums ? L::fma(sum[i % kSums], scale, e) : L::add(sum[i % kSums], e);
  }
  QUERN_UNROLL
  for (size_t i = 0; i < kSums; ++i) L::store(lanes + L::kCount * i, sum[i]);
}

// Steps 3 and 4 for all rows that see a key of the tile.
template <class L>
void softmax_tile(const State& state) {
  for (size_t row = 0; row < state.n_rows; ++row) {
    const Range range = state.ranges[row];
    float *p = state.p + row * kAttentionTile, *lanes = state.lanes + row * 16;
    if (range.end - range.begin == kAttentionTile)
      softmax_row<L, true>(range, p, lanes, state.m + row, state.alpha + row);
    else if (!range.empty())
      softmax_row<L, false>(range, p, lanes, state.m + row, state.alpha + row);
  }
}

}  // namespace
}  // namespace quern::attention
