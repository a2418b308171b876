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

// dots = sc * sum of (code - 32) * a over one half of a group, 16 rows x C tokens.
template <size_t C>
QUERN_INLINE void sum_half(const uint8_t* group, size_t half, const uint8_t* a, const uint8_t* side,
                           Bits dots[C][2]) {
  using Tile = TileBlock<C>;
  Bits sum[C][2];
  QUERN_UNROLL
  for (size_t t = 0; t < C; ++t) {
    sum[t][0] = sum[t][1] = broadcast4(side + TileSide<C>::kBias32 + 4 * C * half + 4 * t);
    pin(sum[t][0], sum[t][1]);
  }
  QUERN_UNROLL
  for (size_t s = 4 * half; s < 4 * half + 4; ++s) {
    const Codes w = Q6KGroup::codes(group, s);
    QUERN_UNROLL
    for (size_t t = 0; t < C; ++t) add_products(w, a + Tile::kStepBytes * s + 4 * t, sum[t]);
  }
  const Bits scale[2] = {Q6KGroup::sub_scales(group, half, 0), Q6KGroup::sub_scales(group, half, 1)};
  QUERN_UNROLL
  for (size_t t = 0; t < C; ++t) {
    QUERN_UNROLL
    for (size_t r = 0; r < 2; ++r) dots[t][r] = _mm256_madd_epi16(sum[t][r], scale[r]);
  }
}

// n_groups groups x C tokens, added to acc[C][16]. first: a place for the sums of the first halves [C][16],
// which the registers have no room for while the second ones are summed.
template <size_t C>
QUERN_KERNEL void tile_loop(const uint8_t* group, size_t n_groups, const TilePosition& at, int32_t* first,
                            float* acc) noexcept {
  using Tile = TileBlock<C>;
  const uint8_t *a = at.block, *side = at.side;
  for (; n_groups != 0;
       --n_groups, group += Q6KGroup::kBytes, a += Tile::kBytes, side += TileSide<C>::kBytes) {
    Bits dots[C][2];
    sum_half<C>(group, 0, a, side, dots);
    QUERN_UNROLL
    for (size_t i = 0; i < 2 * C; ++i) store(first + 8 * i, dots[i / 2][i % 2]);
    compiler_fence();
    sum_half<C>(group, 1, a, side, dots);
    const __m256 d[2] = {Q6KGroup::scale(group, 0), Q6KGroup::scale(group, 1)};
    QUERN_UNROLL
    for (size_t t = 0; t < C; ++t) {
      const __m256 da = broadcast_f32(a + Tile::kScales + 4 * t);
      QUERN_UNROLL
      for (size_t r = 0; r < 2; ++r) {
        const size_t i = kPanelRows * t + 8 * r;
        add_scaled(_mm256_add_epi32(load(first + i), dots[t][r]), _mm256_mul_ps(d[r], da), acc + i);
      }
    }
    compiler_fence();
  }
}

