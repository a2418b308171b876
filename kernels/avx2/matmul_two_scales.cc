// Formats with a scale for each 16 weights. Lanes as in matmul_bytes.cc.
//
// A panel block is first taken apart into eight groups of 32 weights with one byte a code, in a buffer that
// stays in L1: the four groups of a part come out of the same bytes, and their sums together would not fit in
// sixteen registers. Per group, the two halves are summed apart in int16: 8 * 32 * 127 = 32512 fits once the
// codes are centred at 32, and sums that start at -32 * sum(a) may wrap on the way (see matmul_bytes.cc).
// vpmaddwd by the pair (scale, scale) then multiplies and adds in int32: I = sc0 * I0 + sc1 * I1, exact,
// |I| < 2^24.
#include <iterator>

#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/matmul_driver.h"
#include "kernels/unpack/k_quants.h"

namespace quern::avx2 {
namespace {

// dots = sc * sum of (code - 32) * a over one half of a group, 16 rows x C tokens.
template <class Group, size_t C>
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
    const Codes w = Group::codes(group, s);
    QUERN_UNROLL
    for (size_t t = 0; t < C; ++t) add_products(w, a + Tile::kStepBytes * s + 4 * t, sum[t]);
  }
  const Bits scale[2] = {Group::sub_scales(group, half, 0), Group::sub_scales(group, half, 1)};
  QUERN_UNROLL
  for (size_t t = 0; t < C; ++t) {
    QUERN_UNROLL
    for (size_t r = 0; r < 2; ++r) dots[t][r] = _mm256_madd_epi16(sum[t][r], scale[r]);
  }
}

// n_groups groups x C tokens, added to acc[C][16]. first: a place for the sums of the first halves [C][16],
// which the registers have no room for while the second ones are summed.
template <class Group, size_t C>
QUERN_KERNEL void tile_loop(const uint8_t* group, size_t n_groups, const TilePosition& at, int32_t* first,
                            float* acc) noexcept {
  using Tile = TileBlock<C>;
  const uint8_t *a = at.block, *side = at.side;
  for (; n_groups != 0; --n_groups, group += Group::kBytes, a += Tile::kBytes, side += TileSide<C>::kBytes) {
    Bits dots[C][2];
    sum_half<Group, C>(group, 0, a, side, dots);
    QUERN_UNROLL
    for (size_t i = 0; i < 2 * C; ++i) store(first + 8 * i, dots[i / 2][i % 2]);
    compiler_fence();
    sum_half<Group, C>(group, 1, a, side, dots);
    const __m256 d[2] = {Group::scale(group, 0), Group::scale(group, 1)};
    QUERN_UNROLL
    for (size_t t = 0; t < C; ++t) {
      const __m256 da = broadcast_f32(a + Tile::kScales + 4 * t);
      QUERN_UNROLL
      for (size_t r = 0; r < 2; ++r) {
        const size_t i = kPanelRows * t + 8 * r;
        add_scaled(_mm256_add_epi32(load(first + i), dots[t][r]), _mm256_mul_ps(d[r], da), acc + i);
        if constexpr (Group::kMinima != 0)
          add_minimum(acc + i, Group::minimum(group, r), Group::minimum_pairs(group, r),
                      broadcast4(side + TileSide<C>::kHalfSums + 4 * t), da);
      }
    }
    compiler_fence();
  }
}

// What int16 sums start from, of a row of -32 * sums.
template <class Format>
QUERN_INLINE Bits bias_of(const uint8_t* bias32) {
  static_assert(Format::kOffset == 0 || Format::kOffset == 32);
  return Format::kOffset == 0 ? _mm256_setzero_si256() : broadcast4(bias32);
}

