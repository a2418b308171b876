// From P16 panels (quant/panel_layout.cc) to registers of 8 rows: where things stand in a panel block, and
// how a format's codes, scales and minima come out of it. Shared by the sets that work on 256-bit registers:
// they differ in how they multiply, not in what they multiply.
//
// Lanes. A 32-bit lane is one row, its four bytes four consecutive k; 8 rows make a register, two registers a
// panel's 16 rows. Step s of 32 weights is k = 4s .. 4s+3.
//
// Everything is anonymous: each file that is compiled for an instruction set has its own copy, so that the
// linker can never pick such a copy for code that runs on any CPU. Needs AVX2 and F16C.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/compiler.h"
#include "quant/panel_layout.h"

namespace quern::avx2 {
namespace {

using Bits = __m256i;

// --- a few instructions ---

// Tells the compiler that a register's value is used and changed here. g++ 12 otherwise hoists loads, runs
// out of registers and spills in the middle of the tile.
QUERN_INLINE void pin(Bits& a) { asm volatile("" : "+x"(a)); }
QUERN_INLINE void pin(Bits& a, Bits& b) { asm volatile("" : "+x"(a), "+x"(b)); }
QUERN_INLINE void pin(__m256& a, __m256& b) { asm volatile("" : "+x"(a), "+x"(b)); }

// The compiler keeps nothing of memory in registers across this point, and no register's value out of memory:
// sums that live in memory stay there from block to block, and what is read again in every step is not
// spilled instead.
QUERN_INLINE void compiler_fence() { asm volatile("" ::: "memory"); }

QUERN_INLINE Bits load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

QUERN_INLINE void store(void* p, Bits bits) { _mm256_storeu_si256(static_cast<__m256i*>(p), bits); }

// 4 bytes from memory in all lanes: one load, no shuffle.
QUERN_INLINE Bits broadcast4(const void* p) {
  int32_t bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return _mm256_set1_epi32(bits);
}

// Eight f16 numbers.
QUERN_INLINE __m256 load_f16(const void* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}

// --- blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 ---

// Four codes in each lane of 16 rows; [0] rows 0-7, [1] rows 8-15.
struct Codes {
  Bits rows[2];
};

// Step s of a block. Steps 0-3 are low nibbles, 4-7 the high nibbles of the same bytes.
QUERN_INLINE Codes nibbles(const uint8_t* steps, size_t s) {
  const Bits mask = _mm256_set1_epi8(15);
  const Bits x0 = load(steps + 64 * (s % 4)), x1 = load(steps + 64 * (s % 4) + 32);
  if (s < 4) return {{_mm256_and_si256(x0, mask), _mm256_and_si256(x1, mask)}};
  return {
      {_mm256_and_si256(_mm256_srli_epi16(x0, 4), mask), _mm256_and_si256(_mm256_srli_epi16(x1, 4), mask)}};
}

// Step s's fifth bits of 8 rows, at bit 4 of each byte (panel_layout.cc, "turned").
QUERN_INLINE Bits fifth_bits(const uint8_t* turned, size_t s) {
  const int shift = static_cast<int>(s) - 4;
  const Bits qh = load(turned);
  const Bits moved = shift < 0 ? _mm256_slli_epi32(qh, -shift) : _mm256_srli_epi32(qh, shift);
  return _mm256_and_si256(moved, _mm256_set1_epi8(16));
}

QUERN_INLINE Codes five_bits(const uint8_t* turned, const uint8_t* steps, size_t s) {
  compiler_fence();  // what other steps have loaded is loaded again: registers are scarcer than loads
  const Codes low = nibbles(steps, s);
  return {{_mm256_or_si256(low.rows[0], fifth_bits(turned, s)),
           _mm256_or_si256(low.rows[1], fifth_bits(turned + 32, s))}};
}

// The formats' panel blocks: bytes, where minima (0: none), turned fifth bits (0: none) and steps stand
// (panel_layout.cc; scales stand first), bits of a code, and what stands for 0 in the codes as they are
// stored.
struct Q4_0 {
  static constexpr size_t kBytes = 288, kMinimaAt = 0, kFifthBitsAt = 0, kStepsAt = 32, kBits = 4;
  static constexpr int16_t kOffset = 8;
};
struct Q4_1 {
  static constexpr size_t kBytes = 320, kMinimaAt = 32, kFifthBitsAt = 0, kStepsAt = 64, kBits = 4;
  static constexpr int16_t kOffset = 0;
};
struct Q5_0 {
  static constexpr size_t kBytes = 352, kMinimaAt = 0, kFifthBitsAt = 32, kStepsAt = 96, kBits = 5;
  static constexpr int16_t kOffset = 16;
};
struct Q5_1 {
  static constexpr size_t kBytes = 384, kMinimaAt = 32, kFifthBitsAt = 64, kStepsAt = 128, kBits = 5;
  static constexpr int16_t kOffset = 0;
};
struct Q8_0 {  // codes are signed
  static constexpr size_t kBytes = 544, kMinimaAt = 0, kFifthBitsAt = 0, kStepsAt = 32, kBits = 8;
  static constexpr int16_t kOffset = 0;
};

// What a tile loop reads of a block as it stands in memory. r: 0 for rows 0-7, 1 for rows 8-15.
template <class F>
struct PackedBlock {
  using Format = F;
  static constexpr size_t kBytes = Format::kBytes;
  static constexpr bool kHasMin = Format::kMinimaAt != 0;

