// The functions of a Searches, for the instruction set that the including file is compiled for.
#pragma once

#include <cmath>

#include "quant/code_values.h"
#include "quant/formats/lanes.h"
#include "quant/formats/searches.h"

namespace quern::formats {
namespace {

// Candidates whose sums are computed side by side: their chains of additions overlap.
constexpr size_t kPair = 2;

// out[k], lane s: weight k of sub-block s.
template <size_t kN>
void transpose(const float* x, Float8* out /* [kN] */) {
  alignas(32) float lanes[kN][kSearchLanes];
  for (size_t s = 0; s < kSearchLanes; ++s)
    for (size_t k = 0; k < kN; ++k) lanes[k][s] = x[s * kN + k];
  for (size_t k = 0; k < kN; ++k) out[k] = load8(lanes[k]);
}

// An inverse scale beyond f32 gives the reference code 0 for every weight, as 0 does.
inline Float8 finite_or_zero(Float8 a) { return select8(less8(abs8(a), all8(INFINITY)), a, all8(0)); }

template <size_t kN, bool kAbsolute>
void minimum_of(const MinimumRule& rule, const float* x_rows, const float* weight_rows, MinimumFit* fit) {
  const Float8 zero = all8(0), largest = all8(rule.largest);
  Float8 x[kN], w[kN], code[kN];
  transpose<kN>(x_rows, x);
  transpose<kN>(weight_rows, w);
  Float8 lowest = x[0], highest = x[0], sum_w = w[0], sum_x = w[0] * x[0];
  for (size_t k = 1; k < kN; ++k) {
    lowest = min8(x[k], lowest);
    highest = max8(x[k], highest);
    sum_w = sum_w + w[k];
    sum_x = sum_x + w[k] * x[k];
  }
  lowest = min8(zero, lowest);

  const auto weighed = [](Float8 weight, Float8 difference) {
    return weight * (kAbsolute ? abs8(difference) : difference * difference);
  };
  const Float8 exact = largest / (highest - lowest);
  Float8 scale = all8(1) / exact, least = zero;
  Float8 inverse = finite_or_zero(exact), base = lowest;
  for (size_t k = 0; k < kN; ++k) {
    const Float8 l = min8(nearest8(inverse * (x[k] - lowest)), largest);
    least = least + weighed(w[k], scale * l + lowest - x[k]);
  }

  // A better fit moves the minimum from which the next candidates count.
  for (size_t c = 0; c < rule.n_numerators; ++c) {
    const Float8 tried = finite_or_zero(all8(rule.numerators[c]) / (highest - lowest));
    Float8 sum_l = zero, sum_l2 = zero, sum_xl = zero;
    for (size_t k = 0; k < kN; ++k) {
      const Float8 l = min8(max8(nearest8(tried * (x[k] - lowest)), zero), largest), wl = w[k] * l;
      code[k] = l;
      sum_l = sum_l + wl;
      sum_l2 = sum_l2 + wl * l;
      sum_xl = sum_xl + wl * x[k];
    }
    const Float8 determinant = sum_w * sum_l2 - sum_l * sum_l;
    Float8 fitted = (sum_w * sum_xl - sum_x * sum_l) / determinant;
    Float8 offset = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
    const Mask8 positive = less8(zero, offset);
    fitted = select8(positive, sum_xl / sum_l2, fitted);
    offset = select8(positive, zero, offset);
    Float8 error = zero;
    for (size_t k = 0; k < kN; ++k) error = error + weighed(w[k], fitted * code[k] + offset - x[k]);
    const Mask8 better = both8(less8(zero, determinant), less8(error, least));
    least = select8(better, error, least);
    scale = select8(better, fitted, scale);
    inverse = select8(better, tried, inverse);
    base = select8(better, lowest, base);
    lowest = select8(better, offset, lowest);
  }
  store8(scale, fit->scale);
  store8(inverse, fit->inverse);
  store8(base, fit->base);
  float minimum[kSearchLanes];
  store8(lowest, minimum);
  for (size_t s = 0; s < kSearchLanes; ++s) fit->minimum[s] = -minimum[s];
}

void minimum(const MinimumRule& rule, const float* x, const float* weight, MinimumFit* fit) noexcept {
  if (rule.n == 32)
    minimum_of<32, false>(rule, x, weight, fit);
  else if (rule.absolute)
    minimum_of<16, true>(rule, x, weight, fit);
  else
    minimum_of<16, false>(rule, x, weight, fit);
}

// The weight of largest magnitude of each sub-block, the first of equals; and that magnitude.
template <size_t kN>
Float8 find_largest(const Float8* x, Float8* magnitude) {
  Float8 found = all8(0), size = all8(0);
  for (size_t k = 0; k < kN; ++k) {
    const Float8 here = abs8(x[k]);
    const Mask8 larger = less8(size, here);
    size = select8(larger, here, size);
    found = select8(larger, x[k], found);
  }
  *magnitude = size;
  return found;
}

template <size_t kN>
void symmetric_of(float largest, const float* x_rows, const float* weight_rows, SymmetricFit* fit) {
  constexpr size_t kTried = 20;  // the last one twice
  const Float8 zero = all8(0), lowest_code = all8(-largest), highest_code = all8(largest - 1);
  Float8 x[kN], w[kN], wx[kN], magnitude;
  transpose<kN>(x_rows, x);
  transpose<kN>(weight_rows, w);
  for (size_t k = 0; k < kN; ++k) wx[k] = w[k] * x[k];
  const Float8 found = find_largest<kN>(x, &magnitude);
  const Mask8 tiny = less8(magnitude, all8(kTinyWeight));
  const Float8 divisor = select8(tiny, all8(1), found);

  float numerators[kTried];
  numerators[0] = -largest;
  size_t c = 1;
  for (int k = -9; k <= 9; ++k)
    if (k != 0) numerators[c++] = -(largest + 0.1f * static_cast<float>(k));
  numerators[c] = numerators[c - 1];

  Float8 scale = zero, inverse = zero, best = zero;
  for (size_t first = 0; first < kTried; first += kPair) {
    Float8 tried[kPair], lx[kPair], l2[kPair];
    for (size_t p = 0; p < kPair; ++p) {
      tried[p] = all8(numerators[first + p]) / divisor;
      lx[p] = l2[p] = zero;
    }
    for (size_t k = 0; k < kN; ++k) {
      for (size_t p = 0; p < kPair; ++p) {
        const Float8 l = min8(max8(nearest8(tried[p] * x[k]), lowest_code), highest_code);
        lx[p] = lx[p] + wx[k] * l;
        l2[p] = l2[p] + (w[k] * l) * l;
      }
    }
    for (size_t p = 0; p < kPair; ++p) {
      const Float8 fitted = lx[p] / l2[p];
      if (first + p == 0) {
        scale = select8(unequal8(l2[p], zero), fitted, zero);
        inverse = tried[p];
        best = scale * lx[p];
        continue;
      }
      const Mask8 better = both8(less8(zero, l2[p]), less8(best * l2[p], lx[p] * lx[p]));
      scale = select8(better, fitted, scale);
      inverse = select8(better, tried[p], inverse);
      best = select8(better, fitted * lx[p], best);
    }
  }
  store8(select8(tiny, zero, scale), fit->scale);
  store8(inverse, fit->inverse);
  float size[kSearchLanes];
  store8(magnitude, size);
  for (size_t s = 0; s < kSearchLanes; ++s) fit->zero[s] = size[s] < kTinyWeight;
}

void symmetric(size_t n, float largest, const float* x, const float* weight, SymmetricFit* fit) noexcept {
  if (n == 32)
    symmetric_of<32>(largest, x, weight, fit);
  else
    symmetric_of<16>(largest, x, weight, fit);
}

void refined(const float* x_rows, float* scale, uint8_t* code) noexcept {
  constexpr size_t kN = 16;
  constexpr int kPasses = 5;
  const Float8 zero = all8(0), lowest_code = all8(-4), highest_code = all8(3);
  Float8 x[kN], w[kN], wx[kN], l[kN], magnitude;
  transpose<kN>(x_rows, x);
  const Float8 found = find_largest<kN>(x, &magnitude);
  const Mask8 tiny = less8(magnitude, all8(kTinyWeight));
  const Float8 inverse = all8(-4) / select8(tiny, all8(1), found);
  Float8 lx = zero, l2 = zero;
  for (size_t k = 0; k < kN; ++k) {
    w[k] = x[k] * x[k];
    wx[k] = w[k] * x[k];
    l[k] = min8(max8(nearest8(inverse * x[k]), lowest_code), highest_code);
    lx = lx + wx[k] * l[k];
    l2 = l2 + (w[k] * l[k]) * l[k];
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    bool changed = false;
    for (size_t k = 0; k < kN; ++k) {
      const Float8 others_lx = lx - wx[k] * l[k], others_l2 = l2 - (w[k] * l[k]) * l[k];
      const Float8 moved = min8(max8(nearest_int8(x[k] * others_l2 / others_lx), lowest_code), highest_code);
      const Float8 new_lx = others_lx + wx[k] * moved, new_l2 = others_l2 + (w[k] * moved) * moved;
      Mask8 better = both8(less8(zero, others_lx), unequal8(moved, l[k]));
      better = both8(better, less8(zero, new_l2));
      better = both8(better, less8(lx * lx * new_l2, new_lx * new_lx * l2));
      l[k] = select8(better, moved, l[k]);
      lx = select8(better, new_lx, lx);
      l2 = select8(better, new_l2, l2);
      changed = changed || any8(better);
    }
    if (!changed) break;
  }
  store8(select8(tiny, zero, select8(less8(zero, l2), lx / l2, zero)), scale);
  for (size_t k = 0; k < kN; ++k) {
    float codes[kSearchLanes];
    store8(select8(tiny, zero, l[k] + all8(4)), codes);
    for (size_t s = 0; s < kSearchLanes; ++s)
      code[s * kN + k] = static_cast<uint8_t>(static_cast<int>(codes[s]));
  }
}

// Where a code of IQ4_NL begins: halfway between two values. The reference compares the distances to both; in
// f32 that is the same, because near these points the differences are exact.
constexpr float kIq4Bounds[15] = {-115.5f, -93.5f, -74,   -57,   -42, -28.5f, -16, -4.5f,
                                  7,       19,     31.5f, 45.5f, 61,  79,     101};

#ifdef __AVX2__

// Codes (not below any bound that they do not reach, so 15 for NaN) by bisection, four comparisons.
inline __m256i iq4_index8(Float8 a) {
  const auto below = [&](__m256 bound) {
    return _mm256_castps_si256(_mm256_cmp_ps(a.v, bound, _CMP_NLT_UQ));
  };
  const auto twice_plus = [](__m256i index, __m256i mask) {  // mask -1 or 0
    return _mm256_sub_epi32(_mm256_add_epi32(index, index), mask);
  };
  const float* const b = kIq4Bounds;
  const __m256 second = _mm256_setr_ps(b[3], b[11], 0, 0, 0, 0, 0, 0);
  const __m256 third = _mm256_setr_ps(b[1], b[5], b[9], b[13], 0, 0, 0, 0);
  const __m256 fourth = _mm256_setr_ps(b[0], b[2], b[4], b[6], b[8], b[10], b[12], b[14]);
  __m256i index = _mm256_sub_epi32(_mm256_setzero_si256(), below(_mm256_set1_ps(b[7])));
  index = twice_plus(index, below(_mm256_permutevar8x32_ps(second, index)));
  index = twice_plus(index, below(_mm256_permutevar8x32_ps(third, index)));
  return twice_plus(index, below(_mm256_permutevar8x32_ps(fourth, index)));
}

inline Float8 iq4_value8(Float8 a) {
  const __m256i index = iq4_index8(a);
  const auto table = [](size_t first) {
    float v[8];
    for (size_t i = 0; i < 8; ++i) v[i] = kIq4Values[first + i];
    return _mm256_loadu_ps(v);
  };
  const __m256 low = _mm256_permutevar8x32_ps(table(0), index);
  const __m256 high = _mm256_permutevar8x32_ps(table(8), index);
  // Bit 3 of the index to the sign.
  return {_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)))};
}