// The same for P panels straight from their packed blocks, added to acc[P][C][16], where memory is the limit:
// 8 rows and one token at a time, for which the sums of a half's four groups fit in registers, so that
// reading never pauses.
template <class Format, size_t C, size_t P>
QUERN_KERNEL void tile_loop_packed(const uint8_t* block, size_t panel_stride, size_t n_blocks,
                                   const TilePosition& at, float* acc) noexcept {
  using Tile = TileBlock<C>;
  using Side = TileSide<C>;
  const uint8_t *a = at.block, *side = at.side;
  constexpr size_t kParts = Format::kGroups / 4, kPartBytes = Format::kBytes / kParts;
  static_assert(Format::kTogether == 4);
  for (; n_blocks != 0; --n_blocks, block += Format::kBytes, a += Format::kGroups * Tile::kBytes,
                        side += Format::kGroups * Side::kBytes) {
    for (size_t i = 0; i < kParts * P * C * 2; ++i) {
      const size_t part = i / (2 * P * C), p = i / (2 * C) % P, t = i / 2 % C, r = i % 2;
      const uint8_t* const panel_block = block + p * panel_stride;
      const uint8_t* const tile = a + 4 * part * Tile::kBytes + 4 * t;
      const uint8_t* const biases = side + 4 * part * Side::kBytes + Side::kBias32 + 4 * t;
      const uint8_t* const ahead = panel_block + kPrefetchAhead<P> + kPartBytes * part + kPartBytes / 2 * r;
      Bits dot[4];
      QUERN_UNROLL
      for (size_t sub = 0; sub < 2; ++sub) {
        Bits sum[4];
        QUERN_UNROLL
        for (size_t g = 0; g < 4; ++g) {
          sum[g] = bias_of<Format>(biases + g * Side::kBytes + 4 * C * sub);
          pin(sum[g]);
        }
        QUERN_UNROLL
        for (size_t s = 4 * sub; s < 4 * sub + 4; ++s) {
          compiler_fence();
          if (t == 0) {
            QUERN_UNROLL_INNER
            for (size_t line = (kPartBytes / 2 * s / 8 + 63) / 64; 64 * line < kPartBytes / 2 * (s + 1) / 8;
                 ++line)
              prefetch(ahead + 64 * line);
          }
          QUERN_UNROLL
          for (size_t g = 0; g < 4; ++g) {
            Bits products = _mm256_maddubs_epi16(Format::codes(panel_block, part, g, s, r),
                                                 broadcast4(tile + g * Tile::kBytes + Tile::kStepBytes * s));
            sum[g] = _mm256_add_epi16(sum[g], products);
            pin(sum[g]);
          }
        }
        QUERN_UNROLL
        for (size_t g = 0; g < 4; ++g) {
          const Bits scaled =
              _mm256_madd_epi16(sum[g], pairs_of(Format::sub_scale(panel_block, 4 * part + g, sub, r)));
          dot[g] = sub == 0 ? scaled : _mm256_add_epi32(dot[g], scaled);
          pin(dot[g]);
        }
      }
      float* const out = acc + kPanelRows * (p * C + t) + 8 * r;
      QUERN_UNROLL
      for (size_t j = 0; j < 4; ++j) {
        const size_t g = 4 * part + j;
        const __m256 da = broadcast_f32(tile + j * Tile::kBytes + Tile::kScales);
        add_scaled(dot[j], _mm256_mul_ps(Format::scale(panel_block, g, r), da), out);
        if constexpr (Format::kMinima != 0)
          add_minimum(out, Format::minimum(panel_block, g, r), minimum_pairs<Format>(panel_block, g, r),
                      broadcast4(side + (4 * part + j) * Side::kBytes + Side::kHalfSums + 4 * t), da);
      }
    }
  }
}

template <class Format>
struct Packed {
  using Activations = QuantizedActivations;
  static constexpr size_t kBlockWeights = 256;
  static constexpr size_t kBlockBytes = Format::kBytes;
  static constexpr size_t kStreams = 2;
  static constexpr size_t kMostTokens = Format::kBits == 2 ? 1 : 2;  // two share what bit pairs cost

  template <size_t C, size_t P>
  static void tile(const uint8_t* blocks, size_t panel_stride, size_t n_blocks, const TilePosition& at,
                   float* acc) noexcept {
    tile_loop_packed<Format, C, P>(blocks, panel_stride, n_blocks, at, acc);
  }
};

// Below this many tokens, memory sets the pace: blocks are taken apart one by one, so that reading never
// pauses for long. Above, fewer and longer passes are faster.
constexpr size_t kManyTokens = 5;
// Taking a block apart and multiplying take turns, so its request is for most of the next block.
constexpr size_t kUnpackAhead = 3072;

template <class Format>
struct Kernel {
  using Activations = QuantizedActivations;
  using Group = TwoScalesGroupOf<Format>;
  static constexpr size_t kBlockWeights = 256;
  static constexpr size_t kBlockBytes = Format::kBytes;
  static constexpr size_t kChunkBlocks = 4;  // 22 KB taken apart

  template <size_t C, size_t>
  static void tile(const uint8_t* groups, size_t, size_t n_groups, const TilePosition& at,
                   float* acc) noexcept {
    alignas(32) int32_t first[C * kPanelRows];
    tile_loop<Group, C>(groups, n_groups, at, first, acc);
  }
  static void accumulate(const uint8_t* blocks, size_t n_blocks, const QuantizedActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    alignas(64) uint8_t groups[kChunkBlocks * Format::kGroups * Group::kBytes];
    const size_t at_once = n_tokens < kManyTokens ? 1 : n_blocks;
    for (size_t block = 0; block < n_blocks; block += at_once) {
      unpack_two_scales<Format, kUnpackAhead>(blocks + block * kBlockBytes, at_once, groups);
      for_each_tile<Kernel>(groups, at_once * Format::kGroups, a, token, n_tokens,
                            weight + block * kBlockWeights, acc);
    }
  }
};

template <template <class> class Unpacker>
void multiply(const MatmulArgs& args) noexcept {
  using Format = Unpacker<Vector8>;
  // Q3_K's masks would not leave the packed loop enough registers.
  if constexpr (Format::kBits == 3)
    walk_panels<Kernel<Format>, kSlabTokens>(args);
  else
    matmul<Kernel<Format>, Packed<Format>>(args);
}

template <template <class> class Unpacker>
constexpr MatmulKernel row_of(DType dtype) {
  return {dtype, TensorLayout::kPanels, multiply<Unpacker>, &kTiles};
}

constexpr MatmulKernel kRows[] = {
    row_of<unpack::Q2_K>(DType::Q2_K),
    row_of<unpack::Q3_K>(DType::Q3_K),
    row_of<unpack::Q6_K>(DType::Q6_K),
};

}  // namespace

constinit const MatmulRows kTwoScalesRows = {kRows, std::size(kRows)};

}  // namespace quern::avx2
