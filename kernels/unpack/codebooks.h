// How blocks of the formats that are read row by row come apart: codebooks (IQ1, IQ2, IQ3), ternary weights
// (TQ1_0) and NVFP4. A look-up gives a row's weights in their own order, so nothing is laid out as a
// panel first. 256-bit vectors on every set: what takes time are the look-ups themselves, a load each.
//
// A format here:
//   kBytes, kGroups   of a block; groups of 32 weights in it
//   kSums             1: a scale D per group. 2: D and an odd integer for each 16
//   kSteps            2: a D for each 16 weights, and a step of its own for each (NVFP4). Else 1
//   kLargest          of the weights' magnitudes
//   look_up(block, row)  all numbers of a block, into a Row
// Isa: apply_signs(weights, negative): bit k set: weight k is negated.
//
// Everything is anonymous: each file that is compiled for an instruction set has its own copy, so that the
// linker can never pick such a copy for code that runs on any CPU. Needs AVX2 and F16C.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/compiler.h"
#include "quant/code_values.h"
#include "quant/codebook_bytes.h"

namespace quern::unpack {
namespace {

using Bits256 = __m256i;

// A block of one row, taken apart.
template <size_t kGroups, size_t kSums, size_t kSteps>
struct RowBlock {
  alignas(64) int8_t codes[32 * kGroups];
  alignas(32) float d[kSteps * kGroups];  // of group g, or of half h of it: [2 * g + h]
  alignas(32) int16_t sub_scales[kSums == 2 ? 2 * kGroups : 1];  // [group, half]
};
template <class Format>
using RowOf = RowBlock<Format::kGroups, Format::kSums, Format::kSteps>;

QUERN_INLINE Bits256 load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
QUERN_INLINE void store256(void* p, Bits256 x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
QUERN_INLINE __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
QUERN_INLINE uint16_t word16(const uint8_t* p) {
  uint16_t x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
QUERN_INLINE uint32_t word32(const uint8_t* p) {
  uint32_t x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
QUERN_INLINE float one_f16(uint16_t bits) { return _cvtsh_ss(bits); }

// Bytes of seven bits, whose eighth makes the number of ones even: signs as IQ2_XXS, IQ2_XS and IQ3_XXS keep
// them.
QUERN_INLINE Bits256 with_parity(Bits256 sevens) {
  const Bits256 odd = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
  const Bits256 nibble = _mm256_set1_epi8(15);
  const Bits256 low = _mm256_shuffle_epi8(odd, _mm256_and_si256(sevens, nibble));
  const Bits256 high = _mm256_shuffle_epi8(odd, _mm256_and_si256(_mm256_srli_epi16(sevens, 4), nibble));
  return _mm256_or_si256(sevens, _mm256_xor_si256(low, high));
}

// Four times seven bits of each of eight words, as bytes, with parity.
QUERN_INLINE Bits256 even_signs(Bits256 words) {
  const auto seven = [&](Bits256 x, int mask)
                         QUERN_INLINED { return _mm256_and_si256(x, _mm256_set1_epi32(mask)); };
  const Bits256 low = _mm256_or_si256(seven(words, 0x7f), seven(_mm256_slli_epi32(words, 1), 0x7f00));
  const Bits256 high = _mm256_or_si256(seven(_mm256_slli_epi32(words, 2), 0x7f0000),
                                       seven(_mm256_slli_epi32(words, 3), 0x7f000000));
  return with_parity(_mm256_or_si256(low, high));
}

// d * float(2 s + 1) * unit for eight integers s.
QUERN_INLINE void store_odd_scales(float d, Bits256 s, float unit, float* out) {
  const __m256 odd = _mm256_cvtepi32_ps(_mm256_or_si256(_mm256_slli_epi32(s, 1), _mm256_set1_epi32(1)));
  _mm256_store_ps(out, _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(d), odd), _mm256_set1_ps(unit)));
}

// 2 s + 1 for the 16 nibbles of eight bytes, low ones first, as int16.
QUERN_INLINE void store_odd_nibbles(const uint8_t* nibbles, int16_t* out) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(nibbles)), low = _mm_set1_epi8(15);
  const __m128i s =
      _mm_unpacklo_epi8(_mm_and_si128(bytes, low), _mm_and_si128(_mm_srli_epi16(bytes, 4), low));
  const Bits256 wide = _mm256_cvtepu8_epi16(s);
  store256(out, _mm256_or_si256(_mm256_add_epi16(wide, wide), _mm256_set1_epi16(1)));
}

// Four entries of eight weights, eight entries of four.
QUERN_INLINE Bits256 entries_of(const uint64_t* grid, size_t i0, size_t i1, size_t i2, size_t i3) {
  return _mm256_set_epi64x(static_cast<int64_t>(grid[i3]), static_cast<int64_t>(grid[i2]),
                           static_cast<int64_t>(grid[i1]), static_cast<int64_t>(grid[i0]));
}
template <class Index>
QUERN_INLINE Bits256 entries_of(const uint32_t* grid, const Index* i) {
  const auto entry = [&](size_t k) QUERN_INLINED { return static_cast<int32_t>(grid[i[k]]); };
  return _mm256_set_epi32(entry(7), entry(6), entry(5), entry(4), entry(3), entry(2), entry(1), entry(0));
}

// --- IQ2: eight weights an index ---

template <class Isa>
struct IQ2_XXS {
  static constexpr size_t kBytes = 66, kGroups = 8, kSums = 1, kSteps = 1;
  static constexpr int kLargest = 43;
  using Row = RowBlock<kGroups, kSums, kSteps>;

