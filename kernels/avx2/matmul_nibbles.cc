// Q4_0, Q4_1, Q5_0, Q5_1: blocks of 32 unsigned codes of 4 or 5 bits, an f16 scale, perhaps an f16 minimum.
//
// Lanes. A 32-bit lane is one row, its four bytes four consecutive k; 8 rows make a register, 16 rows a
// panel. vpmaddubsw multiplies the row's four codes (unsigned) with four activations (signed) that a
// broadcast from memory has put in every lane, and leaves two int16 sums a row: k % 4 in {0, 1} and k % 4 in
// {2, 3}. All 32 weights of the block are added up in int16, then vpmaddwd adds the pairs into one int32 a
// row.
//
// Why int16 is enough. The exact sum of (code - offset) * a over 16 of the block's weights is at most
// 16 * 8 * 127 (4 bits) or 16 * 16 * 127 = 32512 (5 bits): it fits, and int16 addition is exact modulo 2^16.
// So the sums start at -offset * sum(a), may wrap on the way, and end at the right number. vpmaddubsw itself
// never saturates: 2 * 31 * 127 < 2^15. Codes without an offset fit as they are when they have 4 bits
// (16 * 15 * 127 = 30480); with 5 (Q5_1) the sum is centred at 16 too, and 16 * S is added back in int32.
#include <type_traits>

#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/matmul_driver.h"

namespace quern::avx2 {
namespace {

// What the int16 sums subtract from each code, and what is added again in int32.
template <class Format>
constexpr int16_t kCentre = Format::kBits == 5 ? 16 : Format::kOffset;
template <class Format>
constexpr int16_t kAddBack = kCentre<Format> - Format::kOffset;

// n_blocks blocks of P panels, panel_stride bytes apart, x C tokens, added to acc[P][C][16], which lives in
// L1: the registers are taken.
template <class Block, size_t C, size_t P>
QUERN_KERNEL void tile_loop(const uint8_t* block, size_t panel_stride, size_t n_blocks,
                            const TilePosition& at, float* acc) noexcept {
  using Format = typename Block::Format;
  using Tile = TileBlock<C>;
  using Side = TileSide<C>;
  constexpr bool kPacked = std::is_same_v<Block, PackedBlock<Format>>;
  const uint8_t *a = at.block, *side = at.side;
  for (; n_blocks != 0; --n_blocks, block += Block::kBytes, a += Tile::kBytes, side += Side::kBytes) {
    Bits sum[P * C][2];
    QUERN_UNROLL
    for (size_t i = 0; i < P * C; ++i) {
      Bits bias = _mm256_setzero_si256();
      if constexpr (kCentre<Format> != 0) {
        static_assert(kCentre<Format> == 8 || kCentre<Format> == 16);
        bias = broadcast4(a + Tile::kBias8 + 4 * (i % C));
        if constexpr (kCentre<Format> == 16) bias = _mm256_add_epi16(bias, bias);
      }
      sum[i][0] = sum[i][1] = bias;
      pin(sum[i][0], sum[i][1]);
    }
    QUERN_UNROLL
    for (size_t i = 0; i < 8 * P; ++i) {
      const size_t j = i / (2 * P), p = i / 2 % P, high = i % 2;
      const size_t s = j + 4 * high, nth = 2 * j + high;  // steps that share their bytes follow each other
      const uint8_t* const panel_block = block + p * panel_stride;
      if constexpr (kPacked) {
        prefetch_weights<P, Block::kBytes>(panel_block, nth);
      } else if constexpr (C == kTileTokens) {
        prefetch_activations<Tile>(a, nth);
      }
      const Codes w = Block::codes(panel_block, s);
      QUERN_UNROLL
      for (size_t t = 0; t < C; ++t) add_products(w, a + Tile::kStepBytes * s + 4 * t, sum[p * C + t]);
    }
    QUERN_UNROLL
    for (size_t p = 0; p < P; ++p) {
      const uint8_t* const panel_block = block + p * panel_stride;
      __m256 d[2] = {Block::scale(panel_block, 0), Block::scale(panel_block, 1)};
      pin(d[0], d[1]);
      const Bits ones = _mm256_set1_epi16(1);
      QUERN_UNROLL
      for (size_t t = 0; t < C; ++t) {
        const __m256 da = broadcast_f32(a + Tile::kScales + 4 * t);
        QUERN_UNROLL
        for (size_t r = 0; r < 2; ++r) {
          Bits dot = _mm256_madd_epi16(sum[p * C + t][r], ones);
          if constexpr (kAddBack<Format> != 0) {
            static_assert(kAddBack<Format> == 16);
            dot = _mm256_add_epi32(dot, broadcast4(side + Side::kSums16 + 4 * t));
          }
          float* out = acc + kPanelRows * (p * C + t) + 8 * r;
          __m256 y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(d[r], da), _mm256_loadu_ps(out));
          if constexpr (Block::kHasMin)
            y = _mm256_fmadd_ps(Block::minimum(panel_block, r),
                                broadcast_f32(side + Side::kScaledSums + 4 * t), y);
          _mm256_storeu_ps(out, y);
        }
      }
    }
    compiler_fence();
  }
}

template <class Block>
struct Tiles {
  template <size_t C, size_t P>
  static void tile(const uint8_t* blocks, size_t panel_stride, size_t n_blocks, const TilePosition& at,
                   float* acc) noexcept {
    tile_loop<Block, C, P>(blocks, panel_stride, n_blocks, at, acc);
  }
};

// From this many tokens on, taking a chunk apart once pays for writing and reading the bytes. Zen 3, cycles
// of a block x 4 tokens: Q4_0 58 packed and 53 as bytes, 18 for taking it apart; Q4_1 62, 58, 20; Q5_0 72,
// 54, 23; Q5_1 85, 62, 24. Multiply-adds a cycle, packed / as bytes: 16 tokens of Q4_0 34.9 / 32.8, 32 tokens
// 34.5 / 34.4; 8 tokens of Q5_0 28.3 / 28.0, 16 tokens 28.3 / 32.
template <class Format>
constexpr size_t kUnpackTokens = Format::kBits == 5 ? 9 : 32;

template <class Format>
struct Kernel : Tiles<PackedBlock<Format>> {
  using Activations = QuantizedActivations;
  static constexpr size_t kBlockWeights = 32;
  static constexpr size_t kBlockBytes = Format::kBytes;
  static constexpr size_t kStreams = Format::kMinimaAt != 0 ? 2 : 4;  // minima take registers
  static constexpr size_t kChunkBlocks = 128;

  static void accumulate(const uint8_t* blocks, size_t n_blocks, const QuantizedActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    if (n_tokens < kUnpackTokens<Format>) {
      for_each_tile<Kernel>(blocks, n_blocks, a, token, n_tokens, weight, acc);
      return;
    }
    alignas(64) uint8_t bytes[kChunkBlocks * ByteBlock<Format>::kBytes];
    unpack_blocks<Format>(blocks, n_blocks, bytes);
    for_each_tile<Tiles<ByteBlock<Format>>>(bytes, n_blocks, a, token, n_tokens, weight, acc);
  }
};

}  // namespace

void matmul_q4_0(const MatmulArgs& args) noexcept { matmul<Kernel<Q4_0>>(args); }
void matmul_q4_1(const MatmulArgs& args) noexcept { matmul<Kernel<Q4_1>>(args); }
void matmul_q5_0(const MatmulArgs& args) noexcept { matmul<Kernel<Q5_0>>(args); }
void matmul_q5_1(const MatmulArgs& args) noexcept { matmul<Kernel<Q5_1>>(args); }

}  // namespace quern::avx2