#endif

inline uint8_t iq4_index(float a) {
  size_t index = 0;
  for (size_t step = 8; step != 0; step /= 2)
    if (!(a < kIq4Bounds[index + step - 1])) index += step;
  return static_cast<uint8_t>(index);
}

#ifndef __AVX2__

inline Float8 iq4_value8(Float8 a) {
  float lanes[kSearchLanes];
  store8(a, lanes);
  for (float& lane : lanes) lane = kIq4Values[iq4_index(lane)];
  return load8(lanes);
}

#endif

void iq4(const float* x_rows, const float* weight_rows, float* scale_out) noexcept {
  constexpr size_t kN = 32, kTried = 16;
  const Float8 zero = all8(0);
  Float8 x[kN], w[kN], magnitude;
  transpose<kN>(x_rows, x);
  transpose<kN>(weight_rows, w);
  const Float8 found = find_largest<kN>(x, &magnitude);
  const Mask8 tiny = less8(magnitude, all8(kTinyWeight));
  const Float8 largest = select8(tiny, all8(1), found);

  Float8 scale = zero, best = zero;
  for (size_t first = 0; first < kTried; first += kPair) {
    Float8 tried[kPair], qx[kPair], q2[kPair];
    for (size_t p = 0; p < kPair; ++p) {
      // The largest weight gets value 127 less nothing (the first), then -127 more -7..7.
      const float end = static_cast<float>(kIq4Values[0]);
      tried[p] = first + p == 0 ? all8(1) / (all8(0) - largest / all8(end))
                                : all8(static_cast<float>(first + p) - 8.0f + end) / largest;
      qx[p] = q2[p] = zero;
    }
    for (size_t k = 0; k < kN; ++k) {
      for (size_t p = 0; p < kPair; ++p) {
        const Float8 q = iq4_value8(tried[p] * x[k]), wq = w[k] * q;
        qx[p] = qx[p] + wq * x[k];
        q2[p] = q2[p] + wq * q;
      }
    }
    for (size_t p = 0; p < kPair; ++p) {
      const Float8 fitted = qx[p] / q2[p];
      if (first + p == 0) {
        scale = select8(less8(zero, q2[p]), fitted, zero);
        best = scale * qx[p];
        continue;
      }
      const Mask8 better = both8(less8(zero, q2[p]), less8(best * q2[p], qx[p] * qx[p]));
      scale = select8(better, fitted, scale);
      best = select8(better, fitted * qx[p], best);
    }
  }
  store8(select8(tiny, zero, scale), scale_out);
}