  static QUERN_INLINE void look_up(const uint8_t* block, Row& row) {
    // Words of groups 0 1 4 5 2 3 6 7, of which the second are signs and scales.
    const Bits256 words = _mm256_castps_si256(_mm256_shuffle_ps(
        _mm256_castsi256_ps(load256(block + 2)), _mm256_castsi256_ps(load256(block + 34)), 0xdd));
    const Bits256 rest = _mm256_permute4x64_epi64(words, 0xd8);
    alignas(32) uint32_t signs[8];
    store256(signs, even_signs(rest));
    store_odd_scales(one_f16(word16(block)), _mm256_srli_epi32(rest, 28), 0.125f, row.d);
    QUERN_UNROLL
    for (size_t g = 0; g < 8; ++g) {
      const uint8_t* i = block + 2 + 8 * g;
      const Bits256 w = entries_of(kIq2XxsBytes.entries, i[0], i[1], i[2], i[3]);
      store256(row.codes + 32 * g, Isa::apply_signs(w, signs + g));
    }
  }
};

template <class Isa>
struct IQ2_XS {
  static constexpr size_t kBytes = 74, kGroups = 8, kSums = 2, kSteps = 1;
  static constexpr int kLargest = 43;
  using Row = RowBlock<kGroups, kSums, kSteps>;

  static QUERN_INLINE void look_up(const uint8_t* block, Row& row) {
    const Bits256 q[2] = {load256(block + 2), load256(block + 34)};
    const Bits256 sevens = _mm256_packus_epi16(_mm256_srli_epi16(q[0], 9), _mm256_srli_epi16(q[1], 9));
    alignas(32) uint32_t signs[8];
    store256(signs, with_parity(_mm256_permute4x64_epi64(sevens, 0xd8)));
    alignas(32) uint16_t index[32];
    store256(index, _mm256_and_si256(q[0], _mm256_set1_epi16(511)));
    store256(index + 16, _mm256_and_si256(q[1], _mm256_set1_epi16(511)));
    _mm256_store_ps(row.d, _mm256_set1_ps(one_f16(word16(block)) * 0.125f));
    store_odd_nibbles(block + 66, row.sub_scales);
    QUERN_UNROLL
    for (size_t g = 0; g < 8; ++g) {
      const uint16_t* i = index + 4 * g;
      const Bits256 w = entries_of(kIq2XsBytes.entries, i[0], i[1], i[2], i[3]);
      store256(row.codes + 32 * g, Isa::apply_signs(w, signs + g));
    }
  }
};

template <class Isa>
struct IQ2_S {
  static constexpr size_t kBytes = 82, kGroups = 8, kSums = 2, kSteps = 1;
  static constexpr int kLargest = 43;
  using Row = RowBlock<kGroups, kSums, kSteps>;

