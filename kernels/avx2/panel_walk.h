// The matmul walk over panels, tokens and k of the sets that work on 256-bit registers: panels of 16 rows,
// tiles of up to four tokens. They differ in their tiles of activations and in how they multiply.
//
// Everything is anonymous (see unpack.h).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_set.h"
#include "quant/panel_layout.h"

namespace quern::avx2 {
namespace {

constexpr size_t kWalkTileTokens = 4;  // of a full tile

// Writes the sums of 16 rows and n_tokens tokens to y, rows below args.row_end only.
inline void store_panel(const MatmulArgs& args, size_t row, size_t token, size_t n_tokens,
                        const float* acc) noexcept {
  const size_t n_rows = args.row_end - row;
  for (size_t t = 0; t < n_tokens; ++t, acc += kPanelRows) {
    float* y = args.y + (token + t) * args.y_stride + row;
    if (n_rows >= kPanelRows) {
      for (size_t r = 0; r < kPanelRows; r += 8) {
        const __m256 dot = _mm256_mul_ps(_mm256_loadu_ps(acc + r), _mm256_set1_ps(args.factor));
        _mm256_storeu_ps(y + r, args.add ? _mm256_add_ps(_mm256_loadu_ps(y + r), dot) : dot);
      }
    } else {
      for (size_t r = 0; r < n_rows; ++r)
        y[r] = args.add ? y[r] + acc[r] * args.factor : acc[r] * args.factor;
    }
  }
}

// Calls Kernel::tile<C, 1>(weights, 0, n_blocks, tile, acc), which adds C tokens' products to acc, for all of
// n_tokens, four at a time. tile: what a.tile(first token, C, weight) returns. acc: [n_tokens, 16].
template <class Kernel, class Activations>
void for_each_tile(const uint8_t* weights, size_t n_blocks, const Activations& a, size_t token,
                   size_t n_tokens, size_t weight, float* acc) noexcept {
  size_t t = 0;
  for (; t + kWalkTileTokens <= n_tokens; t += kWalkTileTokens)
    Kernel::template tile<kWalkTileTokens, 1>(
        weights, 0, n_blocks, a.tile(token + t, kWalkTileTokens, weight), acc + t * kPanelRows);
  const size_t rest = n_tokens - t;
  if (rest == 0) return;
  const auto tile = a.tile(token + t, rest, weight);
  acc += t * kPanelRows;
  if (rest == 1) Kernel::template tile<1, 1>(weights, 0, n_blocks, tile, acc);
  if (rest == 2) Kernel::template tile<2, 1>(weights, 0, n_blocks, tile, acc);
  if (rest == 3) Kernel::template tile<3, 1>(weights, 0, n_blocks, tile, acc);
}

// The walk. A panel's k is cut into chunks that stay in the caches of a core (Kernel::kChunkBlocks) while the
// tokens pass over them four at a time, so that weights come from memory once; what a chunk adds is kept in
// `acc` between chunks, which changes no bit. Kernel: Activations, kBlockWeights, kBlockBytes (of a panel
// block), kChunkBlocks, and
//   accumulate(blocks, n_blocks, activations, token, n_tokens, weight, acc)
// for n_tokens from `token` on and n_blocks <= kChunkBlocks from `weight` on; acc: [n_tokens, 16].
// kSlabTokens: all panels see so many tokens before the next ones come, and a panel is taken apart once for
// them; their sums are on the stack.
template <class Kernel, size_t kSlabTokens>
void walk_panels(const MatmulArgs& args) noexcept {
  alignas(64) float acc[kSlabTokens * kPanelRows];
  const size_t n_blocks = args.k / Kernel::kBlockWeights;
  const auto activations = Kernel::Activations::of(args);
  for (size_t token = 0; token < args.n_tokens; token += kSlabTokens) {
    const size_t n_tokens = args.n_tokens - token < kSlabTokens ? args.n_tokens - token : kSlabTokens;
    for (size_t row = args.row_begin; row < args.row_end; row += kPanelRows) {
      const uint8_t* panel = args.weights + row / kPanelRows * n_blocks * Kernel::kBlockBytes;
      __builtin_memset(acc, 0, n_tokens * kPanelRows * sizeof(float));
      for (size_t block = 0; block < n_blocks; block += Kernel::kChunkBlocks) {
        const size_t left = n_blocks - block;
        Kernel::accumulate(panel + block * Kernel::kBlockBytes,
                           left < Kernel::kChunkBlocks ? left : Kernel::kChunkBlocks, activations, token,
                           n_tokens, block * Kernel::kBlockWeights, acc);
      }
      store_panel(args, row, token, n_tokens, acc);
    }
  }
}

}  // namespace
}  // namespace quern::avx2