  QUERN_INLINE static __m256 scale(const uint8_t* block, size_t r) { return load_f16(block + 16 * r); }
  QUERN_INLINE static __m256 minimum(const uint8_t* block, size_t r) {
    return load_f16(block + Format::kMinimaAt + 16 * r);
  }
  QUERN_INLINE static Codes codes(const uint8_t* block, size_t s) {
    const uint8_t* steps = block + Format::kStepsAt;
    if constexpr (Format::kBits == 8) return {{load(steps + 64 * s), load(steps + 64 * s + 32)}};
    if constexpr (Format::kBits == 4) return nibbles(steps, s);
    return five_bits(block + Format::kFifthBitsAt, steps, s);
  }
};

// A block taken apart once for many tokens: 16 f32 scales, 16 f32 minima, then 8 steps of 16 rows x 4 codes
// of one byte.
template <class F>
struct ByteBlock {
  using Format = F;
  static constexpr size_t kMinimaAt = 64, kStepsAt = 128, kBytes = 128 + 512;
  static constexpr bool kHasMin = Format::kMinimaAt != 0;

  QUERN_INLINE static __m256 scale(const uint8_t* block, size_t r) {
    return _mm256_castsi256_ps(load(block + 32 * r));
  }
  QUERN_INLINE static __m256 minimum(const uint8_t* block, size_t r) {
    return _mm256_castsi256_ps(load(block + kMinimaAt + 32 * r));
  }
  QUERN_INLINE static Codes codes(const uint8_t* block, size_t s) {
    const uint8_t* step = block + kStepsAt + 64 * s;
    return {{load(step), load(step + 32)}};
  }
};

// n_blocks PackedBlocks to as many ByteBlocks.
template <class Format>
QUERN_KERNEL void unpack_blocks(const uint8_t* packed, size_t n_blocks, uint8_t* bytes) noexcept {
  using Packed = PackedBlock<Format>;
  using Byte = ByteBlock<Format>;
  for (; n_blocks != 0; --n_blocks, packed += Packed::kBytes, bytes += Byte::kBytes) {
    QUERN_UNROLL
    for (size_t r = 0; r < 2; ++r) {
      store(bytes + 32 * r, _mm256_castps_si256(Packed::scale(packed, r)));
      if constexpr (Packed::kHasMin)
        store(bytes + Byte::kMinimaAt + 32 * r, _mm256_castps_si256(Packed::minimum(packed, r)));
    }
    QUERN_UNROLL
    for (size_t s = 0; s < 8; ++s) {
      const Codes codes = Packed::codes(packed, s);
      store(bytes + Byte::kStepsAt + 64 * s, codes.rows[0]);
      store(bytes + Byte::kStepsAt + 64 * s + 32, codes.rows[1]);
    }
  }
}

// --- blocks of 256 weights: Q6_K ---

struct Q6_K {
  static constexpr size_t kBytes = 3360, kGroups = 8;  // groups of 32 weights
  static constexpr size_t kSubScalesAt = 32, kStepsAt = 288, kStepBytes = 192;
};

// A group of 32 weights taken apart: 16 f32 scales; twice 16 pairs of int16 (sub-scale, sub-scale), of the
// first and second 16 weights; 8 steps of 16 rows x 4 codes of one byte.
struct Q6KGroup {
  static constexpr size_t kSubScalesAt = 64, kStepsAt = 192, kBytes = 192 + 512;