// Whole numbers 0..255, as bytes.
inline void store_codes8(Float8 codes, uint8_t* out) {
#ifdef __AVX2__
  const __m256i words = _mm256_cvttps_epi32(codes.v);
  const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(halves, halves));
#else
  float lanes[kSearchLanes];
  store8(codes, lanes);
  for (size_t s = 0; s < kSearchLanes; ++s) out[s] = static_cast<uint8_t>(static_cast<int>(lanes[s]));
#endif
}

void code_by_step(const float* x, size_t n, float step, float minimum_of_block, float lowest, float highest,
                  uint8_t* code) noexcept {
  for (size_t k = 0; k < n; k += kSearchLanes) {
    const Float8 nearest = nearest_int8((load8(x + k) + all8(minimum_of_block)) / all8(step));
    store_codes8(min8(max8(nearest, all8(lowest)), all8(highest)) - all8(lowest), code + k);
  }
}

void code_by_inverse(const float* x, size_t n, float inverse, float base, float lowest, float highest,
                     uint8_t* code) noexcept {
  for (size_t k = 0; k < n; k += kSearchLanes) {
    const Float8 nearest = nearest_int8(all8(inverse) * (load8(x + k) - all8(base)));
    store_codes8(min8(max8(nearest, all8(lowest)), all8(highest)) - all8(lowest), code + k);
  }
}

void code_iq4(const float* x, size_t n, float inverse, uint8_t* code) noexcept {
#ifdef __AVX2__
  for (size_t k = 0; k < n; k += kSearchLanes)
    store_codes8({_mm256_cvtepi32_ps(iq4_index8(all8(inverse) * load8(x + k)))}, code + k);
#else
  for (size_t k = 0; k < n; ++k) code[k] = iq4_index(inverse * x[k]);
#endif
}

constexpr Searches kTable = {minimum, symmetric, refined, iq4, code_by_step, code_by_inverse, code_iq4};

}  // namespace
}  // namespace quern::formats
