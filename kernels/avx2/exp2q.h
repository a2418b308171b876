// exp2q (arithmetic.md) on eight lanes. Only for translation units compiled for AVX2 and FMA; internal
// linkage, so that no baseline object shares this code.
#pragma once

#include <immintrin.h>

namespace quern::avx2 {

// Where every x is at most 126 or NaN.
static inline __m256 exp2q_below_126(__m256 x) {
  const __m256 magic = _mm256_set1_ps(12583039.0f);  // 1.5 * 2^23 + 127
  const __m256 t = _mm256_add_ps(x, magic);
  const __m256 r = _mm256_sub_ps(x, _mm256_sub_ps(t, magic));
  __m256 p = _mm256_set1_ps(0x1.44138ap-13f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.5f0890p-10f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.3b2a54p-7f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.c6af6cp-5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.ebfbe0p-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.62e430p-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256 scale = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23));
  const __m256 underflow = _mm256_cmp_ps(x, _mm256_set1_ps(-100.0f), _CMP_LT_OQ);
  return _mm256_andnot_ps(underflow, _mm256_mul_ps(p, scale));
}

static inline __m256 exp2q(__m256 x) {
  // The minimum returns its second operand when one is NaN: NaN stays.
  return exp2q_below_126(_mm256_min_ps(_mm256_set1_ps(126.0f), x));
}

}  // namespace quern::avx2