  static QUERN_INLINE void look_up(const uint8_t* block, Row& row) {
    _mm256_store_ps(row.d, _mm256_set1_ps(one_f16(word16(block)) * 0.125f));
    store_odd_nibbles(block + 74, row.sub_scales);
    QUERN_UNROLL
    for (size_t g = 0; g < 8; ++g) {
      const uint8_t* low = block + 2 + 4 * g;
      const size_t high = block[66 + g];
      const Bits256 w =
          entries_of(kIq2SBytes.entries, low[0] | (high << 8 & 0x300), low[1] | (high << 6 & 0x300),
                     low[2] | (high << 4 & 0x300), low[3] | (high << 2 & 0x300));
      const uint32_t signs = word32(block + 34 + 4 * g);
      store256(row.codes + 32 * g, Isa::apply_signs(w, &signs));
    }
  }
};

// --- IQ3: four weights an index ---

template <class Isa>
struct IQ3_XXS {
  static constexpr size_t kBytes = 98, kGroups = 8, kSums = 1, kSteps = 1;
  static constexpr int kLargest = 62;
  using Row = RowBlock<kGroups, kSums, kSteps>;

  static QUERN_INLINE void look_up(const uint8_t* block, Row& row) {
    const Bits256 rest = load256(block + 66);
    alignas(32) uint32_t signs[8];
    store256(signs, even_signs(rest));
    store_odd_scales(one_f16(word16(block)), _mm256_srli_epi32(rest, 28), 0.25f, row.d);
    QUERN_UNROLL
    for (size_t g = 0; g < 8; ++g)
      store256(row.codes + 32 * g,
               Isa::apply_signs(entries_of(kIq3XxsBytes.entries, block + 2 + 8 * g), signs + g));
  }
};

template <class Isa>
struct IQ3_S {
  static constexpr size_t kBytes = 110, kGroups = 8, kSums = 1, kSteps = 1;
  static constexpr int kLargest = 15;
  using Row = RowBlock<kGroups, kSums, kSteps>;

  static QUERN_INLINE void look_up(const uint8_t* block, Row& row) {
    // Bit i of the 16 bits of two groups is the ninth of index i.
    const Bits256 bits =
        _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
    alignas(32) uint16_t index[64];
    QUERN_UNROLL
    for (size_t i = 0; i < 4; ++i) {
      const Bits256 low = _mm256_cvtepu8_epi16(load128(block + 2 + 16 * i));
      const Bits256 high = _mm256_set1_epi16(static_cast<int16_t>(word16(block + 66 + 2 * i)));
      const Bits256 set = _mm256_cmpeq_epi16(_mm256_and_si256(high, bits), bits);
      store256(index + 16 * i, _mm256_or_si256(low, _mm256_and_si256(set, _mm256_set1_epi16(256))));
    }
    // Nibbles of four bytes, low ones first.
    const __m128i nibbles = _mm_cvtsi32_si128(static_cast<int32_t>(word32(block + 106)));
    const __m128i s =
        _mm_and_si128(_mm_unpacklo_epi8(nibbles, _mm_srli_epi16(nibbles, 4)), _mm_set1_epi8(15));
    store_odd_scales(one_f16(word16(block)), _mm256_cvtepu8_epi32(s), 1.0f, row.d);
    QUERN_UNROLL
    for (size_t g = 0; g < 8; ++g) {
      const uint32_t signs = word32(block + 74 + 4 * g);
      store256(row.codes + 32 * g, Isa::apply_signs(entries_of(kIq3SBytes.entries, index + 8 * g), &signs));
    }
  }
};

// --- IQ1: eight weights of -1, 0, 1 an index, moved by an eighth; here all times eight ---

template <class Isa>
struct IQ1_S {
  static constexpr size_t kBytes = 50, kGroups = 8, kSums = 1, kSteps = 1;
  static constexpr int kLargest = 9;
  using Row = RowBlock<kGroups, kSums, kSteps>;

