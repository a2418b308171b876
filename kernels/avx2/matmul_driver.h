// What the AVX2 matmul kernels share beside the walk (panel_walk.h): how activations are found, one or two
// tokens in several streams, and a step of a product.
//
// Everything is anonymous (see unpack.h). Included by kernels/avx2/matmul_*.cc only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/avx2/activation_tiles.h"
#include "kernels/avx2/panel_walk.h"
#include "kernels/avx2/unpack.h"
#include "kernels/kernel_set.h"

namespace quern::avx2 {
namespace {

// Tokens that all panels see before the next ones come: 32 KB of sums on the stack, a few lines of which are
// in use at a time. A panel is taken apart once for them.
constexpr size_t kSlabTokens = 512;
static_assert(kTileTokens == kWalkTileTokens);

// Activations of some tokens from some weight on.
struct FloatActivations {
  const float* x;  // token stride k
  size_t k;        // of a whole row

  static FloatActivations of(const MatmulArgs& args) { return {args.x, args.k}; }
  // The tile of `width` tokens that begins with `token`.
  FloatActivations tile(size_t token, size_t, size_t weight) const { return {x + token * k + weight, k}; }
};

struct QuantizedActivations {
  const uint8_t* tiles;  // activation_tiles.h
  size_t k;              // of a whole row

  static QuantizedActivations of(const MatmulArgs& args) { return {args.tiles, args.k}; }
  // token is a multiple of kTileTokens, weight one of 32.
  TilePosition tile(size_t token, size_t width, size_t weight) const {
    const size_t groups = k / 32, group = weight / 32;
    const uint8_t* first = tiles + token * groups * kTokenGroupBytes;
    return {first + width * group * kMainBytes, first + width * (groups * kMainBytes + group * kSideBytes)};
  }
};

// A 32-bit number that may stand anywhere.
struct __attribute__((packed, may_alias)) Word {
  uint32_t bits;
};

// Four columns of a product, in sums of int16: each 32-bit lane of `w` holds four unsigned codes of one of 16
// rows, and the four signed activations at `a` are broadcast to all lanes. In assembly, because g++ 12 does
// the broadcasts of all steps first, for which there are not enough registers, and spills them; one step's
// broadcast from memory costs a load and nothing else.
QUERN_INLINE void add_products(const Codes& w, const uint8_t* a, Bits sum[2]) {
  Bits t, p;
  asm("vpbroadcastd %[a], %[t]\n\t"
      "vpmaddubsw %[t], %[w0], %[p]\n\t"
      "vpmaddubsw %[t], %[w1], %[t]\n\t"
      "vpaddw %[p], %[s0], %[s0]\n\t"
      "vpaddw %[t], %[s1], %[s1]"
      : [s0] "+x"(sum[0]), [s1] "+x"(sum[1]), [t] "=&x"(t), [p] "=&x"(p)
      : [w0] "x"(w.rows[0]), [w1] "x"(w.rows[1]), [a] "m"(*reinterpret_cast<const Word*>(a)));
}

// How far ahead of the products packed weights are prefetched, in bytes of each of P streams. Without
// prefetches a core of Zen 3 reads slower than its memory is, and it can wait for 24 cache lines at a time:
// prefetches do most when they are spread over the steps of a block and no more than these are under way in
// all P streams. Measured with one thread beside busy ones, for one token of Q4_0 / Q8_0: bytes per second as
// a share of a plain read's, by distance:
//   one stream     none 0.74 / 0.76, 4096 0.80 / 0.79, 1152 0.86 / 0.83, 1152 to 1536 spread 0.89 / 0.88
//   two, spread    512 0.85 / 1.01, 768 0.93 / 1.08, 1280 0.91 / 1.01, 2048 0.88 / 0.96
// and as a share of a plain read in four streams, which is faster:
//   two, spread    768 0.82 / 0.85
//   four, spread   256 0.92 / 0.95, 384 0.87 / 0.96, 768 0.76 / 0.92
template <size_t P>
constexpr size_t kPrefetchAhead = P == 1   ? 1536
                                  : P == 2 ? 768
                                           : 256;

// Step i's share of the prefetches of a block of kBytes.
template <size_t P, size_t kBytes>
QUERN_INLINE void prefetch_weights(const uint8_t* block, size_t i) {
  if (64 * i < kBytes) prefetch(block + kPrefetchAhead<P> + 64 * i);
}

// The same of a tile of activations, four blocks ahead: many tokens' are no longer in a core's own caches.
template <class Tile>
QUERN_INLINE void prefetch_activations(const uint8_t* a, size_t i) {
  constexpr size_t kBlocksAhead = 4;
  if (64 * i < Tile::kBytes) prefetch(a + kBlocksAhead * Tile::kBytes + 64 * i);
}

QUERN_INLINE __m256 broadcast_f32(const uint8_t* p) { return _mm256_castsi256_ps(broadcast4(p)); }

// sum += dot * p, 8 rows in memory.
QUERN_INLINE void add_scaled(Bits dot, __m256 p, float* sum) {
  _mm256_storeu_ps(sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), p, _mm256_loadu_ps(sum)));
}

// All of args' rows but some last ones for kTokens tokens in all, in kStreams runs of panels side by side;
// returns the first row that is left. A core gets more from memory when it reads several places at once.
// Kernel::tile<C, P>(panel, panel_stride, n_blocks, tile, acc) multiplies P panels that lie panel_stride
// bytes apart; acc: [P, C, 16].
template <class Kernel, size_t kTokens, size_t kStreams>
size_t walk_streams(const MatmulArgs& args) noexcept {
  const size_t n_blocks = args.k / Kernel::kBlockWeights, panel_bytes = n_blocks * Kernel::kBlockBytes;
  const auto tile = Kernel::Activations::of(args).tile(0, kTokens, 0);
  const size_t n_panels = (args.row_end - args.row_begin + kPanelRows - 1) / kPanelRows;
  const size_t run = n_panels / kStreams;
  for (size_t i = 0; i < run; ++i) {
    const size_t row = args.row_begin + i * kPanelRows;
    alignas(64) float acc[kStreams * kTokens * kPanelRows] = {};
    Kernel::template tile<kTokens, kStreams>(args.weights + row / kPanelRows * panel_bytes, run * panel_bytes,
                                             n_blocks, tile, acc);
    for (size_t p = 0; p < kStreams; ++p)
      store_panel(args, row + p * run * kPanelRows, 0, kTokens, acc + p * kTokens * kPanelRows);
  }
  return args.row_begin + run * kStreams * kPanelRows;
}

// One or two tokens (Few::kMostTokens): in streams straight from packed codes (one token: Few::kStreams);
// what is left, and more tokens, by the walk. Few: like Kernel, for packed blocks.
template <class Kernel, class Few = Kernel>
void matmul(const MatmulArgs& args) noexcept {
  MatmulArgs rest = args;
  if (args.n_tokens == 1) rest.row_begin = walk_streams<Few, 1, Few::kStreams>(args);
  if constexpr (Few::kMostTokens == 2)
    if (args.n_tokens == 2) rest.row_begin = walk_streams<Few, 2, 2>(args);
  walk_panels<Kernel, kSlabTokens>(rest);
}

}  // namespace
}  // namespace quern::avx2
