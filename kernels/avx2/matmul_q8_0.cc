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

template <int N>
QUERN_KERNEL void tile_loop(const uint8_t* block, size_t n_blocks, const QuantizedActivations& a,
                            float* acc) noexcept {
  const int8_t* codes = a.codes;
  const float* scales = a.scales;
  const size_t k = a.k, groups = a.groups;
  const Bits ones = _mm256_set1_epi16(1);
  for (; n_blocks != 0; --n_blocks, block += Block::kBytes, codes += 32, scales += 1) {
    Bits sum[N][2];
    QUERN_UNROLL
    for (size_t t = 0; t < N; ++t) sum[t][0] = sum[t][1] = _mm256_setzero_si256();
    QUERN_UNROLL
    for (size_t j = 0; j < 8; ++j) {
      const Codes w = Block::codes(block, j);
      Bits magnitude[2] = {_mm256_abs_epi8(w.rows[0]), _mm256_abs_epi8(w.rows[1])};
      pin(magnitude[0], magnitude[1]);
      QUERN_UNROLL
      for (size_t t = 0; t < N; ++t) {
        const Bits four = broadcast4(codes + k * t + 4 * j);
        QUERN_UNROLL
        for (size_t r = 0; r < 2; ++r) {
          const Bits products = _mm256_maddubs_epi16(magnitude[r], _mm256_sign_epi8(four, w.rows[r]));
          sum[t][r] = _mm256_add_epi32(sum[t][r], _mm256_madd_epi16(products, ones));
        }
        pin(sum[t][0], sum[t][1]);
      }
    }
    __m256 d[2] = {Block::scale(block, 0), Block::scale(block, 1)};
    pin(d[0], d[1]);
    QUERN_UNROLL
    for (size_t t = 0; t < N; ++t) {
      const __m256 da = _mm256_set1_ps(scales[groups * t]);
      QUERN_UNROLL
      for (size_t r = 0; r < 2; ++r) {
        float* out = acc + kPanelRows * t + 8 * r;
        const __m256 p = _mm256_mul_ps(d[r], da);
        _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[t][r]), p, _mm256_loadu_ps(out)));
      }
    }
    compiler_fence();
  }
}

struct Kernel {
  using Activations = QuantizedActivations;
  static constexpr size_t kBlockWeights = 32;
  static constexpr size_t kBlockBytes = Block::kBytes;
  static constexpr size_t kChunkBlocks = 32;  // 17 KB

  template <int N>
  static void tile(const uint8_t* blocks, size_t n_blocks, const QuantizedActivations& a,
                   float* acc) noexcept {
    tile_loop<N>(blocks, n_blocks, a, acc);
  }
  static void accumulate(const uint8_t* blocks, size_t n_blocks, const QuantizedActivations& a,
                         size_t n_tokens, float* acc) noexcept {
    for_each_tile<Kernel>(blocks, n_blocks, a, n_tokens, acc);
  }
};

}  // namespace

void matmul_q8_0(const MatmulArgs& args) noexcept { walk_panels<Kernel>(args); }

}  // namespace quern::avx2
