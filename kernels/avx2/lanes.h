// Eight lanes of floats from rows that do not fill them, and sums over the definition's sixteen lanes
// (arithmetic.md), which are two registers here. Only for translation units compiled for AVX2; internal
// linkage, so that no baseline object shares this code.
#pragma once

#include <immintrin.h>

#include <cstddef>

namespace quern::avx2 {

// Values beyond `count` are zero. count <= 8.
static inline __m256 load_partial(const float* x, size_t count) {
  if (count == 8) return _mm256_loadu_ps(x);
  alignas(32) float padded[8] = {};
  __builtin_memcpy(padded, x, count * sizeof(float));
  return _mm256_load_ps(padded);
}

// fold16 of lanes 0..7 and 8..15.
static inline float fold16(__m256 low, __m256 high) {
  const __m256 eight = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace quern::avx2
