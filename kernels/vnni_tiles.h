// Quantized activations as the sets that multiply with vpdpbusd read them.
//
// Everything is anonymous: each file that is compiled for an instruction set has its own copy, so that the
// linker can never pick such a copy for code that runs on any CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_set.h"

namespace quern {
namespace {

// For a tile of C tokens and every group of 32 values one block of 72 * C bytes,
//   codes int8 [C][32] | da f32 [C] | -8 S | -16 S | -127 S | -128 S | -32 S0 | -32 S1 (int32 [C] each) |
//   da * float(S) f32 [C] | S0, S1 int16 [C][2] | 4 * C bytes of a set's own
// S = S0 + S1. A sum of offset codes starts from its bias, which costs nothing, so each offset in use has its
// row; with C = 16 a row is one cache line, and lines that a format does not use are not touched.
template <int C>
struct TileBlock {
  static constexpr size_t kScale = 32 * C, kBias8 = 36 * C, kBias16 = 40 * C, kBias127 = 44 * C,
                          kBias128 = 48 * C, kBias32Low = 52 * C, kBias32High = 56 * C, kScaledSum = 60 * C,
                          kHalfSums = 64 * C, kOfSet = 68 * C, kBytes = 72 * C;
  // The row that sums of codes with this offset start from: of 32 weights, of the first or second 16.
  static constexpr size_t bias(int offset) {
    return offset == 8 ? kBias8 : offset == 16 ? kBias16 : offset == 127 ? kBias127 : kBias128;
  }
  static constexpr size_t half_bias(size_t half) { return half == 0 ? kBias32Low : kBias32High; }
};

constexpr size_t kTokenBlockBytes = 72;  // per token and group, whatever the tile's width

template <class T>
inline void put(uint8_t* p, T value) {
  __builtin_memcpy(p, &value, sizeof value);
}

// Packs n (1..C) tokens from `token` on; the others are zeros, whose results nobody keeps. out: k / 32
// blocks.
template <int C>
void pack_tile(const QuantizedRows& a, size_t token, size_t n, size_t k, uint8_t* out) noexcept {
  using Block = TileBlock<C>;
  const size_t groups = k / 32;
  for (size_t g = 0; g < groups; ++g, out += Block::kBytes) {
    for (size_t c = 0; c < C; ++c) {
      if (c >= n) {
        __builtin_memset(out + 32 * c, 0, 32);
        for (size_t row = Block::kScale; row < Block::kBytes; row += 4 * C) put(out + row + 4 * c, 0);
        continue;
      }
      const size_t t = token + c;
      __builtin_memcpy(out + 32 * c, a.codes + t * k + 32 * g, 32);
      const float da = a.scales[t * groups + g];
      const int16_t* sums = a.sums + 4 * (t * groups + g);
      const int32_t s0 = sums[0] + sums[1], s1 = sums[2] + sums[3], s = s0 + s1;
      put(out + Block::kScale + 4 * c, da);
      put(out + Block::kBias8 + 4 * c, -8 * s);
      put(out + Block::kBias16 + 4 * c, -16 * s);
      put(out + Block::kBias127 + 4 * c, -127 * s);
      put(out + Block::kBias128 + 4 * c, -128 * s);
      put(out + Block::kBias32Low + 4 * c, -32 * s0);
      put(out + Block::kBias32High + 4 * c, -32 * s1);
      put(out + Block::kScaledSum + 4 * c, da * static_cast<float>(s));
      put(out + Block::kHalfSums + 4 * c, static_cast<int16_t>(s0));
      put(out + Block::kHalfSums + 4 * c + 2, static_cast<int16_t>(s1));
    }
  }
}

}  // namespace
}  // namespace quern