// The same for P panels straight from their packed blocks, added to acc[P][C][16], where memory is the limit:
// 8 rows and one token at a time, for which the sums of a half's four groups fit in registers, so that
// reading never pauses.
template <size_t C, size_t P>
QUERN_KERNEL void tile_loop_packed(const uint8_t* block, size_t panel_stride, size_t n_blocks,
                                   const TilePosition& at, float* acc) noexcept {
  using Tile = TileBlock<C>;
  using Side = TileSide<C>;
  const uint8_t *a = at.block, *side = at.side;
  for (; n_blocks != 0; --n_blocks, block += Q6_K::kBytes, a += Q6_K::kGroups * Tile::kBytes,
                        side += Q6_K::kGroups * Side::kBytes) {
    for (size_t i = 0; i < 2 * P * C * 2; ++i) {
      const size_t half = i / (2 * P * C), p = i / (2 * C) % P, t = i / 2 % C, r = i % 2;
      const uint8_t* const panel_block = block + p * panel_stride;
      const uint8_t* const steps = q6_k_step(panel_block, half, 0) + 32 * r;
      const uint8_t* const tile = a + 4 * half * Tile::kBytes + 4 * t;
      const uint8_t* const biases = side + 4 * half * Side::kBytes + Side::kBias32 + 4 * t;
      const uint8_t* const ahead = steps + kPrefetchAhead<P> + 768 * r;
      Bits dot[4];
      QUERN_UNROLL
      for (size_t sub = 0; sub < 2; ++sub) {
        Bits sum[4];
        QUERN_UNROLL
        for (size_t g = 0; g < 4; ++g) {
          sum[g] = broadcast4(biases + g * Side::kBytes + 4 * C * sub);
          pin(sum[g]);
        }
        QUERN_UNROLL
        for (size_t s = 4 * sub; s < 4 * sub + 4; ++s) {
          compiler_fence();
          if (t == 0) {
            prefetch(ahead + 96 * s);
            if (s % 2 == 0) prefetch(ahead + 96 * s + 64);
          }
          QUERN_UNROLL
          for (size_t g = 0; g < 4; ++g) {
            Bits products = _mm256_maddubs_epi16(q6_k_codes(steps + Q6_K::kStepBytes * s, g),
                                                 broadcast4(tile + g * Tile::kBytes + Tile::kStepBytes * s));
            sum[g] = _mm256_add_epi16(sum[g], products);
            pin(sum[g]);
          }
        }
        QUERN_UNROLL
        for (size_t g = 0; g < 4; ++g) {
          const Bits scaled =
              _mm256_madd_epi16(sum[g], q6_k_sub_scales(panel_block, 2 * (4 * half + g) + sub, r));
          dot[g] = sub == 0 ? scaled : _mm256_add_epi32(dot[g], scaled);
          pin(dot[g]);
        }
      }
      const __m256 d = load_f16(panel_block + 16 * r);
      float* const out = acc + kPanelRows * (p * C + t) + 8 * r;
      QUERN_UNROLL
      for (size_t g = 0; g < 4; ++g)
        add_scaled(dot[g], _mm256_mul_ps(d, broadcast_f32(tile + g * Tile::kBytes + Tile::kScales)), out);
    }
  }
}

struct Packed {
  using Activations = QuantizedActivations;
  static constexpr size_t kBlockWeights = 256;
  static constexpr size_t kBlockBytes = Q6_K::kBytes;
  static constexpr size_t kStreams = 2;

  template <size_t C, size_t P>
  static void tile(const uint8_t* blocks, size_t panel_stride, size_t n_blocks, const TilePosition& at,
                   float* acc) noexcept {
    tile_loop_packed<C, P>(blocks, panel_stride, n_blocks, at, acc);
  }
};

// Below this many tokens, memory sets the pace: blocks are taken apart one by one, so that reading never
// pauses for long. Above, fewer and longer passes are faster.
constexpr size_t kManyTokens = 5;
// Taking a block apart and multiplying take turns, so its request is for most of the next block.
constexpr size_t kUnpackAhead = 3072;

struct Kernel {
  using Activations = QuantizedActivations;
  static constexpr size_t kBlockWeights = 256;
  static constexpr size_t kBlockBytes = Q6_K::kBytes;
  static constexpr size_t kChunkBlocks = 4;  // 22 KB taken apart

  template <size_t C, size_t>
  static void tile(const uint8_t* groups, size_t, size_t n_groups, const TilePosition& at,
                   float* acc) noexcept {
    alignas(32) int32_t first[C * kPanelRows];
    tile_loop<C>(groups, n_groups, at, first, acc);
  }
  static void accumulate(const uint8_t* blocks, size_t n_blocks, const QuantizedActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    alignas(64) uint8_t groups[kChunkBlocks * Q6_K::kGroups * Q6KGroup::kBytes];
    const size_t at_once = n_tokens < kManyTokens ? 1 : n_blocks;
    for (size_t block = 0; block < n_blocks; block += at_once) {
      unpack_q6_k<kUnpackAhead>(blocks + block * kBlockBytes, at_once, groups);
      for_each_tile<Kernel>(groups, at_once * Q6_K::kGroups, a, token, n_tokens,
                            weight + block * kBlockWeights, acc);
    }
  }
};

}  // namespace

void matmul_q6_k(const MatmulArgs& args) noexcept { matmul<Kernel, Packed>(args); }

}  // namespace quern::avx2
