// What the AVX2 matmul kernels share: the walk over panels, tokens and k, and a step of a product.
//
// Everything is anonymous: each file that is compiled for AVX2 has its own copy, so that the linker can never
// pick an AVX2 copy for code that runs on any CPU. Included by kernels/avx2/matmul_*.cc only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/avx2/unpack.h"
#include "kernels/kernel_set.h"

namespace quern::avx2 {
namespace {

// Tokens that one pass of a tile loop takes: 16 rows x 4 tokens fill the 16 registers with int16 sums,
// weights and broadcasts.
constexpr size_t kTileTokens = 4;
// Tokens that all panels see before the next ones come: 8 KB of accumulators on the stack, and activations of
// 4096 columns are 512 KB, which stay in an L2 cache (512 tokens of Q4_0 on Zen 4: 64 30.2, 128 31.1,
// 256 29.6 multiply-adds a cycle).
constexpr size_t kSlabTokens = 128;

// Activations of some tokens from some weight on.
struct FloatActivations {
  const float* x;  // token stride k
  size_t k;        // of a whole row

  static FloatActivations of(const MatmulArgs& args) { return {args.x, args.k}; }
  FloatActivations at(size_t token, size_t weight) const { return {x + token * k + weight, k}; }
};

struct QuantizedActivations {
  const int8_t* codes;  // token stride k
  const float* scales;  // token stride groups
  const int16_t* sums;  // token stride 4 * groups
  size_t k, groups;     // of a whole row

  static QuantizedActivations of(const MatmulArgs& args) {
    return {args.a.codes, args.a.scales, args.a.sums, args.k, args.k / 32};
  }
  // weight is a multiple of 32.
  QuantizedActivations at(size_t token, size_t weight) const {
    const size_t group = token * groups + weight / 32;
    return {codes + token * k + weight, scales + group, sums + 4 * group, k, groups};
  }
};

// One step of an int16 sum: four unsigned codes in each lane of 16 rows, times four activations.
QUERN_INLINE void add_products(const Bits codes[2], Bits a, Bits sum[2]) {
  pin(a);
  Bits products[2] = {_mm256_maddubs_epi16(codes[0], a), _mm256_maddubs_epi16(codes[1], a)};
  pin(products[0], products[1]);
  sum[0] = _mm256_add_epi16(sum[0], products[0]);
  sum[1] = _mm256_add_epi16(sum[1], products[1]);
  pin(sum[0], sum[1]);
}

// Calls Kernel::tile<N> for all of n_tokens, four at a time. acc: [n_tokens, 16].
template <class Kernel, class Activations>
void for_each_tile(const uint8_t* weights, size_t n_blocks, const Activations& a, size_t n_tokens,
                   float* acc) noexcept {
  size_t t = 0;
  for (; t + kTileTokens <= n_tokens; t += kTileTokens)
    Kernel::template tile<4>(weights, n_blocks, a.at(t, 0), acc + t * kPanelRows);
  const Activations rest = a.at(t, 0);
  float* rest_acc = acc + t * kPanelRows;
  if (n_tokens - t == 1) Kernel::template tile<1>(weights, n_blocks, rest, rest_acc);
  if (n_tokens - t == 2) Kernel::template tile<2>(weights, n_blocks, rest, rest_acc);
  if (n_tokens - t == 3) Kernel::template tile<3>(weights, n_blocks, rest, rest_acc);
}

// Writes the sums of 16 rows and n_tokens tokens to y, rows below args.row_end only.
inline void store_panel(const MatmulArgs& args, size_t row, size_t token, size_t n_tokens,
                        const float* acc) noexcept {
  const size_t n_rows = args.row_end - row < kPanelRows ? args.row_end - row : kPanelRows;
  for (size_t t = 0; t < n_tokens; ++t) {
    float* y = args.y + (token + t) * args.y_stride + row;
    for (size_t r = 0; r < n_rows; ++r) {
      const float dot = acc[t * kPanelRows + r];
      y[r] = args.add ? y[r] + dot : dot;
    }
  }
}

// The walk. A panel's k is cut into chunks that stay in the L1 cache while the tokens pass over them four at
// a time, so that weights come from memory once; what a chunk adds is kept in `acc` between chunks, which
// changes no bit. Kernel: Activations, kBlockWeights, kBlockBytes (of a panel block), kChunkBlocks, and
//   accumulate(blocks, n_blocks, activations, n_tokens, acc)   acc: [n_tokens, 16]; n_blocks <= kChunkBlocks
template <class Kernel>
void walk_panels(const MatmulArgs& args) noexcept {
  alignas(64) float acc[kSlabTokens * kPanelRows];
  const size_t n_blocks = args.k / Kernel::kBlockWeights;
  const auto all = Kernel::Activations::of(args);
  for (size_t token = 0; token < args.n_tokens; token += kSlabTokens) {
    const size_t n_tokens = args.n_tokens - token < kSlabTokens ? args.n_tokens - token : kSlabTokens;
    for (size_t row = args.row_begin; row < args.row_end; row += kPanelRows) {
      const uint8_t* panel = args.weights + row / kPanelRows * n_blocks * Kernel::kBlockBytes;
      __builtin_memset(acc, 0, n_tokens * kPanelRows * sizeof(float));
      for (size_t block = 0; block < n_blocks; block += Kernel::kChunkBlocks) {
        const size_t left = n_blocks - block;
        Kernel::accumulate(panel + block * Kernel::kBlockBytes,
                           left < Kernel::kChunkBlocks ? left : Kernel::kChunkBlocks,
                           all.at(token, block * Kernel::kBlockWeights), n_tokens, acc);
      }
      store_panel(args, row, token, n_tokens, acc);
    }
  }
}

}  // namespace
}  // namespace quern::avx2
