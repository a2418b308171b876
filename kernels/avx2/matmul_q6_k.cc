// Q6_K: blocks of 256 codes of 6 bits, 16 signed scales (one for 16 weights) and an f16 scale. Lanes as in
// matmul_nibbles.cc.
//
// A panel block is first taken apart into eight groups of 32 weights with one byte a code, in a buffer that
// stays in L1: the four groups of a half come out of the same bytes, and their sums together would not fit in
// sixteen registers. Per group, the two halves are summed apart in int16: 8 * 32 * 127 = 32512 fits once the
// codes are centred at 32, and sums that start at -32 * sum(a) may wrap on the way (see matmul_nibbles.cc).
// vpmaddwd by the pair (scale, scale) then multiplies and adds in int32: I = sc0 * I0 + sc1 * I1, exact,
// |I| < 2^24.
#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/matmul_driver.h"

namespace quern::avx2 {
namespace {

// dots = sc * sum of (code - 32) * a over one half of a group, 16 rows x N tokens. groups: stride of sums.
template <int N>
QUERN_INLINE void sum_half(const uint8_t* group, size_t half, const int8_t* codes, size_t k,
                           const int16_t* sums, size_t groups, Bits dots[N][2]) {
  Bits sum[N][2];
  QUERN_UNROLL
  for (size_t t = 0; t < N; ++t) {
    const Bits pairs = broadcast4(sums + 4 * groups * t + 2 * half);
    sum[t][0] = sum[t][1] = _mm256_mullo_epi16(pairs, _mm256_set1_epi16(-Q6_K::kOffset));
    pin(sum[t][0], sum[t][1]);
  }
  QUERN_UNROLL
  for (size_t j = 0; j < 4; ++j) {
    const Codes w = Q6KGroup::codes(group, 4 * half + j);
    QUERN_UNROLL
    for (size_t t = 0; t < N; ++t)
      add_products(w.rows, broadcast4(codes + k * t + 16 * half + 4 * j), sum[t]);
  }
  const Bits scale[2] = {Q6KGroup::sub_scales(group, half, 0), Q6KGroup::sub_scales(group, half, 1)};
  QUERN_UNROLL
  for (size_t t = 0; t < N; ++t) {
    QUERN_UNROLL
    for (size_t r = 0; r < 2; ++r) dots[t][r] = _mm256_madd_epi16(sum[t][r], scale[r]);
  }
}

template <int N>
QUERN_KERNEL void tile_loop(const uint8_t* group, size_t n_groups, const QuantizedActivations& a,
                            float* acc) noexcept {
  const int8_t* codes = a.codes;
  const float* scales = a.scales;
  const int16_t* sums = a.sums;
  const size_t k = a.k, groups = a.groups;
  for (; n_groups != 0; --n_groups, group += Q6KGroup::kBytes, codes += 32, scales += 1, sums += 4) {
    Bits first[N][2];  // of four tokens: in memory while the second half is summed
    sum_half<N>(group, 0, codes, k, sums, groups, first);
    Bits second[N][2];
    sum_half<N>(group, 1, codes, k, sums, groups, second);
    const __m256 d[2] = {Q6KGroup::scale(group, 0), Q6KGroup::scale(group, 1)};
    QUERN_UNROLL
    for (size_t t = 0; t < N; ++t) {
      const __m256 da = _mm256_set1_ps(scales[groups * t]);
      QUERN_UNROLL
      for (size_t r = 0; r < 2; ++r) {
        float* out = acc + kPanelRows * t + 8 * r;
        const __m256 dot = _mm256_cvtepi32_ps(_mm256_add_epi32(first[t][r], second[t][r]));
        _mm256_storeu_ps(out, _mm256_fmadd_ps(dot, _mm256_mul_ps(d[r], da), _mm256_loadu_ps(out)));
      }
    }
    compiler_fence();
  }
}

// Below this many tokens, memory sets the pace: blocks are taken apart one by one, so that reading never
// pauses for long (one token, one Zen 4 core: 28 GB/s, four blocks at once 10). Above, fewer and longer
// passes are faster.
constexpr size_t kManyTokens = 5;

struct Kernel {
  using Activations = QuantizedActivations;
  static constexpr size_t kBlockWeights = 256;
  static constexpr size_t kBlockBytes = Q6_K::kBytes;
  static constexpr size_t kChunkBlocks = 4;  // 22 KB taken apart

  template <int N>
  static void tile(const uint8_t* groups, size_t n_groups, const QuantizedActivations& a,
                   float* acc) noexcept {
    tile_loop<N>(groups, n_groups, a, acc);
  }
  static void accumulate(const uint8_t* blocks, size_t n_blocks, const QuantizedActivations& a,
                         size_t n_tokens, float* acc) noexcept {
    alignas(64) uint8_t groups[kChunkBlocks * Q6_K::kGroups * Q6KGroup::kBytes];
    const size_t at_once = n_tokens < kManyTokens ? 1 : n_blocks;
    for (size_t block = 0; block < n_blocks; block += at_once) {
      unpack_q6_k(blocks + block * kBlockBytes, at_once, groups);
      for_each_tile<Kernel>(groups, at_once * Q6_K::kGroups, a.at(0, block * kBlockWeights), n_tokens, acc);
    }
  }
};

}  // namespace

void matmul_q6_k(const MatmulArgs& args) noexcept { walk_panels<Kernel>(args); }

}  // namespace quern::avx2