  QUERN_INLINE static __m256 scale(const uint8_t* group, size_t r) {
    return _mm256_castsi256_ps(load(group + 32 * r));
  }
  QUERN_INLINE static Bits sub_scales(const uint8_t* group, size_t half, size_t r) {
    return load(group + kSubScalesAt + 64 * half + 32 * r);
  }
  QUERN_INLINE static Codes codes(const uint8_t* group, size_t s) {
    const uint8_t* step = group + kStepsAt + 64 * s;
    return {{load(step), load(step + 32)}};
  }
};

// Where step s of half h of a block stands.
QUERN_INLINE const uint8_t* q6_k_step(const uint8_t* block, size_t h, size_t s) {
  return block + Q6_K::kStepsAt + Q6_K::kStepBytes * (8 * h + s);
}

// The codes of a step of 8 rows: part p of the half's four groups. What the parts share is loaded once where
// they are taken together.
QUERN_INLINE Bits q6_k_codes(const uint8_t* step, size_t p) {
  const Bits nibble = _mm256_set1_epi8(15), pair = _mm256_set1_epi8(48);
  const Bits ql = load(step + 64 * (p % 2)), qh = load(step + 128);
  const Bits low = _mm256_and_si256(p < 2 ? ql : _mm256_srli_epi16(ql, 4), nibble);
  const Bits moved = p == 0   ? _mm256_slli_epi16(qh, 4)
                     : p == 1 ? _mm256_slli_epi16(qh, 2)
                     : p == 2 ? qh
                              : _mm256_srli_epi16(qh, 2);
  return _mm256_or_si256(low, _mm256_and_si256(moved, pair));
}

// 16-bit pairs (sub-scale, sub-scale) of 8 rows, of sub-block i of 16.
QUERN_INLINE Bits q6_k_sub_scales(const uint8_t* block, size_t i, size_t r) {
  const uint8_t* scales = block + Q6_K::kSubScalesAt + 16 * i + 8 * r;
  const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales));
  return _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(x, x));
}

QUERN_INLINE void unpack_q6_k_scales(const uint8_t* block, uint8_t* groups) {
  const __m256 d[2] = {load_f16(block), load_f16(block + 16)};
  for (size_t g = 0; g < Q6_K::kGroups; ++g, groups += Q6KGroup::kBytes) {
    QUERN_UNROLL
    for (size_t r = 0; r < 2; ++r) {
      store(groups + 32 * r, _mm256_castps_si256(d[r]));
      uint8_t* pairs = groups + Q6KGroup::kSubScalesAt + 32 * r;
      store(pairs, q6_k_sub_scales(block, 2 * g, r));
      store(pairs + 64, q6_k_sub_scales(block, 2 * g + 1, r));
    }
  }
}

// n_blocks panel blocks to 8 * n_blocks Q6KGroups, memory read in address order, and asked for kAhead bytes
// earlier.
template <size_t kAhead>
QUERN_KERNEL void unpack_q6_k(const uint8_t* block, size_t n_blocks, uint8_t* groups) noexcept {
  for (; n_blocks != 0; --n_blocks, block += Q6_K::kBytes, groups += Q6_K::kGroups * Q6KGroup::kBytes) {
    unpack_q6_k_scales(block, groups);
    for (size_t h = 0; h < 2; ++h) {
      for (size_t s = 0; s < 8; ++s) {
        const uint8_t* step = q6_k_step(block, h, s);
        uint8_t* codes = groups + 4 * h * Q6KGroup::kBytes + Q6KGroup::kStepsAt + 64 * s;
        Bits x[4][2];
        QUERN_UNROLL
        for (size_t p = 0; p < 4; ++p) {
          if (p < 3) prefetch(step + kAhead + 64 * p);
          x[p][0] = q6_k_codes(step, p);
          x[p][1] = q6_k_codes(step + 32, p);
        }
        QUERN_UNROLL
        for (size_t p = 0; p < 4; ++p) {
          store(codes + p * Q6KGroup::kBytes, x[p][0]);
          store(codes + p * Q6KGroup::kBytes + 32, x[p][1]);
        }
      }
    }
  }
}

// --- floats: panels [k][16 rows] ---

struct F32 {
  static constexpr size_t kBytes = 4;
  QUERN_INLINE static __m256 load8(const uint8_t* p) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  }
};

struct F16 {
  static constexpr size_t kBytes = 2;
  QUERN_INLINE static __m256 load8(const uint8_t* p) { return load_f16(p); }
};

struct BF16 {
  static constexpr size_t kBytes = 2;
  QUERN_INLINE static __m256 load8(const uint8_t* p) {
    const Bits halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(halves, 16));
  }
};

}  // namespace
}  // namespace quern::avx2
