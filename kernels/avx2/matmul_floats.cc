// F32, F16, BF16: panels [k][16 rows]; one chain of fused multiply-adds for every row and token, k ascending.
//
// A chain takes one step in the four cycles of an FMA's latency, so that eight independent ones keep both FMA
// units busy: 16 rows x 4 tokens are eight, and with one or two tokens two panels run side by side.
#include <iterator>

#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/matmul_driver.h"

namespace quern::avx2 {
namespace {

// n_k weights of P panels, panel_stride bytes apart, x N tokens, added to acc[P][N][16].
template <class Weight, size_t N, size_t P>
QUERN_KERNEL void tile_loop(const uint8_t* panel, size_t panel_stride, size_t n_k, const FloatActivations& a,
                            float* acc) noexcept {
  const float* x = a.x;
  const size_t k = a.k;
  __m256 sum[P][N][2];
  QUERN_UNROLL
  for (size_t i = 0; i < P * N * 2; ++i) sum[i / (2 * N)][i / 2 % N][i % 2] = _mm256_loadu_ps(acc + 8 * i);
  for (; n_k != 0; --n_k, panel += kPanelRows * Weight::kBytes, ++x) {
    QUERN_UNROLL
    for (size_t p = 0; p < P; ++p) {
      const uint8_t* w = panel + p * panel_stride;
      const __m256 w0 = Weight::load8(w), w1 = Weight::load8(w + 8 * Weight::kBytes);
      QUERN_UNROLL
      for (size_t t = 0; t < N; ++t) {
        const __m256 value = _mm256_set1_ps(x[k * t]);
        sum[p][t][0] = _mm256_fmadd_ps(w0, value, sum[p][t][0]);
        sum[p][t][1] = _mm256_fmadd_ps(w1, value, sum[p][t][1]);
      }
    }
  }
  QUERN_UNROLL
  for (size_t i = 0; i < P * N * 2; ++i) _mm256_storeu_ps(acc + 8 * i, sum[i / (2 * N)][i / 2 % N][i % 2]);
}

template <class Weight>
struct Kernel {
  using Activations = FloatActivations;
  static constexpr size_t kBlockWeights = 1;
  static constexpr size_t kBlockBytes = kPanelRows * Weight::kBytes;
  static constexpr size_t kStreams = 2, kMostTokens = 2;
  static constexpr size_t kChunkBlocks = 256;  // 16 KB of F32

  template <size_t N, size_t P>
  static void tile(const uint8_t* panel, size_t panel_stride, size_t n_k, const FloatActivations& a,
                   float* acc) noexcept {
    tile_loop<Weight, N, P>(panel, panel_stride, n_k, a, acc);
  }
  static void accumulate(const uint8_t* panel, size_t n_k, const FloatActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    for_each_tile<Kernel>(panel, n_k, a, token, n_tokens, weight, acc);
  }
};

constexpr MatmulKernel kRows[] = {
    {DType::F32, TensorLayout::kPanels, matmul<Kernel<F32>>},
    {DType::F16, TensorLayout::kPanels, matmul<Kernel<F16>>},
    {DType::BF16, TensorLayout::kPanels, matmul<Kernel<BF16>>},
};

}  // namespace

constinit const MatmulRows kFloatRows = {kRows, std::size(kRows)};

}  // namespace quern::avx2
