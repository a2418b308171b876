// Formats with one scale, perhaps a minimum, per 32 weights, and unsigned codes of 4 or 5 bits.
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
#include <iterator>

#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/matmul_driver.h"
#include "kernels/unpack/k_quants.h"
#include "kernels/unpack/nibbles.h"

namespace quern::avx2 {
namespace {

// What the int16 sums subtract from each code, and what is added again in int32.
template <class Block>
constexpr int kCentre = Block::kOffset == 0 && Block::kBits == 5 ? 16 : Block::kOffset;
template <class Block>
constexpr int kAddBack = kCentre<Block> - Block::kOffset;

// What int16 sums start from, of -8 * sums.
template <class Block>
QUERN_INLINE Bits bias_of(const uint8_t* bias8) {
  static_assert(kCentre<Block> == 0 || kCentre<Block> == 8 || kCentre<Block> == 12 || kCentre<Block> == 16);
  if constexpr (kCentre<Block> == 0) return _mm256_setzero_si256();
  const Bits bias = broadcast4(bias8);
  if constexpr (kCentre<Block> == 12) return _mm256_add_epi16(bias, _mm256_srai_epi16(bias, 1));
  return kCentre<Block> == 16 ? _mm256_add_epi16(bias, bias) : bias;
}

// n_blocks blocks of P panels, panel_stride bytes apart, x C tokens, added to acc[P][C][16], which lives in
// L1: the registers are taken.
template <class Block, size_t C, size_t P>
QUERN_KERNEL void tile_loop(const uint8_t* block, size_t panel_stride, size_t n_blocks,
                            const TilePosition& at, float* acc) noexcept {
  using Tile = TileBlock<C>;
  using Side = TileSide<C>;
  const uint8_t *a = at.block, *side = at.side;
  for (; n_blocks != 0; --n_blocks, block += Block::kBytes, a += Tile::kBytes, side += Side::kBytes) {
    Bits sum[P * C][2];
    QUERN_UNROLL
    for (size_t i = 0; i < P * C; ++i) {
      sum[i][0] = sum[i][1] = bias_of<Block>(a + Tile::kBias8 + 4 * (i % C));
      pin(sum[i][0], sum[i][1]);
    }
    QUERN_UNROLL
    for (size_t i = 0; i < 8 * P; ++i) {
      const size_t j = i / (2 * P), p = i / 2 % P, high = i % 2;
      const size_t s = j + 4 * high, nth = 2 * j + high;  // steps that share their bytes follow each other
      const uint8_t* const panel_block = block + p * panel_stride;
      if constexpr (Block::kPacked) {
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
          if constexpr (kAddBack<Block> != 0) {
            static_assert(kAddBack<Block> == 16);
            dot = _mm256_add_epi32(dot, broadcast4(side + Side::kSums16 + 4 * t));
          }
          float* out = acc + kPanelRows * (p * C + t) + 8 * r;
          __m256 y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(d[r], da), _mm256_loadu_ps(out));
          if constexpr (Block::kMinima != 0)
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
  static constexpr size_t kStreams = Format::kMinima != 0 ? 2 : 4;  // minima take registers
  static constexpr size_t kMostTokens = 2;
  static constexpr size_t kChunkBlocks = 128;

  static void accumulate(const uint8_t* blocks, size_t n_blocks, const QuantizedActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    if (n_tokens < kUnpackTokens<Format>) {
      for_each_tile<Kernel>(blocks, n_blocks, a, token, n_tokens, weight, acc);
      return;
    }
    alignas(64) uint8_t bytes[kChunkBlocks * ByteBlockOf<Format>::kBytes];
    unpack_blocks<Format>(blocks, n_blocks, bytes);
    for_each_tile<Tiles<ByteBlockOf<Format>>>(bytes, n_blocks, a, token, n_tokens, weight, acc);
  }
};

// One or two tokens x P panels of a format whose groups come out together, added to acc[P][C][16], where
// memory is the limit: 8 rows and one token at a time, for which the sums of up to four groups fit in
// registers, so that reading never pauses.
template <class Format, size_t C, size_t P>
QUERN_KERNEL void tile_loop_packed(const uint8_t* block, size_t panel_stride, size_t n_blocks,
                                   const TilePosition& at, float* acc) noexcept {
  using Tile = TileBlock<C>;
  using Side = TileSide<C>;
  constexpr size_t kTogether = Format::kTogether, kAtOnce = kTogether < 4 ? kTogether : 4,
                   kParts = Format::kGroups / kTogether, kPartBytes = Format::kBytes / kParts;
  const uint8_t *a = at.block, *side = at.side;
  for (; n_blocks != 0; --n_blocks, block += Format::kBytes, a += Format::kGroups * Tile::kBytes,
                        side += Format::kGroups * Side::kBytes) {
    for (size_t i = 0; i < kParts * P * C * 2; ++i) {
      const size_t part = i / (2 * P * C), p = i / (2 * C) % P, t = i / 2 % C, r = i % 2;
      const uint8_t* const panel_block = block + p * panel_stride;
      const uint8_t* const ahead = panel_block + kPrefetchAhead<P> + kPartBytes * part + kPartBytes / 2 * r;
      float* const out = acc + kPanelRows * (p * C + t) + 8 * r;
      QUERN_UNROLL
      for (size_t first = 0; first < kTogether; first += kAtOnce) {
        const size_t group = kTogether * part + first;
        const uint8_t* const tile = a + group * Tile::kBytes + 4 * t;
        const uint8_t* const sides = side + group * Side::kBytes + 4 * t;
        Bits sum[kAtOnce];
        QUERN_UNROLL
        for (size_t j = 0; j < kAtOnce; ++j) {
          sum[j] = bias_of<Format>(tile + j * Tile::kBytes + Tile::kBias8);
          pin(sum[j]);
        }
        QUERN_UNROLL
        for (size_t s = 0; s < 8; ++s) {
          compiler_fence();
          if (t == 0 && first == 0) {
            QUERN_UNROLL_INNER
            for (size_t line = (kPartBytes / 2 * s / 8 + 63) / 64; 64 * line < kPartBytes / 2 * (s + 1) / 8;
                 ++line)
              prefetch(ahead + 64 * line);
          }
          QUERN_UNROLL
          for (size_t j = 0; j < kAtOnce; ++j) {
            const Bits products =
                _mm256_maddubs_epi16(Format::codes(panel_block, part, first + j, s, r),
                                     broadcast4(tile + j * Tile::kBytes + Tile::kStepBytes * s));
            sum[j] = _mm256_add_epi16(sum[j], products);
            pin(sum[j]);
          }
        }
        __m256 y = _mm256_loadu_ps(out);
        QUERN_UNROLL
        for (size_t j = 0; j < kAtOnce; ++j) {
          Bits dot = _mm256_madd_epi16(sum[j], _mm256_set1_epi16(1));
          if constexpr (kAddBack<Format> != 0)
            dot = _mm256_add_epi32(dot, broadcast4(sides + j * Side::kBytes + Side::kSums16));
          const __m256 da = broadcast_f32(tile + j * Tile::kBytes + Tile::kScales);
          y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot),
                              _mm256_mul_ps(Format::scale(panel_block, group + j, r), da), y);
          if constexpr (Format::kMinima != 0)
            y = _mm256_fmadd_ps(Format::minimum(panel_block, group + j, r),
                                broadcast_f32(sides + j * Side::kBytes + Side::kScaledSums), y);
        }
        _mm256_storeu_ps(out, y);
      }
    }
  }
}

// Blocks of several groups, and tables, whose look-up takes registers, are taken apart for more tokens. Below
// kManyTokens memory sets the pace: block by block, so that reading never pauses for long. The request is for
// most of the next block.
constexpr size_t kManyTokens = 5;
constexpr size_t kUnpackAhead = 3072;

template <class Format>
struct GroupsKernel : Tiles<ByteBlockOf<Format>> {
  using Activations = QuantizedActivations;
  static constexpr size_t kBlockWeights = 32 * Format::kGroups;
  static constexpr size_t kBlockBytes = Format::kBytes;
  static constexpr size_t kChunkBlocks = 128 / Format::kGroups;

