// What the files of quant/formats/ share: the functions each format gives to the table, and the small pieces
// that several formats are made of. Private to quant/: everybody else asks the table (quant/block_format.h).
//
// The layouts are those of formats.md 2.6, the encoders those of 2.5. Encoders are plain f32, one operation
// after the other: no fused multiply-add, nothing reassociated, subnormals kept (arithmetic.md rules 1, 2).
// Where the reference takes a value left to right (first maximum, sign of a zero), the loops here work on
// independent lanes, which compilers turn into SIMD, and settle the ties afterwards.
#pragma once

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/block_format.h"
#include "quant/code_values.h"
#include "quant/float16.h"

namespace quern::formats {

static_assert(std::endian::native == std::endian::little, "files and registers share one byte order");

// The contracts of BlockFormat's members.
using Decode = void(const uint8_t* blocks, size_t n_blocks, float* out) noexcept;
using Encode = void(const float* x, size_t n_blocks, uint8_t* blocks) noexcept;
using EncodeWeighted = void(const float* x, const float* importance, float mean_square, size_t n_blocks,
                            uint8_t* blocks) noexcept;
using UnpackGroup = void(const uint8_t* row, size_t group, WeightGroup* out) noexcept;
using FirstNonFinite = size_t(const uint8_t* blocks, size_t n_blocks) noexcept;

// What a block is made of, for encoders that choose it all themselves (quant/calibrated/). Of a format whose
// groups have scales of their own: scale and min are those, in multiples of d and dmin; of one that has none,
// dmin is what is added to each weight.
struct BlockParts {
  float d = 0, dmin = 0;   // f16 numbers
  int16_t scale[16] = {};  // of a group of 16 or 32 weights, as the format's arithmetic has it, sign included
  int16_t min[16] = {};    // likewise, not negative
  uint8_t code[256] = {};  // as they are stored: the format's offset added
};
using Pack = void(const BlockParts& parts, uint8_t* block) noexcept;

inline constexpr size_t kGroup = 32;  // weights in a WeightGroup

namespace f32 {
inline constexpr uint32_t kWeights = 1, kBytes = 4;
Decode decode;
Encode encode;
FirstNonFinite first_non_finite;
}  // namespace f32
namespace f16 {
inline constexpr uint32_t kWeights = 1, kBytes = 2;
Decode decode;
Encode encode;
FirstNonFinite first_non_finite;
}  // namespace f16
namespace bf16 {
inline constexpr uint32_t kWeights = 1, kBytes = 2;
Decode decode;
Encode encode;
FirstNonFinite first_non_finite;
}  // namespace bf16
namespace q4_0 {
inline constexpr uint32_t kWeights = 32, kBytes = 18;
Decode decode;
Encode encode;
EncodeWeighted encode_weighted;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
Pack pack;
}  // namespace q4_0
namespace q4_1 {
inline constexpr uint32_t kWeights = 32, kBytes = 20;
Decode decode;
Encode encode;
EncodeWeighted encode_weighted;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
Pack pack;
}  // namespace q4_1
namespace q5_0 {
inline constexpr uint32_t kWeights = 32, kBytes = 22;
Decode decode;
Encode encode;
EncodeWeighted encode_weighted;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
Pack pack;
}  // namespace q5_0
namespace q5_1 {
inline constexpr uint32_t kWeights = 32, kBytes = 24;
Decode decode;
Encode encode;
EncodeWeighted encode_weighted;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
Pack pack;
}  // namespace q5_1
namespace q8_0 {
inline constexpr uint32_t kWeights = 32, kBytes = 34;
Decode decode;
Encode encode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
Pack pack;
}  // namespace q8_0
namespace q2_k {
inline constexpr uint32_t kWeights = 256, kBytes = 84;
Decode decode;
Encode encode;
EncodeWeighted encode_weighted;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace q2_k
namespace q3_k {
inline constexpr uint32_t kWeights = 256, kBytes = 110;
Decode decode;
Encode encode;
EncodeWeighted encode_weighted;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace q3_k
namespace q4_k {
inline constexpr uint32_t kWeights = 256, kBytes = 144;
Decode decode;
Encode encode;
EncodeWeighted encode_weighted;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
Pack pack;
}  // namespace q4_k
namespace q5_k {
inline constexpr uint32_t kWeights = 256, kBytes = 176;
Decode decode;
Encode encode;
EncodeWeighted encode_weighted;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
Pack pack;
}  // namespace q5_k
namespace q6_k {
inline constexpr uint32_t kWeights = 256, kBytes = 210;
Decode decode;
Encode encode;
EncodeWeighted encode_weighted;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
Pack pack;
}  // namespace q6_k
namespace iq4_nl {
inline constexpr uint32_t kWeights = 32, kBytes = 18;
Decode decode;
Encode encode;
EncodeWeighted encode_weighted;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
Pack pack;
}  // namespace iq4_nl
namespace iq4_xs {
inline constexpr uint32_t kWeights = 256, kBytes = 136;
Decode decode;
Encode encode;
EncodeWeighted encode_weighted;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace iq4_xs
namespace mxfp4 {
inline constexpr uint32_t kWeights = 32, kBytes = 17;
Decode decode;
Encode encode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace mxfp4
namespace nvfp4 {
inline constexpr uint32_t kWeights = 64, kBytes = 36;
Decode decode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace nvfp4
namespace iq2_xxs {
inline constexpr uint32_t kWeights = 256, kBytes = 66;
Decode decode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace iq2_xxs
namespace iq2_xs {
inline constexpr uint32_t kWeights = 256, kBytes = 74;
Decode decode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace iq2_xs
namespace iq2_s {
inline constexpr uint32_t kWeights = 256, kBytes = 82;
Decode decode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace iq2_s
namespace iq3_xxs {
inline constexpr uint32_t kWeights = 256, kBytes = 98;
Decode decode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace iq3_xxs
namespace iq3_s {
inline constexpr uint32_t kWeights = 256, kBytes = 110;
Decode decode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace iq3_s
namespace iq1_s {
inline constexpr uint32_t kWeights = 256, kBytes = 50;
Decode decode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace iq1_s
namespace iq1_m {
inline constexpr uint32_t kWeights = 256, kBytes = 56;
Decode decode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace iq1_m
namespace tq1_0 {
inline constexpr uint32_t kWeights = 256, kBytes = 54;
Decode decode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace tq1_0
namespace tq2_0 {
inline constexpr uint32_t kWeights = 256, kBytes = 66;
Decode decode;
UnpackGroup unpack_group;
FirstNonFinite first_non_finite;
}  // namespace tq2_0

// --- bytes -------------------------------------------------------------------------------------------------

inline uint16_t load_u16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

inline uint32_t load_u32(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

inline float load_f16(const uint8_t* p) { return f32_from_f16(load_u16(p)); }

inline void store_f16(float value, uint8_t* p) {
  const uint16_t bits = f16_from_f32(value);
  std::memcpy(p, &bits, sizeof bits);
}

// FirstNonFinite of a format whose blocks hold f16 numbers at kOffsets and nothing else that can be Inf or
// NaN.
template <size_t kBlockBytes, size_t... kOffsets>
size_t first_non_finite_f16(const uint8_t* blocks, size_t n_blocks) noexcept {
  for (size_t b = 0; b < n_blocks; ++b, blocks += kBlockBytes) {
    if ((((load_u16(blocks + kOffsets) & 0x7c00u) == 0x7c00u) || ...)) return b;
  }
  return n_blocks;
}

// FirstNonFinite of a float format: elements are Word, an exponent of all ones (kExponent) is Inf or NaN.
template <class Word, Word kExponent>
size_t first_non_finite_float(const uint8_t* elements, size_t n) noexcept {
  const auto is_bad = [&](size_t i) {
    Word bits;
    std::memcpy(&bits, elements + i * sizeof(Word), sizeof(Word));
    return (bits & kExponent) == kExponent;
  };
  // Nearly always there is none: a pass without an early exit, which vectorises, says so.
  unsigned any = 0;
  for (size_t i = 0; i < n; ++i) any |= static_cast<unsigned>(is_bad(i));
  if (any == 0) return n;
  size_t i = 0;
  while (!is_bad(i)) ++i;
  return i;
}

// --- codes -------------------------------------------------------------------------------------------------

// qs: 16 bytes; byte j holds code j in its low nibble and code j + 16 in its high one.
inline void load_nibbles(const uint8_t* qs, uint8_t* code /* [32] */) {
  for (size_t j = 0; j < 16; ++j) {
    code[j] = qs[j] & 15u;
    code[j + 16] = qs[j] >> 4;
  }
}

inline void store_nibbles(const uint8_t* code /* [32] */, uint8_t* qs) {
  for (size_t j = 0; j < 16; ++j) qs[j] = static_cast<uint8_t>((code[j] & 15u) | (code[j + 16] << 4));
}

// Bit 4 of 32 codes, kept apart from the nibbles: bit e of the u32 belongs to code e. Eight bits at a time;
// the multiplications copy a byte to where each of its bits is wanted (no two partial products meet).
inline void load_fifth_bits(const uint8_t* qh, uint8_t* code /* [32] */) {
  for (size_t j = 0; j < 4; ++j) {
    const uint64_t picked = (qh[j] * 0x0101010101010101u) & 0x8040201008040201u;  // byte i: bit i alone
    const uint64_t bits = ((picked + 0x7f7f7f7f7f7f7f7fu) >> 3) & 0x1010101010101010u;
    uint64_t codes;
    std::memcpy(&codes, code + 8 * j, 8);
    codes |= bits;
    std::memcpy(code + 8 * j, &codes, 8);
  }
}

inline void store_fifth_bits(const uint8_t* code /* [32] */, uint8_t* qh) {
  for (size_t j = 0; j < 4; ++j) {
    uint64_t codes;
    std::memcpy(&codes, code + 8 * j, 8);
    const uint64_t bits = (codes >> 4) & 0x0101010101010101u;
    qh[j] = static_cast<uint8_t>((bits * 0x0102040810204080u) >> 56);
  }
}

inline void subtract_offset(const uint8_t* code /* [32] */, int offset, int8_t* out) {
  for (size_t k = 0; k < kGroup; ++k) out[k] = static_cast<int8_t>(code[k] - offset);
}

// Sub-block scale and minimum `j` (0..7) of Q4_K and Q5_K, six bits each in 12 bytes:
//   S[0..3]    scales 0..3, high two bits: bits 4, 5 of scales 4..7
//   S[4..7]    minima 0..3, high two bits: bits 4, 5 of minima 4..7
//   S[8..11]   low nibble: scales 4..7, high nibble: minima 4..7
struct ScaleMin {
  int scale, min;
};
inline ScaleMin load_scale_min(const uint8_t* s, size_t j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4};
}

// --- decode ------------------------------------------------------------------------------------------------

// Decode of a quantized format by its groups. The same bits as formats.md's d*sc*q - dmin*m from left to
// right: every product is exact in f32 (11 bits of d, at most 8 of a scale; the code's product rounds once),
// and a - b is a + -b.
template <UnpackGroup kUnpack>
void decode_groups(const uint8_t* blocks, size_t n_groups, float* out) noexcept {
  WeightGroup group;
  for (size_t g = 0; g < n_groups; ++g) {
    kUnpack(blocks, g, &group);
    for (size_t half = 0; half < 2; ++half, out += 16) {
      const int8_t* code = group.code + 16 * half;
      const float d = (half == 0 ? group.d : group.d_second) * static_cast<float>(group.scale[half]);
      for (size_t k = 0; k < 16; ++k) out[k] = d * static_cast<float>(code[k]);
      if (!group.has_min) continue;
      const float minimum = group.mu * static_cast<float>(group.min[half]);
      for (size_t k = 0; k < 16; ++k) out[k] += minimum;
    }
  }
}

inline void set_d(float d, WeightGroup* out) {
  out->d = out->d_second = d;
  out->two_steps = false;
}

// Fills what a format without sub-scales and minimum leaves open.
inline void set_plain(float d, WeightGroup* out) {
  out->scale[0] = out->scale[1] = 1;
  set_d(d, out);
  out->has_min = false;
  out->min[0] = out->min[1] = 0;
  out->mu = 0;
}

inline void set_min(float mu, WeightGroup* out) {
  out->has_min = true;
  out->min[0] = out->min[1] = 1;
  out->mu = mu;
}

// --- encode ------------------------------------------------------------------------------------------------

// Four floats as one value (a vector extension of g++ and clang): SIMD on every machine without naming its
// instructions, and each lane rounds like a float.
using Float4 [[gnu::vector_size(16)]] = float;

inline Float4 load4(const float* x) {
  Float4 v;
  std::memcpy(&v, x, sizeof v);
  return v;
}
#ifdef __SSE2__  // one instruction; g++ 12 makes four of the comparison below
inline Float4 min4(Float4 a, Float4 b) { return _mm_min_ps(a, b); }
inline Float4 max4(Float4 a, Float4 b) { return _mm_max_ps(a, b); }
#else
inline Float4 min4(Float4 a, Float4 b) { return a < b ? a : b; }
inline Float4 max4(Float4 a, Float4 b) { return a > b ? a : b; }
#endif

using Int4 [[gnu::vector_size(16)]] = int32_t;

// Towards zero; for values that fit.
inline Int4 truncate4(Float4 x) { return __builtin_convertvector(x, Int4); }

// The low bytes of 16 integers, four a vector.
inline void store_low_bytes(const Int4 (&v)[4], uint8_t* out) {
#ifdef __SSE2__  // two rounds of packing; g++ 12 takes the lanes apart
  const auto low = [&](size_t i) { return reinterpret_cast<__m128i>(v[i] & 255); };
  const __m128i bytes = _mm_packus_epi16(_mm_packs_epi32(low(0), low(1)), _mm_packs_epi32(low(2), low(3)));
  std::memcpy(out, &bytes, sizeof bytes);
#else
  for (size_t i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>(v[i / 4][i % 4]);
#endif
}

// The smallest and largest of kCount values, each as the first of its equals: that decides the sign of a
// zero.
struct Extremes {
  float min, max;
};
template <size_t kCount>
Extremes find_extremes(const float* x) {
  Float4 lo = load4(x), hi = lo;
  for (size_t k = 4; k < kCount; k += 4) {
    const Float4 v = load4(x + k);
    lo = min4(v, lo);
    hi = max4(v, hi);
  }
  lo = min4(lo, __builtin_shufflevector(lo, lo, 2, 3, 0, 1));
  hi = max4(hi, __builtin_shufflevector(hi, hi, 2, 3, 0, 1));
  lo = min4(lo, __builtin_shufflevector(lo, lo, 1, 0, 3, 2));
  hi = max4(hi, __builtin_shufflevector(hi, hi, 1, 0, 3, 2));
  Extremes found{lo[0], hi[0]};
  if (found.min == 0 || found.max == 0) {
    size_t k = 0;
    while (x[k] != 0) ++k;
    if (found.min == 0) found.min = x[k];
    if (found.max == 0) found.max = x[k];
  }
  return found;
}

// The value of largest magnitude, with its sign; of several, the first. +0 when all are zeros. Of a NaN it
// may make one.
template <size_t kCount>
float first_of_largest_magnitude(const float* x) {
  const auto [min, max] = find_extremes<kCount>(x);
  if (max > -min) return max;
  if (max < -min) return min;
  if (max == 0) return 0.0f;
  for (size_t k = 0; k < kCount; ++k)
    if (x[k] == max || x[k] == min) return x[k];
  return max;
}

// 1/d, and 0 for d = 0. Where d is so small that 1/d is infinite, or infinite itself, the reference converts
// infinities and NaNs to integers, which C leaves undefined. The golden bytes hold code byte 0 there, which
// callers write when this gives false.
inline bool inverse_scale(float d, float* inverse) {
  *inverse = d != 0 ? 1.0f / d : 0.0f;
  return std::isfinite(d) && std::isfinite(*inverse);
}

}  // namespace quern::formats
