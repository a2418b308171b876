// Eight floats in a register, by the names that exp2q_lanes.h and attention's loops (kernels/attention) use.
//
// Everything is anonymous (see kernels/attention/tile.h). Needs AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include "kernels/attention/tile.h"
#include "kernels/avx2/lanes.h"

namespace quern::avx2 {
namespace {

struct Lanes8 {
  using Floats = __m256;
  using Mask = __m256;
  static constexpr size_t kCount = 8;

  QUERN_INLINE static Floats load(const float* p) { return _mm256_loadu_ps(p); }
  QUERN_INLINE static void store(float* p, Floats x) { _mm256_storeu_ps(p, x); }
  QUERN_INLINE static Floats set1(float x) { return _mm256_set1_ps(x); }
  QUERN_INLINE static Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  QUERN_INLINE static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  QUERN_INLINE static Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
  QUERN_INLINE static Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  QUERN_INLINE static Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
  QUERN_INLINE static Floats abs(Floats x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
  // magnitude >= 0.
  QUERN_INLINE static Floats with_sign_of(Floats sign, Floats magnitude) {
    return _mm256_or_ps(_mm256_and_ps(_mm256_set1_ps(-0.0f), sign), magnitude);
  }
  // b where one is NaN.
  QUERN_INLINE static Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
  QUERN_INLINE static Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
  // The low bits of x's representation as exponents of powers of two.
  QUERN_INLINE static Floats to_exponents(Floats x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 23));
  }
  // +0 where x < limit, else y; y where x is NaN.
  QUERN_INLINE static Floats zero_where_less(Floats x, Floats limit, Floats y) {
    return _mm256_andnot_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ), y);
  }

  // Eight elements of the cache, exactly.
  QUERN_INLINE static Floats load(attention::F32, const uint8_t* p) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  }
  QUERN_INLINE static Floats load(attention::F16, const uint8_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  QUERN_INLINE static Floats from_codes(const uint8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  // One.
  QUERN_INLINE static float load1(attention::F32, const uint8_t* p) {
    float x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }
  QUERN_INLINE static float load1(attention::F16, const uint8_t* p) {
    uint16_t bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
  }

  QUERN_INLINE static float first(Floats x) { return _mm256_cvtss_f32(x); }
  static float horizontal_max(Floats x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }
  // The definition's fold of sixteen floats (arithmetic.md).
  static float fold16(const float* p) { return avx2::fold16(load(p), load(p + 8)); }

  // Lane i: begin <= first_lane + i < end.
  static Mask lanes_within(size_t first_lane, uint32_t begin, uint32_t end) {
    const __m256i lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                          _mm256_set1_epi32(static_cast<int>(first_lane)));
    const __m256i too_low = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(begin)), lane);
    const __m256i below_end = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(end)), lane);
    return _mm256_castsi256_ps(_mm256_andnot_si256(too_low, below_end));
  }
  QUERN_INLINE static Floats select(Mask mask, Floats x, Floats otherwise) {
    return _mm256_blendv_ps(otherwise, x, mask);
  }
  QUERN_INLINE static Floats or_zero(Mask mask, Floats x) { return _mm256_and_ps(x, mask); }
};

}  // namespace
}  // namespace quern::avx2
