// The product that both halves of attention are made of, on 16 lanes that lie together in the cache:
//   sums[r][lane] += x[r][i] * block[i][lane]      i ascending, an FMA each
// Scores: lanes are keys, i runs over dims, x are queries. Values: lanes are dims, i runs over keys, x are
// probabilities.
//
// Everything is anonymous (see tile.h).
#pragma once

#include "kernels/attention/tile.h"

namespace quern::attention {
namespace {

// A block of floats or f16: 16 a step.
template <class T>
struct FloatBlock {
  static constexpr size_t kStepBytes = 16 * T::kBytes;
  const uint8_t* first;

  // From step i on.
  FloatBlock from(size_t i) const { return {at(i)}; }
  const uint8_t* at(size_t i) const { return first + i * kStepBytes; }
  // Lanes [lane, lane + L::kCount) of step i.
  template <class L>
  QUERN_INLINE typename L::Floats load(size_t i, size_t lane) const {
    return L::load(T{}, at(i) + lane * T::kBytes);
  }
};

// A block of 16 codes for each key of a tile, and the keys' scales.
struct CodeBlock {
  static constexpr size_t kStepBytes = 16;
  const uint8_t* codes;
  const float* scales;

  CodeBlock from(size_t i) const { return {at(i), scales + i}; }
  const uint8_t* at(size_t i) const { return codes + i * kStepBytes; }
  template <class L>
  QUERN_INLINE typename L::Floats load(size_t i, size_t lane) const {
    return L::mul(L::from_codes(at(i) + lane), L::set1(scales[i]));
  }
};

// n steps for kRows rows. x: row stride x_stride. sums: [kRows] rows, sums_stride apart, of 16; they start as
// they are times alpha[r], or, without kAdd, from zero. kAhead: how many bytes ahead the cache is asked for;
// 0: not at all.
//
// One block at a time, however few rows: the FMAs of one row follow each other, eight cycles for a line of
// F16, as long as four rows take. With two or four blocks side by side memory is no longer read in order (one
// thread on Zen 4, one row: 30 GB/s by one block, 14.5 by four), and a factor that is used twice becomes an
// instruction of a vector unit instead of a part of the FMA (AVX-512, four rows, from the L1 cache: 28 and 22
// GB/s).
template <class L, size_t kRows, bool kAdd, size_t kAhead, class Block>
QUERN_KERNEL void tile_product(const Block& block, size_t n, const float* x, size_t x_stride,
                               const float* alpha, float* sums, size_t sums_stride) {
  constexpr size_t kVectors = 16 / L::kCount;
  typename L::Floats s[kRows][kVectors];
  QUERN_UNROLL
  for (size_t r = 0; r < kRows; ++r) QUERN_UNROLL
  for (size_t v = 0; v < kVectors; ++v)
    s[r][v] = kAdd ? L::mul(L::load(sums + r * sums_stride + L::kCount * v), L::set1(alpha[r])) : L::set1(0);
  const Block source = block;
  const auto add_step = [&](size_t i) QUERN_INLINED {
    typename L::Floats y[kVectors];
    QUERN_UNROLL
    for (size_t v = 0; v < kVectors; ++v) y[v] = source.template load<L>(i, L::kCount * v);
    QUERN_UNROLL
    for (size_t r = 0; r < kRows; ++r) {
      const auto factor = L::set1(x[r * x_stride + i]);
      QUERN_UNROLL
      for (size_t v = 0; v < kVectors; ++v) s[r][v] = L::fma(factor, y[v], s[r][v]);
    }
  };
  constexpr size_t kLineSteps = kCacheLine / Block::kStepBytes;
  size_t i = 0;
  for (; i + kLineSteps <= n; i += kLineSteps) {
    if constexpr (kAhead != 0) prefetch(source.at(i) + kAhead);
    QUERN_UNROLL
    for (size_t step = 0; step < kLineSteps; ++step) add_step(i + step);
  }
  for (; i < n; ++i) add_step(i);
  QUERN_UNROLL
  for (size_t r = 0; r < kRows; ++r) QUERN_UNROLL
  for (size_t v = 0; v < kVectors; ++v) L::store(sums + r * sums_stride + L::kCount * v, s[r][v]);
}

// n steps of a block as floats: [n][16].
template <class L, class Block>
void widen_block(const Block& block, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) {
    QUERN_UNROLL
    for (size_t lane = 0; lane < 16; lane += L::kCount)
      L::store(out + 16 * i + lane, block.template load<L>(i, lane));
  }
}

}  // namespace
}  // namespace quern::attention
