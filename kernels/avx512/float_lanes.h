// Sixteen floats in a register, by the names that attention's loops (kernels/attention) call them.
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
  QUERN_INLINE static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }

  // kernels/avx2/exp2q.h on sixteen lanes.
  QUERN_INLINE static Floats exp2q_below_126(Floats x) {
    const Floats magic = set1(12583039.0f);  // 1.5 * 2^23 + 127
    const Floats t = add(x, magic), r = sub(x, sub(t, magic));
    Floats p = set1(0x1.44138ap-13f);
    p = fma(p, r, set1(0x1.5f0890p-10f));
    p = fma(p, r, set1(0x1.3b2a54p-7f));
    p = fma(p, r, set1(0x1.c6af6cp-5f));
    p = fma(p, r, set1(0x1.ebfbe0p-3f));
    p = fma(p, r, set1(0x1.62e430p-1f));
    p = fma(p, r, set1(1.0f));
    const Floats scale = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t), 23));
    // Not less than -100, or NaN.
    return _mm512_maskz_mul_ps(_mm512_cmp_ps_mask(x, set1(-100.0f), _CMP_NLT_UQ), p, scale);
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
