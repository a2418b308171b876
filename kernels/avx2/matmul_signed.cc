// Formats of signed codes, whole bytes (Q8_0) or values of a table, and one scale per 32 weights. Lanes as in
// matmul_bytes.cc.
//
// Four tokens: codes and activations as pairs of int16, which vpmaddwd multiplies and adds up exactly. From
// some tokens on the codes are widened once for all of them.
//
// Fewer tokens: vpmaddubsw wants one unsigned operand: |code| * (a with the code's sign). |-128| is 128 as an
// unsigned byte, and 2 * 128 * 127 = 32512 fits in int16, so a single step is exact; two would not be, so
// that every step is widened by vpmaddwd at once. Activations are never -128 (kernel_set.h), whose sign could
// not be turned. That needs no wide codes, but three instructions for a multiplier's two ports where pairs
// need two: 21 multiply-adds a cycle at most on Zen 3 where pairs reach 25 (32 by the ports alone).
#include <iterator>
#include <type_traits>

#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/code_pairs.h"
#include "kernels/avx2/matmul_driver.h"

namespace quern::avx2 {
namespace {

using Q8_0Block = PackedBlock<unpack::Q8_0<Vector8>>;

// The exact sums of a block and C tokens, scaled and added to acc[C][16]. scales: [C] da.
template <class WeightBlock, size_t C>
QUERN_INLINE void add_block(const uint8_t* block, const Bits (*sum)[2], const uint8_t* scales, float* acc) {
  __m256 d[2] = {WeightBlock::scale(block, 0), WeightBlock::scale(block, 1)};
  pin(d[0], d[1]);
  QUERN_UNROLL
  for (size_t t = 0; t < C; ++t) {
    const __m256 da = broadcast_f32(scales + 4 * t);
    QUERN_UNROLL
    for (size_t r = 0; r < 2; ++r)
      add_scaled(sum[t][r], _mm256_mul_ps(d[r], da), acc + kPanelRows * t + 8 * r);
  }
}

// n_blocks blocks of P panels, panel_stride bytes apart, x C tokens, added to acc[P][C][16].
template <class Block, size_t C, size_t P>
QUERN_KERNEL void tile_loop(const uint8_t* block, size_t panel_stride, size_t n_blocks,
                            const TilePosition& at, float* acc) noexcept {
  static_assert(C < kTileTokens);
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
      if constexpr (Block::kPacked) {
        prefetch_weights<P, Block::kBytes>(panel_block, s);
        if (s == 7) prefetch_weights<P, Block::kBytes>(panel_block, 8);
      }
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
    for (size_t p = 0; p < P; ++p)
      add_block<Block, C>(block + p * panel_stride, sum + p * C, a + Tile::kScales, acc + kPanelRows * p * C);
    compiler_fence();
  }
}

// The same of a format with a table, straight from its packed blocks: one or two tokens, for which memory is
// the limit, so that reading never pauses.
template <class Format, size_t C, size_t P>
QUERN_KERNEL void tile_loop_packed(const uint8_t* block, size_t panel_stride, size_t n_blocks,
                                   const TilePosition& at, float* acc) noexcept {
  using Tile = TileBlock<C>;
  constexpr size_t kShare = Format::kBytes / Format::kGroups;
  Bits ones = _mm256_set1_epi16(1);
  pin(ones);
  const uint8_t* a = at.block;
  for (; n_blocks != 0; --n_blocks, block += Format::kBytes) {
    for (size_t g = 0; g < Format::kGroups; ++g, a += Tile::kBytes) {
      for (size_t i = 0; i < 2 * P; ++i) {
        const size_t p = i / 2, r = i % 2;
        const uint8_t* const panel_block = block + p * panel_stride;
        Bits sum[C];
        QUERN_UNROLL
        for (size_t t = 0; t < C; ++t) sum[t] = _mm256_setzero_si256();
        QUERN_UNROLL
        for (size_t j = 0; j < 8; ++j) {
          const size_t s = j / 2 + 4 * (j % 2);  // steps that share their bytes follow each other
          if (64 * (2 * (j / 2)) < kShare && j % 2 == 0)
            prefetch(panel_block + kPrefetchAhead<P> + kShare * g + 128 * (j / 2) + 64 * r);
          const Bits w = Format::codes(panel_block, g, 0, s, r), magnitude = _mm256_abs_epi8(w);
          QUERN_UNROLL
          for (size_t t = 0; t < C; ++t) {
            const Bits four = broadcast4(a + Tile::kStepBytes * s + 4 * t);
            const Bits pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four, w));
            sum[t] = _mm256_add_epi32(sum[t], _mm256_madd_epi16(pairs, ones));
            pin(sum[t]);
          }
        }
        const __m256 d = Format::scale(panel_block, g, r);
        QUERN_UNROLL
        for (size_t t = 0; t < C; ++t)
          add_scaled(sum[t], _mm256_mul_ps(d, broadcast_f32(a + Tile::kScales + 4 * t)),
                     acc + kPanelRows * (p * C + t) + 8 * r);
      }
    }
  }
}