  static QUERN_INLINE void look_up(const uint8_t* block, Row& row) {
    const Bits256 words = _mm256_cvtepu16_epi32(load128(block + 34));
    const Bits256 s = _mm256_and_si256(_mm256_srli_epi32(words, 12), _mm256_set1_epi32(7));
    store_odd_scales(one_f16(word16(block)), s, 0.125f, row.d);
    QUERN_UNROLL
    for (size_t g = 0; g < 8; ++g) {
      const uint8_t* low = block + 2 + 4 * g;
      const size_t high = word16(block + 34 + 2 * g);
      const Bits256 w =
          entries_of(kIq1Bytes.entries, low[0] | (high << 8 & 0x700), low[1] | (high << 5 & 0x700),
                     low[2] | (high << 2 & 0x700), low[3] | (high >> 1 & 0x700));
      const Bits256 shift = _mm256_set1_epi8((high & 0x8000) != 0 ? -1 : 1);
      store256(row.codes + 32 * g, _mm256_add_epi8(w, shift));
    }
  }
};

template <class Isa>
struct IQ1_M {
  static constexpr size_t kBytes = 56, kGroups = 8, kSums = 2, kSteps = 1;
  static constexpr int kLargest = 9;
  using Row = RowBlock<kGroups, kSums, kSteps>;

  static QUERN_INLINE void look_up(const uint8_t* block, Row& row) {
    const uint16_t scales[4] = {word16(block + 48), word16(block + 50), word16(block + 52),
                                word16(block + 54)};
    const auto d = static_cast<uint16_t>(scales[0] >> 12 | (scales[1] >> 8 & 0xf0) |
                                         (scales[2] >> 4 & 0xf00) | (scales[3] & 0xf000));
    _mm256_store_ps(row.d, _mm256_set1_ps(one_f16(d) * 0.125f));
    // Three bits of each of 16 scales at bit 1 of as many words, and 1 below them.
    const Bits256 words = _mm256_shuffle_epi8(
        _mm256_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + 48))),
        _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7,
                         6, 7, 6, 7));
    const Bits256 threes = _mm256_and_si256(words, _mm256_set1_epi64x(0x0e00'01c0'0038'0007));
    const Bits256 aligned = _mm256_mullo_epi16(threes, _mm256_set1_epi64x(0x0001'0008'0040'0200));
    store256(row.sub_scales, _mm256_or_si256(_mm256_srli_epi16(aligned, 8), _mm256_set1_epi16(1)));
    // The fourth bits of 32 nibbles, as bytes of 1 or -1.
    const __m128i high = load128(block + 32), eight = _mm_set1_epi8(8);
    const __m128i low_bits = _mm_and_si128(high, eight),
                  high_bits = _mm_and_si128(_mm_srli_epi16(high, 4), eight);
    const auto shifts_of = [&](__m128i bits) QUERN_INLINED {
      return _mm_or_si128(_mm_cmpeq_epi8(bits, eight), _mm_set1_epi8(1));
    };
    alignas(16) uint8_t shifts[32];
    _mm_store_si128(reinterpret_cast<__m128i*>(shifts), shifts_of(_mm_unpacklo_epi8(low_bits, high_bits)));
    _mm_store_si128(reinterpret_cast<__m128i*>(shifts + 16),
                    shifts_of(_mm_unpackhi_epi8(low_bits, high_bits)));
    const Bits256 eight_times =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    QUERN_UNROLL
    for (size_t g = 0; g < 8; ++g) {
      const uint8_t* low = block + 4 * g;
      const size_t nibbles = word16(block + 32 + 2 * g);
      const Bits256 w =
          entries_of(kIq1Bytes.entries, low[0] | (nibbles << 8 & 0x700), low[1] | (nibbles << 4 & 0x700),
                     low[2] | (nibbles & 0x700), low[3] | (nibbles >> 4 & 0x700));
      const Bits256 shift =
          _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int32_t>(word32(shifts + 4 * g))), eight_times);
      store256(row.codes + 32 * g, _mm256_add_epi8(w, shift));
    }
  }
};

