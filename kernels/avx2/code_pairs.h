// Q8_0's codes as pairs of int16, which vpmaddwd multiplies and adds up exactly: matmul's tiles of four
// tokens and attention's scores. The lanes are unpack.h's: 16 rows (or keys) of a panel.
//
// Everything is anonymous (see unpack.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/avx2/unpack.h"
#include "kernels/unpack/nibbles.h"

namespace quern::avx2 {
namespace {

// Two int16 codes in each lane from its four of int8: codes 0 and 2, codes 1 and 3. What is multiplied by
// them is stored in that order, 0 2 1 3.
QUERN_INLINE Bits even_codes(Bits four) { return _mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8); }
QUERN_INLINE Bits odd_codes(Bits four) { return _mm256_srai_epi16(four, 8); }

// The pairs of a block as it stands in memory. s: step, four codes of each row.
struct NarrowBlock : PackedBlock<unpack::Q8_0<Vector8>> {
  QUERN_INLINE static Codes even(const uint8_t* block, size_t s) {
    const Codes w = codes(block, s);
    return {{even_codes(w.rows[0]), even_codes(w.rows[1])}};
  }
  QUERN_INLINE static Codes odd(const uint8_t* block, size_t s) {
    const Codes w = codes(block, s);
    return {{odd_codes(w.rows[0]), odd_codes(w.rows[1])}};
  }
};

// The same of a block widened once for many tokens: 16 f32 scales, then 16 steps of 16 rows x 2 codes of 16
// bits.
struct WideBlock {
  static constexpr size_t kStepsAt = 64, kBytes = 64 + 16 * 64;

  QUERN_INLINE static __m256 scale(const uint8_t* block, size_t r) {
    return _mm256_castsi256_ps(load(block + 32 * r));
  }
  QUERN_INLINE static Codes even(const uint8_t* block, size_t s) { return pairs(block, 2 * s); }
  QUERN_INLINE static Codes odd(const uint8_t* block, size_t s) { return pairs(block, 2 * s + 1); }
  QUERN_INLINE static Codes pairs(const uint8_t* block, size_t i) {
    return {{load(block + kStepsAt + 64 * i), load(block + kStepsAt + 64 * i + 32)}};
  }
};

// n_blocks panel blocks of a format of signed codes to kGroups times as many WideBlocks.
template <class Format>
QUERN_KERNEL void widen_blocks_of(const uint8_t* block, size_t n_blocks, uint8_t* wide) noexcept {
  for (; n_blocks != 0; --n_blocks, block += Format::kBytes) {
    for (size_t g = 0; g < Format::kGroups; ++g, wide += WideBlock::kBytes) {
      for (size_t r = 0; r < 2; ++r) store(wide + 32 * r, _mm256_castps_si256(Format::scale(block, g, r)));
      QUERN_UNROLL
      for (size_t s = 0; s < 8; ++s) {
        QUERN_UNROLL
        for (size_t r = 0; r < 2; ++r) {
          const Bits w = Format::codes(block, g, 0, s, r);
          uint8_t* out = wide + WideBlock::kStepsAt + 128 * s + 32 * r;
          store(out, even_codes(w));
          store(out + 64, odd_codes(w));
        }
      }
    }
  }
}

inline void widen_blocks(const uint8_t* narrow, size_t n_blocks, uint8_t* wide) noexcept {
  widen_blocks_of<unpack::Q8_0<Vector8>>(narrow, n_blocks, wide);
}

}  // namespace
}  // namespace quern::avx2
