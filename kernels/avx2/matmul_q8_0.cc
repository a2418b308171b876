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

template <int C>
QUERN_KERNEL void tile_loop(const uint8_t* block, size_t n_blocks, const uint8_t* a, float* acc) noexcept {
  using Tile = TileBlock<C>;
  Bits ones = _mm256_set1_epi16(1);
  pin(ones);
  for (; n_blocks != 0; --n_blocks, block += Block::kBytes, a += Tile::kBytes) {
    Bits sum[C][2];
    QUERN_UNROLL
    for (size_t t = 0; t < C; ++t) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
    QUERN_UNROLL
    for (size_t s = 0; s < 8; ++s) {
      prefetch_weights<C, Block::kBytes>(block, s);
      const Codes w = Block::codes(block, s);
      Bits magnitude[2] = {_mm256_abs_epi8(w.rows[0]), _mm256_abs_epi8(w.rows[1])};
      pin(magnitude[0], magnitude[1]);
      QUERN_UNROLL
      for (size_t t = 0; t < C; ++t) {
        Bits four, p;
        asm("vpbroadcastd %[a], %[t]\n\t"
            "vpsignb %[w0], %[t], %[p]\n\t"
            "vpsignb %[w1], %[t], %[t]\n\t"
            "vpmaddubsw %[p], %[m0], %[p]\n\t"
            "vpmaddubsw %[t], %[m1], %[t]\n\t"
            "vpmaddwd %[one], %[p], %[p]\n\t"
            "vpmaddwd %[one], %[t], %[t]\n\t"
            "vpaddd %[p], %[s0], %[s0]\n\t"
            "vpaddd %[t], %[s1], %[s1]"
            : [s0] "+x"(sum[t][0]), [s1] "+x"(sum[t][1]), [t] "=&x"(four), [p] "=&x"(p)
            : [w0] "x"(w.rows[0]), [w1] "x"(w.rows[1]), [m0] "x"(magnitude[0]), [m1] "x"(magnitude[1]),
              [one] "x"(ones), [a] "m"(*reinterpret_cast<const Word*>(a + Tile::kStepBytes * s + 4 * t)));
      }
    }
    prefetch_weights<C, Block::kBytes>(block, 8);
    __m256 d[2] = {Block::scale(block, 0), Block::scale(block, 1)};
    pin(d[0], d[1]);
    QUERN_UNROLL
    for (size_t t = 0; t < C; ++t) {
      const __m256 da = broadcast_f32(a + Tile::kScales + 4 * t);
      QUERN_UNROLL
      for (size_t r = 0; r < 2; ++r)
        add_scaled(sum[t][r], _mm256_mul_ps(d[r], da), acc + kPanelRows * t + 8 * r);
    }
    compiler_fence();
  }
}

struct Kernel {
  using Activations = QuantizedActivations;
  static constexpr size_t kBlockWeights = 32;
  static constexpr size_t kBlockBytes = Block::kBytes;
  static constexpr size_t kChunkBlocks = 32;  // 17 KB

  template <int C>
  static void tile(const uint8_t* blocks, size_t n_blocks, const uint8_t* a, float* acc) noexcept {
    tile_loop<C>(blocks, n_blocks, a, acc);
  }
  static void accumulate(const uint8_t* blocks, size_t n_blocks, const QuantizedActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    for_each_tile<Kernel>(blocks, n_blocks, a, token, n_tokens, weight, acc);
  }
};

}  // namespace

void matmul_q8_0(const MatmulArgs& args) noexcept { walk_panels<Kernel>(args); }

}  // namespace quern::avx2