// --- ternary weights ---

template <class Isa>
struct TQ1_0 {
  static constexpr size_t kBytes = 54, kGroups = 8, kSums = 1, kSteps = 1;
  static constexpr int kLargest = 1;
  using Row = RowBlock<kGroups, kSums, kSteps>;

  // The highest digit of base 3 of bytes that are 256ths, less 1: 3 * x / 256 is at least 1 from 86 on, 2
  // from 171 on.
  static QUERN_INLINE __m128i digits(__m128i x) {
    const auto from = [&](int least) QUERN_INLINED {
      return _mm_cmpeq_epi8(_mm_max_epu8(x, _mm_set1_epi8(static_cast<char>(least))), x);
    };
    return _mm_sub_epi8(_mm_sub_epi8(_mm_set1_epi8(-1), from(86)), from(171));
  }
  static QUERN_INLINE __m128i next(__m128i x) { return _mm_add_epi8(x, _mm_add_epi8(x, x)); }

  static QUERN_INLINE void look_up(const uint8_t* block, Row& row) {
    _mm256_store_ps(row.d, _mm256_set1_ps(one_f16(word16(block + 52))));
    __m128i x[3] = {load128(block), load128(block + 16), load128(block + 32)};
    __m128i last = _mm_cvtsi32_si128(static_cast<int32_t>(word32(block + 48))), fours[4];
    QUERN_UNROLL
    for (size_t n = 0; n < 5; ++n) {
      auto* const out = reinterpret_cast<__m128i*>(row.codes);
      _mm_store_si128(out + 2 * n, digits(x[0]));
      _mm_store_si128(out + 2 * n + 1, digits(x[1]));
      _mm_store_si128(out + 10 + n, digits(x[2]));
      QUERN_UNROLL
      for (size_t i = 0; i < 3; ++i) x[i] = next(x[i]);
    }
    QUERN_UNROLL
    for (size_t n = 0; n < 4; ++n) {
      fours[n] = last;
      last = next(last);
    }
    const __m128i all =
        _mm_unpacklo_epi64(_mm_unpacklo_epi32(fours[0], fours[1]), _mm_unpacklo_epi32(fours[2], fours[3]));
    _mm_store_si128(reinterpret_cast<__m128i*>(row.codes + 240), digits(all));
  }
};

// --- NVFP4 ---

template <class Isa>
struct NVFP4 {
  static constexpr size_t kBytes = 36, kGroups = 2, kSums = 1, kSteps = 2;
  static constexpr int kLargest = 12;
  using Row = RowBlock<kGroups, kSums, kSteps>;

  static QUERN_INLINE void look_up(const uint8_t* block, Row& row) {
    QUERN_UNROLL
    for (size_t i = 0; i < 4; ++i) row.d[i] = kNvfp4Scales.entries[block[i]];
    const __m128i values = load128(kMxfp4Values), nibble = _mm_set1_epi8(15);
    QUERN_UNROLL
    for (size_t g = 0; g < 2; ++g) {
      const __m128i x = load128(block + 4 + 16 * g);
      const __m128i low = _mm_and_si128(x, nibble), high = _mm_and_si128(_mm_srli_epi16(x, 4), nibble);
      auto* const out = reinterpret_cast<__m128i*>(row.codes + 32 * g);
      _mm_store_si128(out, _mm_shuffle_epi8(values, _mm_unpacklo_epi64(low, high)));
      _mm_store_si128(out + 1, _mm_shuffle_epi8(values, _mm_unpackhi_epi64(low, high)));
    }
  }
};

}  // namespace
}  // namespace quern::unpack
