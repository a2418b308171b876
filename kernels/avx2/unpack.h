// From P16 panels to two registers of 8 rows, by the unpackers of kernels/unpack, and groups taken apart once
// for many tokens. Shared by the sets that work on 256-bit registers: they differ in how they multiply, not
// in what they multiply.
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

#include "kernels/avx2/vector.h"
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

// Four codes in each lane of 16 rows; [0] rows 0-7, [1] rows 8-15.
struct Codes {
  Bits rows[2];
};

// --- one sum a group: blocks as tile loops read them ---

// A block of 32 weights as it stands in memory. r: 0 for rows 0-7, 1 for rows 8-15.
template <class Format>
struct PackedBlock {
  static_assert(Format::kGroups == 1);
  static constexpr bool kPacked = true;
  static constexpr size_t kBytes = Format::kBytes, kMinima = Format::kMinima;
  static constexpr int kBits = Format::kBits, kOffset = Format::kOffset;

  QUERN_INLINE static __m256 scale(const uint8_t* block, size_t r) { return Format::scale(block, 0, r); }
  QUERN_INLINE static __m256 minimum(const uint8_t* block, size_t r) { return Format::minimum(block, 0, r); }
  QUERN_INLINE static Codes codes(const uint8_t* block, size_t s) {
    if constexpr (kBits == 5)
      compiler_fence();  // what other steps have loaded is loaded again: registers are scarcer
    return {{Format::codes(block, 0, 0, s, 0), Format::codes(block, 0, 0, s, 1)}};
  }
};

// A group taken apart once for many tokens: 16 f32 D, 16 f32 minima, then 8 steps of 16 rows x 4 codes of one
// byte.
template <int kBitsOf, int kOffsetOf, size_t kMinimaOf>
struct ByteBlock {
  static constexpr bool kPacked = false;
  static constexpr size_t kMinimaAt = 64, kStepsAt = 128, kBytes = 128 + 512, kMinima = kMinimaOf;
  static constexpr int kBits = kBitsOf, kOffset = kOffsetOf;

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
template <class Format>
using ByteBlockOf = ByteBlock<Format::kBits, Format::kOffset, Format::kMinima>;

// n_blocks panel blocks to kGroups times as many ByteBlocks. kAhead: how many bytes earlier memory is asked
// for; 0: it is not.
template <class Format, size_t kAhead = 0>
QUERN_KERNEL void unpack_blocks(const uint8_t* packed, size_t n_blocks, uint8_t* bytes) noexcept {
  using Byte = ByteBlockOf<Format>;
  constexpr size_t kTogether = Format::kTogether;
  for (; n_blocks != 0; --n_blocks, packed += Format::kBytes) {
    QUERN_UNROLL
    for (size_t part = 0; part < Format::kGroups / kTogether; ++part, bytes += kTogether * Byte::kBytes) {
      if constexpr (kAhead != 0) {
        constexpr size_t kShare = Format::kBytes * kTogether / Format::kGroups;
        QUERN_UNROLL
        for (size_t line = 0; line < kShare; line += 64) prefetch(packed + kShare * part + kAhead + line);
      }
      QUERN_UNROLL
      for (size_t i = 0; i < 2 * kTogether; ++i) {
        const size_t j = i / 2, r = i % 2, g = part * kTogether + j;
        uint8_t* const to = bytes + j * Byte::kBytes + 32 * r;
        store(to, _mm256_castps_si256(Format::scale(packed, g, r)));
        if constexpr (Byte::kMinima != 0)
          store(to + Byte::kMinimaAt, _mm256_castps_si256(Format::minimum(packed, g, r)));
      }
      QUERN_UNROLL
      for (size_t s = 0; s < 8; ++s) {
        if constexpr (Format::kBits == 5) compiler_fence();
        QUERN_UNROLL
        for (size_t r = 0; r < 2; ++r) {
          QUERN_UNROLL
          for (size_t j = 0; j < kTogether; ++j)
            store(bytes + j * Byte::kBytes + Byte::kStepsAt + 64 * s + 32 * r,
                  Format::codes(packed, part, j, s, r));
        }
      }
    }
  }
}

// --- two sums a group ---

// Twice the same int16 in each lane, which vpmaddwd multiplies pairs of sums with.
QUERN_INLINE Bits pairs_of(Bits numbers) {
  return _mm256_blend_epi16(numbers, _mm256_slli_epi32(numbers, 16), 0xaa);
}

// A group of 32 weights taken apart: 16 f32 scales; twice 16 pairs of int16 (sub-scale, sub-scale), of the
// first and second 16 weights; 16 f32 minima and 16 pairs of int16, the integers of both halves, where there
// are minima; 8 steps of 16 rows x 4 codes of one byte, whose offset is 32.
template <size_t kMinimaOf>
struct TwoScalesGroup {
  static constexpr size_t kMinima = kMinimaOf;
  static constexpr size_t kSubScalesAt = 64, kMinimumAt = 192, kMinimumPairsAt = 256,
                          kStepsAt = kMinima != 0 ? 320 : 192, kBytes = kStepsAt + 512;