// Two codes in each lane of 16 rows times the two activations at `a`, which every lane gets; added to sum, or
// the first that is in it.
template <bool kFirst>
QUERN_INLINE void add_pairs(const Codes& w, const uint8_t* a, Bits sum[2]) {
  if constexpr (kFirst) {
    Bits t;
    asm("vpbroadcastd %[a], %[t]\n\t"
        "vpmaddwd %[t], %[w0], %[s0]\n\t"
        "vpmaddwd %[t], %[w1], %[s1]"
        : [s0] "=&x"(sum[0]), [s1] "=&x"(sum[1]), [t] "=&x"(t)
        : [w0] "x"(w.rows[0]), [w1] "x"(w.rows[1]), [a] "m"(*reinterpret_cast<const Word*>(a)));
  } else {
    Bits t, p;
    asm("vpbroadcastd %[a], %[t]\n\t"
        "vpmaddwd %[t], %[w0], %[p]\n\t"
        "vpmaddwd %[t], %[w1], %[t]\n\t"
        "vpaddd %[p], %[s0], %[s0]\n\t"
        "vpaddd %[t], %[s1], %[s1]"
        : [s0] "+x"(sum[0]), [s1] "+x"(sum[1]), [t] "=&x"(t), [p] "=&x"(p)
        : [w0] "x"(w.rows[0]), [w1] "x"(w.rows[1]), [a] "m"(*reinterpret_cast<const Word*>(a)));
  }
}

// n_blocks blocks x 4 tokens, added to acc[4][16]. a: of the first block of a pair tile.
template <class WeightBlock>
QUERN_KERNEL void tile_pairs(const uint8_t* block, size_t n_blocks, const uint8_t* a, float* acc) noexcept {
  constexpr size_t C = kTileTokens;
  for (; n_blocks != 0; --n_blocks, block += WeightBlock::kBytes, a += PairBlock::kBytes) {
    Bits sum[C][2];
    QUERN_UNROLL
    for (size_t s = 0; s < 8; ++s) {
      const uint8_t* const step = a + 2 * PairBlock::kStepBytes * s;
      if constexpr (std::is_same_v<WeightBlock, NarrowBlock>) {  // from memory
        prefetch_weights<1, WeightBlock::kBytes>(block, s);
        if (s == 7) prefetch_weights<1, WeightBlock::kBytes>(block, 8);
      }
      prefetch_activations<PairBlock>(a, s);
      const Codes even = WeightBlock::even(block, s);
      QUERN_UNROLL
      for (size_t t = 0; t < C; ++t) {
        if (s == 0)
          add_pairs<true>(even, step + 4 * t, sum[t]);
        else
          add_pairs<false>(even, step + 4 * t, sum[t]);
        pin(sum[t][0], sum[t][1]);
      }
      const Codes odd = WeightBlock::odd(block, s);
      QUERN_UNROLL
      for (size_t t = 0; t < C; ++t) {
        add_pairs<false>(odd, step + PairBlock::kStepBytes + 4 * t, sum[t]);
        pin(sum[t][0], sum[t][1]);
      }
    }
    add_block<WeightBlock, C>(block, sum, a + PairBlock::kScales, acc);
    compiler_fence();
  }
}

struct PairActivations {
  const uint8_t* tiles;  // activation_tiles.h, Q8_0's form
  size_t k;              // of a whole row

  static PairActivations of(const MatmulArgs& args) { return {args.tiles, args.k}; }
  // token is a multiple of kTileTokens, weight one of 32. Tiles of kTileTokens are pair tiles.
  TilePosition tile(size_t token, size_t width, size_t weight) const {
    const size_t group_bytes = (width == kTileTokens ? PairBlock::kTokenBytes : kMainBytes) * width;
    return {tiles + token * (k / 32) * PairBlock::kTokenBytes + weight / 32 * group_bytes, nullptr};
  }
};

// From this many tokens on, widening a chunk once pays for writing and reading the pairs: at 32 tokens it
// costs 5 %, at 512 it gains as much.
constexpr size_t kWidenTokens = 64;

struct Kernel {
  using Activations = PairActivations;
  static constexpr size_t kBlockWeights = 32;
  static constexpr size_t kBlockBytes = Q8_0Block::kBytes;
  static constexpr size_t kStreams = 4, kMostTokens = 2;
  static constexpr size_t kChunkBlocks = 16;  // widened, 17 KB

