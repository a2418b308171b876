// Sixteen floats in a register: avx2/float_lanes.h says what the names mean.
//
// Everything is anonymous (see kernels/attention/tile.h). Needs AVX-512 F and DQ.
#pragma once

#include <immintrin.h>

#include "kernels/avx2/float_lanes.h"

namespace quern::avx512 {
namespace {

struct Lanes16 {
  using Floats = __m512;
  using Mask = __mmask16;
  using Half = avx2::Lanes8;
  static constexpr size_t kCount = 16;

  QUERN_INLINE static Floats load(const float* p) { return _mm512_loadu_ps(p); }
  QUERN_INLINE static void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
  QUERN_INLINE static Floats set1(float x) { return _mm512_set1_ps(x); }
  QUERN_INLINE static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  QUERN_INLINE static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  QUERN_INLINE static Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  QUERN_INLINE static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  QUERN_INLINE static Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  QUERN_INLINE static Floats abs(Floats x) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x); }
  QUERN_INLINE static Floats with_sign_of(Floats sign, Floats magnitude) {
    return _mm512_or_ps(_mm512_and_ps(_mm512_set1_ps(-0.0f), sign), magnitude);
  }
  QUERN_INLINE static Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
  QUERN_INLINE static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }

  QUERN_INLINE static Floats to_exponents(Floats x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 23));
  }
  QUERN_INLINE static Floats zero_where_less(Floats x, Floats limit, Floats y) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), y);
  }

  QUERN_INLINE static Floats load(attention::F32, const uint8_t* p) { return _mm512_loadu_ps(p); }
  QUERN_INLINE static Floats load(attention::F16, const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  QUERN_INLINE static Floats from_codes(const uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  template <class T>
  QUERN_INLINE static float load1(T type, const uint8_t* p) {
    return Half::load1(type, p);
  }

  QUERN_INLINE static float first(Floats x) { return _mm512_cvtss_f32(x); }
  static float horizontal_max(Floats x) {
    return Half::horizontal_max(Half::max(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
  }
  static float fold16(const float* p) { return Half::fold16(p); }

  static Mask lanes_within(size_t first_lane, uint32_t begin, uint32_t end) {
    const __m512i lane =
        _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_epi32(static_cast<int>(first_lane)));
    return static_cast<Mask>(_mm512_cmpge_epu32_mask(lane, _mm512_set1_epi32(static_cast<int>(begin))) &
                             _mm512_cmplt_epu32_mask(lane, _mm512_set1_epi32(static_cast<int>(end))));
  }
  QUERN_INLINE static Floats select(Mask mask, Floats x, Floats otherwise) {
    return _mm512_mask_blend_ps(mask, otherwise, x);
  }
  QUERN_INLINE static Floats or_zero(Mask mask, Floats x) { return _mm512_maskz_mov_ps(mask, x); }
};

}  // namespace
}  // namespace quern::avx512
