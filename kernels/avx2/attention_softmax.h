// Attention's probabilities with AVX2: a tile's scores to powers of two below the running maximum, and their
// sums in the definition's sixteen lanes.
//
// Everything is anonymous (see unpack.h). Included by kernels/avx2/attention.cc only.
#pragma once

#include <immintrin.h>

#include "kernels/avx2/attention_tile.h"
#include "kernels/avx2/exp2q.h"

namespace quern::avx2 {
namespace {

float horizontal_max(__m256 x) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// Lane i of the result is all ones where range.begin <= first_lane + i < range.end.
__m256 lanes_within(size_t first_lane, Range range) {
  const Bits lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                     _mm256_set1_epi32(static_cast<int>(first_lane)));
  const Bits too_low = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(range.begin)), lane);
  const Bits below_end = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(range.end)), lane);
  return _mm256_castsi256_ps(_mm256_andnot_si256(too_low, below_end));
}

// Steps 3 and 4 for one row: p: [kAttentionTile], scores in, probabilities out (+0 where no key is valid).
// kFull: all keys are valid.
template <bool kFull>
void softmax_row(Range range, float* p, float* lanes, float* m, float* alpha) {
  constexpr size_t kVectors = kAttentionTile / 8;
  __m256 s[kVectors];
  QUERN_UNROLL
  for (size_t i = 0; i < kVectors; ++i) s[i] = _mm256_loadu_ps(p + 8 * i);
  // A NaN may be lost in the maximum; it returns with its own probability below.
  __m256 largest[2];
  QUERN_UNROLL
  for (size_t i = 0; i < kVectors; ++i) {
    const __m256 valid =
        kFull ? s[i] : _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), s[i], lanes_within(8 * i, range));
    largest[i % 2] = i < 2 ? valid : _mm256_max_ps(largest[i % 2], valid);
  }
  const float tile_m = horizontal_max(_mm256_max_ps(largest[0], largest[1]));
  const float new_m = tile_m > *m ? tile_m : *m;
  const __m256 scale = exp2q_below_126(_mm256_set1_ps(*m - new_m));
  *alpha = _mm256_cvtss_f32(scale);
  *m = new_m;

  const __m256 top = _mm256_set1_ps(new_m);
  __m256 sum[2] = {_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes + 8)};
  QUERN_UNROLL
  for (size_t i = 0; i < kVectors; ++i) {
    __m256 e = exp2q_below_126(_mm256_sub_ps(s[i], top));
    if (!kFull) e = _mm256_and_ps(e, lanes_within(8 * i, range));
    _mm256_storeu_ps(p + 8 * i, e);
    sum[i % 2] = i < 2 ? _mm256_fmadd_ps(sum[i % 2], scale, e) : _mm256_add_ps(sum[i % 2], e);
  }
  _mm256_storeu_ps(lanes, sum[0]);
  _mm256_storeu_ps(lanes + 8, sum[1]);
}

// Steps 3 and 4 for all rows that see a key of the tile.
void softmax_tile(const State& state) {
  for (size_t row = 0; row < state.n_rows; ++row) {
    const Range range = state.ranges[row];
    float *p = state.p + row * kAttentionTile, *lanes = state.lanes + row * 16;
    if (range.end - range.begin == kAttentionTile)
      softmax_row<true>(range, p, lanes, state.m + row, state.alpha + row);
    else if (!range.empty())
      softmax_row<false>(range, p, lanes, state.m + row, state.alpha + row);
  }
}

}  // namespace
}  // namespace quern::avx2
