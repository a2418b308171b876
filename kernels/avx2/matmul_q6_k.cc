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

constexpr size_t kPanelBlockBytes = 3360;
constexpr size_t kBlockGroups = 8;

// A group taken apart: 16 f32 scales; twice 16 pairs of int16 (scale, scale), of the first and second 16
// weights; 8 steps of 16 rows x 4 codes.
constexpr size_t kScaleAt = 0, kSubScalesAt = 64, kCodesAt = 192, kGroupBytes = 192 + 512;

// One step of one half: the codes of four groups, 8 rows.
QUERN_INLINE void unpack_step(const uint8_t* step, uint8_t* groups) {
  const Bits nibble = _mm256_set1_epi8(15), pair = _mm256_set1_epi8(48);
  const Bits a = load(step), b = load(step + 64), qh = load(step + 128);
  store(groups,
        _mm256_or_si256(_mm256_and_si256(a, nibble), _mm256_and_si256(_mm256_slli_epi16(qh, 4), pair)));
  store(groups + kGroupBytes,
        _mm256_or_si256(_mm256_and_si256(b, nibble), _mm256_and_si256(_mm256_slli_epi16(qh, 2), pair)));
  store(groups + 2 * kGroupBytes,
        _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(a, 4), nibble), _mm256_and_si256(qh, pair)));
  store(groups + 3 * kGroupBytes, _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(b, 4), nibble),
                                                  _mm256_and_si256(_mm256_srli_epi16(qh, 2), pair)));
}

// groups: [8] groups of kGroupBytes.
QUERN_INLINE void unpack_header(const uint8_t* block, uint8_t* groups) {
  const __m256 d[2] = {load_f16(block), load_f16(block + 16)};
  for (size_t g = 0; g < kBlockGroups; ++g, groups += kGroupBytes) {
    QUERN_UNROLL
    for (size_t r = 0; r < 2; ++r) store(groups + kScaleAt + 32 * r, _mm256_castps_si256(d[r]));
    QUERN_UNROLL
    for (size_t half = 0; half < 2; ++half) {
      const uint8_t* scales = block + 32 + 16 * (2 * g + half);
      const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
      uint8_t* pairs = groups + kSubScalesAt + 64 * half;
      store(pairs, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(x, x)));
      store(pairs + 32, _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(x, x)));
    }
  }
}

QUERN_KERNEL void unpack(const uint8_t* block, size_t n_blocks, uint8_t* groups) noexcept {
  for (; n_blocks != 0; --n_blocks, block += kPanelBlockBytes, groups += kBlockGroups * kGroupBytes) {
    unpack_header(block, groups);
    for (size_t half = 0; half < 2; ++half) {
      for (size_t j = 0; j < 8; ++j) {
        const uint8_t* step = block + 288 + 192 * (8 * half + j);
        uint8_t* codes = groups + 4 * half * kGroupBytes + kCodesAt + 64 * j;
        unpack_step(step, codes);
        unpack_step(step + 32, codes + 32);
      }
    }
  }
}

// dots = sc * sum of (code - 32) * a over one half of a group, 16 rows x N tokens. groups: stride of sums.
template <int N>
QUERN_INLINE void sum_half(const uint8_t* group, size_t half, const int8_t* codes, size_t k,
                           const int16_t* sums, size_t groups, Bits dots[N][2]) {
  Bits sum[N][2];
  QUERN_UNROLL
  for (size_t t = 0; t < N; ++t) {
    const Bits pairs = broadcast4(sums + 4 * groups * t + 2 * half);
    sum[t][0] = sum[t][1] = _mm256_mullo_epi16(pairs, _mm256_set1_epi16(-32));
    pin(sum[t][0], sum[t][1]);
  }
  QUERN_UNROLL
  for (size_t j = 0; j < 4; ++j) {
    const uint8_t* step = group + kCodesAt + 64 * (4 * half + j);
    const Bits w[2] = {load(step), load(step + 32)};
    QUERN_UNROLL
    for (size_t t = 0; t < N; ++t) add_products(w, broadcast4(codes + k * t + 16 * half + 4 * j), sum[t]);
  }
  const uint8_t* pairs = group + kSubScalesAt + 64 * half;
  const Bits scale[2] = {load(pairs), load(pairs + 32)};
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
  for (; n_groups != 0; --n_groups, group += kGroupBytes, codes += 32, scales += 1, sums += 4) {
    Bits first[N][2];  // of four tokens: in memory while the second half is summed
    sum_half<N>(group, 0, codes, k, sums, groups, first);
    Bits second[N][2];
    sum_half<N>(group, 1, codes, k, sums, groups, second);
    const __m256 d[2] = {_mm256_castsi256_ps(load(group + kScaleAt)),
                         _mm256_castsi256_ps(load(group + kScaleAt + 32))};
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
  static constexpr size_t kBlockBytes = kPanelBlockBytes;
  static constexpr size_t kChunkBlocks = 4;  // 22 KB taken apart

  template <int N>
  static void tile(const uint8_t* groups, size_t n_groups, const QuantizedActivations& a,
                   float* acc) noexcept {
    tile_loop<N>(groups, n_groups, a, acc);
  }
  static void accumulate(const uint8_t* blocks, size_t n_blocks, const QuantizedActivations& a,
                         size_t n_tokens, float* acc) noexcept {
    alignas(64) uint8_t groups[kChunkBlocks * kBlockGroups * kGroupBytes];
    const size_t at_once = n_tokens < kManyTokens ? 1 : n_blocks;
    for (size_t block = 0; block < n_blocks; block += at_once) {
      unpack(blocks + block * kBlockBytes, at_once, groups);
      for_each_tile<Kernel>(groups, at_once * kBlockGroups, a.at(0, block * kBlockWeights), n_tokens, acc);
    }
  }
};

}  // namespace

void matmul_q6_k(const MatmulArgs& args) noexcept { walk_panels<Kernel>(args); }

}  // namespace quern::avx2