  static void accumulate(const uint8_t* blocks, size_t n_blocks, const QuantizedActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    alignas(64) uint8_t bytes[kChunkBlocks * Format::kGroups * ByteBlockOf<Format>::kBytes];
    const size_t at_once = n_tokens < kManyTokens ? 8 / Format::kGroups : n_blocks;
    for (size_t block = 0; block < n_blocks; block += at_once) {
      const size_t n = n_blocks - block < at_once ? n_blocks - block : at_once;
      unpack_blocks<Format, kUnpackAhead>(blocks + block * kBlockBytes, n, bytes);
      for_each_tile<GroupsKernel>(bytes, n * Format::kGroups, a, token, n_tokens,
                                  weight + block * kBlockWeights, acc);
    }
  }
};

// The same for one or two tokens.
template <class Format>
struct Packed {
  using Activations = QuantizedActivations;
  static constexpr size_t kBlockWeights = 32 * Format::kGroups;
  static constexpr size_t kBlockBytes = Format::kBytes;
  static constexpr size_t kStreams = 2;
  static constexpr size_t kMostTokens = Format::kTogether == 4 ? 1 : 2;  // two share what bit pairs cost

  template <size_t C, size_t P>
  static void tile(const uint8_t* blocks, size_t panel_stride, size_t n_blocks, const TilePosition& at,
                   float* acc) noexcept {
    if constexpr (Format::kGroups > 1)
      tile_loop_packed<Format, C, P>(blocks, panel_stride, n_blocks, at, acc);
    else
      tile_loop<PackedBlock<Format>, C, P>(blocks, panel_stride, n_blocks, at, acc);
  }
};

template <template <class> class Unpacker>
void multiply(const MatmulArgs& args) noexcept {
  using Format = Unpacker<Vector8>;
  if constexpr (Format::kGroups > 1 || Format::kTable)
    matmul<GroupsKernel<Format>, Packed<Format>>(args);
  else
    matmul<Kernel<Format>>(args);
}

template <template <class> class Unpacker>
constexpr MatmulKernel row_of(DType dtype) {
  return {dtype, TensorLayout::kPanels, multiply<Unpacker>, &kTiles};
}

constexpr MatmulKernel kRows[] = {
    row_of<unpack::Q4_0>(DType::Q4_0),   row_of<unpack::Q4_1>(DType::Q4_1),
    row_of<unpack::Q5_0>(DType::Q5_0),   row_of<unpack::Q5_1>(DType::Q5_1),
    row_of<unpack::Q4_K>(DType::Q4_K),   row_of<unpack::Q5_K>(DType::Q5_K),
    row_of<unpack::MXFP4>(DType::MXFP4), row_of<unpack::TQ2_0>(DType::TQ2_0),
};

}  // namespace

constinit const MatmulRows kByteRows = {kRows, std::size(kRows)};

}  // namespace quern::avx2
