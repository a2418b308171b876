// Eight floats as one value, for the files that search (searches.h): one register with AVX2, otherwise two of
// four lanes. Everything is local to the file that includes it, because it is compiled for several
// instruction sets; the header of the formats, whose functions are shared, is none of AVX2's.
#pragma once

#ifdef __AVX2__
#include <immintrin.h>
#else
#include "quant/formats/formats.h"
#endif

namespace quern::formats {
namespace {

#ifdef __AVX2__

struct Float8 {
  __m256 v;
};
using Mask8 = Float8;  // all bits of a lane, or none

template <class F>
Float8 lanewise(Float8 a, Float8 b, F f) {
  return {f(a.v, b.v)};
}
inline Float8 load8(const float* x) { return {_mm256_loadu_ps(x)}; }
inline void store8(Float8 a, float* x) { _mm256_storeu_ps(x, a.v); }
inline Float8 all8(float x) { return {_mm256_set1_ps(x)}; }
inline Float8 min8(Float8 a, Float8 b) { return {_mm256_min_ps(a.v, b.v)}; }  // a < b ? a : b
inline Float8 max8(Float8 a, Float8 b) { return {_mm256_max_ps(a.v, b.v)}; }  // a > b ? a : b
inline Float8 abs8(Float8 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Mask8 less8(Float8 a, Float8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask8 unequal8(Float8 a, Float8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)}; }
inline Mask8 both8(Mask8 a, Mask8 b) { return {_mm256_and_ps(a.v, b.v)}; }
inline bool any8(Mask8 m) { return _mm256_movemask_ps(m.v) != 0; }
inline Float8 select8(Mask8 m, Float8 a, Float8 b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }
// nearest_int of super_block.h, as floats.
inline Float8 nearest_int8(Float8 a) {
  const __m256i bits = _mm256_castps_si256(_mm256_add_ps(a.v, _mm256_set1_ps(12582912.0f)));
  const __m256i kept = _mm256_and_si256(bits, _mm256_set1_epi32(0x007fffff));
  return {_mm256_cvtepi32_ps(_mm256_sub_epi32(kept, _mm256_set1_epi32(0x00400000)))};
}

#else

struct Float8 {
  Float4 low, high;
};
struct Mask8 {
  Int4 low, high;  // -1 or 0
};

template <class F>
Float8 lanewise(Float8 a, Float8 b, F f) {
  return {f(a.low, b.low), f(a.high, b.high)};
}
inline Float8 load8(const float* x) { return {load4(x), load4(x + 4)}; }
inline void store8(Float8 a, float* x) { std::memcpy(x, &a, sizeof a); }
inline Float8 all8(float x) { return {Float4{x, x, x, x}, Float4{x, x, x, x}}; }
inline Float8 min8(Float8 a, Float8 b) { return {min4(a.low, b.low), min4(a.high, b.high)}; }
inline Float8 max8(Float8 a, Float8 b) { return {max4(a.low, b.low), max4(a.high, b.high)}; }
inline Float8 abs8(Float8 a) {
  const auto abs4 = [](Float4 x) { return std::bit_cast<Float4>(std::bit_cast<Int4>(x) & 0x7fffffff); };
  return {abs4(a.low), abs4(a.high)};
}
inline Mask8 less8(Float8 a, Float8 b) { return {a.low < b.low, a.high < b.high}; }
inline Mask8 unequal8(Float8 a, Float8 b) { return {a.low != b.low, a.high != b.high}; }
inline Mask8 both8(Mask8 a, Mask8 b) { return {a.low & b.low, a.high & b.high}; }
inline bool any8(Mask8 m) {
  const Int4 either = m.low | m.high;
  return (either[0] | either[1] | either[2] | either[3]) != 0;
}
inline Float8 select8(Mask8 m, Float8 a, Float8 b) {
  const auto select4 = [](Int4 mask, Float4 x, Float4 y) {
    return std::bit_cast<Float4>((std::bit_cast<Int4>(x) & mask) | (std::bit_cast<Int4>(y) & ~mask));
  };
  return {select4(m.low, a.low, b.low), select4(m.high, a.high, b.high)};
}
inline Float8 nearest_int8(Float8 a) {
  const auto nearest4 = [](Float4 x) {
    const Int4 bits = std::bit_cast<Int4>(x + 12582912.0f);
    return __builtin_convertvector((bits & 0x007fffff) - 0x00400000, Float4);
  };
  return {nearest4(a.low), nearest4(a.high)};
}

#endif

inline Float8 operator+(Float8 a, Float8 b) {
  return lanewise(a, b, [](auto x, auto y) { return x + y; });
}
inline Float8 operator-(Float8 a, Float8 b) {
  return lanewise(a, b, [](auto x, auto y) { return x - y; });
}
inline Float8 operator*(Float8 a, Float8 b) {
  return lanewise(a, b, [](auto x, auto y) { return x * y; });
}
inline Float8 operator/(Float8 a, Float8 b) {
  return lanewise(a, b, [](auto x, auto y) { return x / y; });
}
// Half to even, for |x| < 2^22; NaN stays NaN.
inline Float8 nearest8(Float8 a) { return (a + all8(12582912.0f)) - all8(12582912.0f); }

}  // namespace
}  // namespace quern::formats
