// Q8_0: blocks of 32 signed codes and an f16 scale. Lanes as in matmul_nibbles.cc.
//
// vpmaddubsw wants one unsigned operand: |code| * (a with the code's sign). |-128| is 128 as an unsigned
// byte, and 2 * 128 * 127 = 32512 fits in int16, so a single step is exact; two would not be, so that every
// step is widened by vpmaddwd at once. Activations are never -128 (kernel_set.h), whose sign could not be
// turned.
#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/matmul_driver.h"

namespace quern::avx2 {
namespace {

using Block = PackedBlock<Q8_0>;

// n_blocks blocks of P panels, panel_stride bytes apart, x C tokens, added to acc[P][C][16].
template <size_t C, size_t P>
QUERN_KERNEL void tile_loop(const uint8_t* block, size_t panel_stride, size_t n_blocks,
                            const TilePosition& at, float* acc) noexcept {
  using Tile = TileBlock<C>;
  Bits ones = _mm256_set1_epi16(1);
  pin(ones);
  const uint8_t* a = at.block;
  for (; n_blocks != 0; --n_blocks, block += Block::kBytes, a += Tile::kBytes) {
    Bits sum[P * C][2];
    QUERN_UNROLL
    for (size_t i = 0; i < P * C; ++i) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    QUERN_UNROLL
    for (size_t i = 0; i < 8 * P; ++i) {
      const size_t s = i / P, p = i % P;
      const uint8_t* const panel_block = block + p * panel_stride;
      prefetch_weights<P, Block::kBytes>(panel_block, s);
      if (s == 7) prefetch_weights<P, Block::kBytes>(panel_block, 8);
      if constexpr (C == kTileTokens) prefetch_activations<Tile>(a, s);
      const Codes w = Block::codes(panel_block, s);
      Bits magnitude[2] = {_mm256_abs_epi8(w.rows[0]), _mm256_abs_epi8(w.rows[1])};
      pin(magnitude[0], magnitude[1]);
      QUERN_UNROLL
      for (size_t t = 0; t < C; ++t) {
        Bits four, product;
        asm("vpbroadcastd %[a], %[t]\n\t"
            "vpsignb %[w0], %[t], %[p]\n\t"
            "vpsignb %[w1], %[t], %[t]\n\t"
            "vpmaddubsw %[p], %[m0], %[p]\n\t"
            "vpmaddubsw %[t], %[m1], %[t]\n\t"
            "vpmaddwd %[one], %[p], %[p]\n\t"
            "vpmaddwd %[one], %[t], %[t]\n\t"
            "vpaddd %[p], %[s0], %[s0]\n\t"
            "vpaddd %[t], %[s1], %[s1]"
            : [s0] "+x"(sum[p * C + t][0]), [s1] "+x"(sum[p * C + t][1]), [t] "=&x"(four), [p] "=&x"(product)
            : [w0] "x"(w.rows[0]), [w1] "x"(w.rows[1]), [m0] "x"(magnitude[0]), [m1] "x"(magnitude[1]),
              [one] "x"(ones), [a] "m"(*reinterpret_cast<const Word*>(a + Tile::kStepBytes * s + 4 * t)));
      }
    }
    QUERN_UNROLL
    for (size_t p = 0; p < P; ++p) {
      const uint8_t* const panel_block = block + p * panel_stride;
      __m256 d[2] = {Block::scale(panel_block, 0), Block::scale(panel_block, 1)};
      pin(d[0], d[1]);
      QUERN_UNROLL
      for (size_t t = 0; t < C; ++t) {
        const __m256 da = broadcast_f32(a + Tile::kScales + 4 * t);
        QUERN_UNROLL
        for (size_t r = 0; r < 2; ++r)
          add_scaled(sum[p * C + t][r], _mm256_mul_ps(d[r], da), acc + kPanelRows * (p * C + t) + 8 * r);
      }
    }
    compiler_fence();
  }
}

struct Kernel {
  using Activations = QuantizedActivations;
  static constexpr size_t kBlockWeights = 32;
  static constexpr size_t kBlockBytes = Block::kBytes;
  static constexpr size_t kStreams = 4;
  static constexpr size_t kChunkBlocks = 32;  // 17 KB

  template <size_t C, size_t P>
  static void tile(const uint8_t* blocks, size_t panel_stride, size_t n_blocks, const TilePosition& at,
                   float* acc) noexcept {
    tile_loop<C, P>(blocks, panel_stride, n_blocks, at, acc);
  }
  static void accumulate(const uint8_t* blocks, size_t n_blocks, const QuantizedActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    for_each_tile<Kernel>(blocks, n_blocks, a, token, n_tokens, weight, acc);
  }
};

}  // namespace

void matmul_q8_0(const MatmulArgs& args) noexcept { matmul<Kernel>(args); }

}  // namespace quern::avx2