  template <size_t C, size_t P>
  static void tile(const uint8_t* blocks, size_t panel_stride, size_t n_blocks, const TilePosition& at,
                   float* acc) noexcept {
    if constexpr (C == kTileTokens)
      tile_pairs<NarrowBlock>(blocks, n_blocks, at.block, acc);
    else
      tile_loop<Q8_0Block, C, P>(blocks, panel_stride, n_blocks, at, acc);
  }
  static void accumulate(const uint8_t* blocks, size_t n_blocks, const PairActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    size_t t = 0;
    if (n_tokens >= kWidenTokens) {
      alignas(64) uint8_t wide[kChunkBlocks * WideBlock::kBytes];
      widen_blocks(blocks, n_blocks, wide);
      for (; t + kTileTokens <= n_tokens; t += kTileTokens)
        tile_pairs<WideBlock>(wide, n_blocks, a.tile(token + t, kTileTokens, weight).block,
                              acc + t * kPanelRows);
    }
    for_each_tile<Kernel>(blocks, n_blocks, a, token + t, n_tokens - t, weight, acc + t * kPanelRows);
  }
};

// Codes of a table: looked up once for all tokens, into pairs for tiles of four and into bytes for what is
// left. Below kFewTokens memory sets the pace: block by block, so that reading never pauses for long.
constexpr size_t kFewTokens = 5, kUnpackAhead = 3072;

template <class Format>
struct TableKernel {
  using Activations = PairActivations;
  using Bytes = ByteBlockOf<Format>;
  static constexpr size_t kBlockWeights = 32 * Format::kGroups;
  static constexpr size_t kBlockBytes = Format::kBytes;
  static constexpr size_t kChunkGroups = 16;  // 17 KB of pairs
  static constexpr size_t kChunkBlocks = kChunkGroups / Format::kGroups;

  template <size_t C, size_t P>
  static void tile(const uint8_t* bytes, size_t panel_stride, size_t n_groups, const TilePosition& at,
                   float* acc) noexcept {
    if constexpr (C < kTileTokens) tile_loop<Bytes, C, P>(bytes, panel_stride, n_groups, at, acc);
  }
  static void accumulate(const uint8_t* blocks, size_t n_blocks, const PairActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    alignas(64) uint8_t groups[kChunkGroups * WideBlock::kBytes];
    const size_t whole = n_tokens / kTileTokens * kTileTokens;
    const size_t at_once =
        n_tokens < kFewTokens && n_blocks > 8 / Format::kGroups ? 8 / Format::kGroups : n_blocks;
    for (size_t block = 0; block < n_blocks; block += at_once) {
      const size_t n = n_blocks - block < at_once ? n_blocks - block : at_once;
      const size_t first = weight + block * kBlockWeights;
      const uint8_t* const from = blocks + block * kBlockBytes;
      if (whole != 0) {
        widen_blocks_of<Format>(from, n, groups);
        for (size_t t = 0; t < whole; t += kTileTokens)
          tile_pairs<WideBlock>(groups, n * Format::kGroups, a.tile(token + t, kTileTokens, first).block,
                                acc + t * kPanelRows);
      }
      if (whole == n_tokens) continue;
      unpack_blocks<Format, kUnpackAhead>(from, n, groups);
      for_each_tile<TableKernel>(groups, n * Format::kGroups, a, token + whole, n_tokens - whole, first,
                                 acc + whole * kPanelRows);
    }
  }
};

// The same for one or two tokens.
template <class Format>
struct PackedTable {
  using Activations = PairActivations;
  static constexpr size_t kBlockWeights = 32 * Format::kGroups;
  static constexpr size_t kBlockBytes = Format::kBytes;
  static constexpr size_t kStreams = 2, kMostTokens = 2;

  template <size_t C, size_t P>
  static void tile(const uint8_t* blocks, size_t panel_stride, size_t n_blocks, const TilePosition& at,
                   float* acc) noexcept {
    tile_loop_packed<Format, C, P>(blocks, panel_stride, n_blocks, at, acc);
  }
};

template <template <class> class Unpacker>
void multiply_table(const MatmulArgs& args) noexcept {
  using Format = Unpacker<Vector8>;
  matmul<TableKernel<Format>, PackedTable<Format>>(args);
}

constexpr MatmulKernel kRows[] = {
    {DType::Q8_0, TensorLayout::kPanels, matmul<Kernel>, &kPairTiles},
    {DType::IQ4_NL, TensorLayout::kPanels, multiply_table<unpack::IQ4_NL>, &kPairTiles},
    {DType::IQ4_XS, TensorLayout::kPanels, multiply_table<unpack::IQ4_XS>, &kPairTiles},
};

}  // namespace

constinit const MatmulRows kSignedRows = {kRows, std::size(kRows)};

}  // namespace quern::avx2