  QUERN_INLINE static __m256 scale(const uint8_t* group, size_t r) {
    return _mm256_castsi256_ps(load(group + 32 * r));
  }
  QUERN_INLINE static Bits sub_scales(const uint8_t* group, size_t half, size_t r) {
    return load(group + kSubScalesAt + 64 * half + 32 * r);
  }
  QUERN_INLINE static __m256 minimum(const uint8_t* group, size_t r) {
    return _mm256_castsi256_ps(load(group + kMinimumAt + 32 * r));
  }
  QUERN_INLINE static Bits minimum_pairs(const uint8_t* group, size_t r) {
    return load(group + kMinimumPairsAt + 32 * r);
  }
  QUERN_INLINE static Codes codes(const uint8_t* group, size_t s) {
    const uint8_t* step = group + kStepsAt + 64 * s;
    return {{load(step), load(step + 32)}};
  }
};
template <class Format>
using TwoScalesGroupOf = TwoScalesGroup<Format::kMinima>;

// A group's two integers of its minimum, int16 each.
template <class Format>
QUERN_INLINE Bits minimum_pairs(const uint8_t* block, size_t g, size_t r) {
  return _mm256_blend_epi16(Format::sub_minimum(block, g, 0, r),
                            _mm256_slli_epi32(Format::sub_minimum(block, g, 1, r), 16), 0xaa);
}

// acc += m * (da * float(what the pairs of minima and of sums give)), 8 rows in memory.
QUERN_INLINE void add_minimum(float* acc, __m256 m, Bits pairs, Bits half_sums, __m256 da) {
  const __m256 sum = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, half_sums));
  _mm256_storeu_ps(acc, _mm256_fmadd_ps(m, _mm256_mul_ps(da, sum), _mm256_loadu_ps(acc)));
}

// n_blocks panel blocks to kGroups times as many TwoScalesGroups, memory read in address order, and asked for
// kAhead bytes earlier.
template <class Format, size_t kAhead>
QUERN_KERNEL void unpack_two_scales(const uint8_t* block, size_t n_blocks, uint8_t* groups) noexcept {
  using Group = TwoScalesGroupOf<Format>;
  constexpr size_t kTogether = Format::kTogether, kSteps = Format::kGroups / kTogether * 8;
  for (; n_blocks != 0; --n_blocks, block += Format::kBytes) {
    const uint8_t* ahead = block + kAhead;
    QUERN_UNROLL
    for (size_t part = 0; part < Format::kGroups / kTogether; ++part, groups += kTogether * Group::kBytes) {
      for (size_t j = 0; j < kTogether; ++j) {
        QUERN_UNROLL
        for (size_t r = 0; r < 2; ++r) {
          const size_t g = part * kTogether + j;
          uint8_t* const to = groups + j * Group::kBytes + 32 * r;
          store(to, _mm256_castps_si256(Format::scale(block, g, r)));
          store(to + Group::kSubScalesAt, pairs_of(Format::sub_scale(block, g, 0, r)));
          store(to + Group::kSubScalesAt + 64, pairs_of(Format::sub_scale(block, g, 1, r)));
          if constexpr (Group::kMinima != 0) {
            store(to + Group::kMinimumAt, _mm256_castps_si256(Format::minimum(block, g, r)));
            store(to + Group::kMinimumPairsAt, minimum_pairs<Format>(block, g, r));
          }
        }
      }
      for (size_t s = 0; s < 8; ++s, ahead += Format::kBytes / kSteps) {
        QUERN_UNROLL
        for (size_t line = 0; line < Format::kBytes / kSteps; line += 64) prefetch(ahead + line);
        Bits w[2][kTogether];
        QUERN_UNROLL
        for (size_t i = 0; i < 2 * kTogether; ++i) {
          Bits& codes = w[i % 2][i / 2] = Format::codes(block, part, i / 2, s, i % 2);
          if constexpr (Format::kOffset != 32)
            codes = _mm256_add_epi8(codes, _mm256_set1_epi8(32 - Format::kOffset));
        }
        QUERN_UNROLL
        for (size_t i = 0; i < 2 * kTogether; ++i)
          store(groups + i / 2 * Group::kBytes + Group::kStepsAt + 64 * s + 32 * (i % 2), w[i % 2][i / 2]);
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
