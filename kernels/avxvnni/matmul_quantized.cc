// Quantized formats with 256-bit vpdpbusd and 16 registers. How blocks are taken apart is the AVX2 set's
// (kernels/avx2/unpack.h); one tile loop for formats with a scale per 32 weights, one for two scales.
//
// vpdpbusd multiplies four unsigned codes with four signed activations and adds all to an int32 lane, which
// takes three instructions and an int16 that may overflow in the AVX2 set. A sum starts from the bias that
// stands for the codes' offset, so codes stay unsigned and nothing is left to do afterwards; signed codes
// become code + 128.
//
// The float sums of a tile live in L1: 8 registers of sums, 2 of weights, one of activations and the
// constants of the unpacker leave no room for them, and they are used once in 16 vpdpbusd.
#include <iterator>

#include "kernels/avx2/panel_walk.h"
#include "kernels/avx2/unpack.h"
#include "kernels/avxvnni/avxvnni_kernels.h"
#include "kernels/avxvnni/dot4.h"
#include "kernels/unpack/k_quants.h"
#include "kernels/unpack/nibbles.h"
#include "kernels/vnni_tiles.h"

namespace quern::QUERN_AVXVNNI {
namespace {

using avx2::Bits, avx2::Codes, avx2::PackedBlock, avx2::ByteBlockOf, avx2::TwoScalesGroupOf;

struct Vector : avx2::Vector8 {
  static constexpr int kSignedOffset = 128;
};

// Bytes ahead of their use that packed nibbles and the K formats are asked for; Q8_0 is read fast enough
// without. Not measured on a CPU of this kind: what AVX-512 uses for nibbles.
constexpr size_t kPrefetchAhead = 4096;

QUERN_INLINE __m256 broadcast_f32(const uint8_t* p) { return _mm256_castsi256_ps(avx2::broadcast4(p)); }

// acc += dot * (d * da), in memory.
QUERN_INLINE void add_scaled(float* acc, __m256 dot, __m256 d, __m256 da) {
  _mm256_storeu_ps(acc, _mm256_fmadd_ps(dot, _mm256_mul_ps(d, da), _mm256_loadu_ps(acc)));
}

// n_blocks blocks of 16 rows x the N tokens of a tile, added to acc [N][16].
template <class Block, int N>
QUERN_KERNEL void tile_loop(const uint8_t* block, size_t n_blocks, const uint8_t* a, float* acc) noexcept {
  using Tile = TileBlock<N>;
  constexpr int kOffset = Block::kOffset;
  for (; n_blocks != 0; --n_blocks, block += Block::kBytes, a += Tile::kBytes) {
    Bits sum[N][2];
    QUERN_UNROLL
    for (size_t t = 0; t < N; ++t) {
      sum[t][0] = kOffset != 0 ? avx2::broadcast4(a + Tile::bias(kOffset) + 4 * t) : _mm256_setzero_si256();
      sum[t][1] = sum[t][0];
      avx2::pin(sum[t][0], sum[t][1]);
    }
    QUERN_UNROLL
    for (size_t i = 0; i < 8; ++i) {
      const size_t s = i / 2 + 4 * (i % 2);  // steps that share their bytes follow each other
      if constexpr (Block::kPacked && Block::kBytes <= 512)
        if (64 * i < Block::kBytes) prefetch(block + kPrefetchAhead + 64 * i);
      Codes w = Block::codes(block, s);
      avx2::pin(w.rows[0], w.rows[1]);
      QUERN_UNROLL
      for (size_t t = 0; t < N; ++t) {
        const Bits four = avx2::broadcast4(a + 32 * t + 4 * s);
        dot4(sum[t][0], w.rows[0], four);
        dot4(sum[t][1], w.rows[1], four);
        avx2::pin(sum[t][0], sum[t][1]);
      }
    }
    __m256 d[2] = {Block::scale(block, 0), Block::scale(block, 1)};
    avx2::pin(d[0], d[1]);
    QUERN_UNROLL
    for (size_t t = 0; t < N; ++t) {
      const __m256 da = broadcast_f32(a + Tile::kScale + 4 * t);
      QUERN_UNROLL
      for (size_t r = 0; r < 2; ++r)
        add_scaled(acc + 16 * t + 8 * r, _mm256_cvtepi32_ps(sum[t][r]), d[r], da);
    }
    if constexpr (Block::kMinima != 0) {
      QUERN_UNROLL
      for (size_t r = 0; r < 2; ++r) {
        const __m256 m = Block::minimum(block, r);
        QUERN_UNROLL
        for (size_t t = 0; t < N; ++t) {
          float* out = acc + 16 * t + 8 * r;
          const __m256 scaled_sum = broadcast_f32(a + Tile::kScaledSum + 4 * t);
          _mm256_storeu_ps(out, _mm256_fmadd_ps(m, scaled_sum, _mm256_loadu_ps(out)));
        }
      }
    }
    avx2::compiler_fence();
  }
}

// Two scales, taken apart: n_groups groups of 32 weights. Each half of a group has a sum and a sub-scale of
// its own: I = sc0 * I0 + sc1 * I1, in floats, where it is exact as well (|I| < 2^24) and needs half of the
// multiplications that vpmulld is made of. Eight rows at a time: 16 would need 16 registers for their sums.
template <class Group, int N>
QUERN_KERNEL void tile_loop_two_scales(const uint8_t* group, size_t n_groups, const uint8_t* a,
                                       float* acc) noexcept {
  using Tile = TileBlock<N>;
  for (; n_groups != 0; --n_groups, group += Group::kBytes, a += Tile::kBytes) {
    QUERN_UNROLL
    for (size_t r = 0; r < 2; ++r) {
      Bits sum[N][2];
      QUERN_UNROLL
      for (size_t t = 0; t < N; ++t) {
        sum[t][0] = avx2::broadcast4(a + Tile::kBias32Low + 4 * t);
        sum[t][1] = avx2::broadcast4(a + Tile::kBias32High + 4 * t);
        avx2::pin(sum[t][0], sum[t][1]);
      }
      QUERN_UNROLL
      for (size_t s = 0; s < 4; ++s) {
        Bits w[2] = {Group::codes(group, s).rows[r], Group::codes(group, 4 + s).rows[r]};
        avx2::pin(w[0], w[1]);
        QUERN_UNROLL
        for (size_t t = 0; t < N; ++t) {
          dot4(sum[t][0], w[0], avx2::broadcast4(a + 32 * t + 4 * s));
          dot4(sum[t][1], w[1], avx2::broadcast4(a + 32 * t + 16 + 4 * s));
          avx2::pin(sum[t][0], sum[t][1]);
        }
      }
      __m256 scale[2];  // a lane holds its sub-scale twice, in int16
      QUERN_UNROLL
      for (size_t half = 0; half < 2; ++half)
        scale[half] = _mm256_cvtepi32_ps(_mm256_srai_epi32(Group::sub_scales(group, half, r), 16));
      const __m256 d = Group::scale(group, r);
      QUERN_UNROLL
      for (size_t t = 0; t < N; ++t) {
        const __m256 first = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[t][0]), scale[0]);
        const __m256 dot = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[t][1]), scale[1], first);
        const __m256 da = broadcast_f32(a + Tile::kScale + 4 * t);
        add_scaled(acc + 16 * t + 8 * r, dot, d, da);
        if constexpr (Group::kMinima != 0)
          avx2::add_minimum(acc + 16 * t + 8 * r, Group::minimum(group, r), Group::minimum_pairs(group, r),
                            avx2::broadcast4(a + Tile::kHalfSums + 4 * t), da);
      }
      avx2::compiler_fence();
    }
  }
}

// --- the walk ---

// Tokens that see all panels before the next ones come: 8 KB of float sums on the stack, and 1 MB of
// activations of 4096 columns, which an L2 cache of these CPUs holds.
constexpr size_t kSlabTokens = 128;
// From this many tokens on, taking a chunk apart once pays for writing and reading the bytes; as in the AVX2
// set.
template <class Format>
constexpr size_t kUnpackTokens = Format::kBits == 5 ? 9 : 32;
// Blocks of several groups: below this many tokens memory sets the pace, and blocks are taken apart one by
// one, so that reading never pauses for long.
constexpr size_t kManyTokens = 5;

static_assert(kTileTokens == avx2::kWalkTileTokens);

struct TileActivations {
  const uint8_t* tiles;  // of all tokens (vnni_tiles.h)
  size_t groups;         // of a whole row

  static TileActivations of(const MatmulArgs& args) { return {args.tiles, args.k / 32}; }
  // token is a multiple of kTileTokens, weight one of 32.
  const uint8_t* tile(size_t token, size_t width, size_t weight) const {
    return tiles + (token * groups + weight / 32 * width) * kTokenBlockBytes;
  }
};

template <class Block>
struct Tiles {
  template <size_t C, size_t>
  static void tile(const uint8_t* blocks, size_t, size_t n_blocks, const uint8_t* a, float* acc) noexcept {
    tile_loop<Block, C>(blocks, n_blocks, a, acc);
  }
};

// Blocks of one group.
template <class Format>
struct Kernel : Tiles<PackedBlock<Format>> {
  using Activations = TileActivations;
  static constexpr size_t kBlockWeights = 32;
  static constexpr size_t kBlockBytes = Format::kBytes;
  static constexpr size_t kChunkBlocks = 32;  // taken apart, 20 KB

  static void accumulate(const uint8_t* blocks, size_t n_blocks, const TileActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    if (kBlockBytes > 512 || n_tokens < kUnpackTokens<Format>) {
      avx2::for_each_tile<Kernel>(blocks, n_blocks, a, token, n_tokens, weight, acc);
      return;
    }
    alignas(64) uint8_t bytes[kChunkBlocks * ByteBlockOf<Format>::kBytes];
    avx2::unpack_blocks<Format>(blocks, n_blocks, bytes);
    avx2::for_each_tile<Tiles<ByteBlockOf<Format>>>(bytes, n_blocks, a, token, n_tokens, weight, acc);
  }
};

// Blocks of several groups, and tables, taken apart for any number of tokens.
template <class Format>
struct GroupsKernel : Tiles<ByteBlockOf<Format>> {
  using Activations = TileActivations;
  static constexpr size_t kBlockWeights = 32 * Format::kGroups;
  static constexpr size_t kBlockBytes = Format::kBytes;
  static constexpr size_t kChunkBlocks = 32 / Format::kGroups;  // taken apart, 20 KB

  static void accumulate(const uint8_t* blocks, size_t n_blocks, const TileActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    alignas(64) uint8_t bytes[kChunkBlocks * Format::kGroups * ByteBlockOf<Format>::kBytes];
    const size_t at_once = n_tokens < kManyTokens ? 8 / Format::kGroups : n_blocks;
    for (size_t block = 0; block < n_blocks; block += at_once) {
      const size_t n = n_blocks - block < at_once ? n_blocks - block : at_once;
      avx2::unpack_blocks<Format, kPrefetchAhead>(blocks + block * kBlockBytes, n, bytes);
      avx2::for_each_tile<GroupsKernel>(bytes, n * Format::kGroups, a, token, n_tokens,
                                        weight + block * kBlockWeights, acc);
    }
  }
};

template <class Format>
struct TwoScalesKernel {
  using Group = TwoScalesGroupOf<Format>;
  using Activations = TileActivations;
  static constexpr size_t kBlockWeights = 256;
  static constexpr size_t kBlockBytes = Format::kBytes;
  static constexpr size_t kChunkBlocks = 4;  // taken apart, 22 KB

  template <size_t C, size_t>
  static void tile(const uint8_t* groups, size_t, size_t n_groups, const uint8_t* a, float* acc) noexcept {
    tile_loop_two_scales<Group, C>(groups, n_groups, a, acc);
  }
  static void accumulate(const uint8_t* blocks, size_t n_blocks, const TileActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    constexpr size_t kGroups = Format::kGroups;
    alignas(64) uint8_t groups[kChunkBlocks * kGroups * Group::kBytes];
    const size_t at_once = n_tokens < kManyTokens ? 1 : n_blocks;
    for (size_t block = 0; block < n_blocks; block += at_once) {
      avx2::unpack_two_scales<Format, kPrefetchAhead>(blocks + block * kBlockBytes, at_once, groups);
      avx2::for_each_tile<TwoScalesKernel>(groups, at_once * kGroups, a, token, n_tokens,
                                           weight + block * kBlockWeights, acc);
    }
  }
};

template <class K>
void multiply(const MatmulArgs& args) noexcept {
  avx2::walk_panels<K, kSlabTokens>(args);
}

template <template <class> class KernelOf, template <class> class Unpacker>
constexpr MatmulKernel row_of(DType dtype) {
  return {dtype, TensorLayout::kPanels, multiply<KernelOf<Unpacker<Vector>>>, &kTiles};
}

constexpr MatmulKernel kRows[] = {
    row_of<Kernel, unpack::Q4_0>(DType::Q4_0),           row_of<Kernel, unpack::Q4_1>(DType::Q4_1),
    row_of<Kernel, unpack::Q5_0>(DType::Q5_0),           row_of<Kernel, unpack::Q5_1>(DType::Q5_1),
    row_of<Kernel, unpack::Q8_0>(DType::Q8_0),           row_of<TwoScalesKernel, unpack::Q2_K>(DType::Q2_K),
    row_of<TwoScalesKernel, unpack::Q3_K>(DType::Q3_K),  row_of<GroupsKernel, unpack::Q4_K>(DType::Q4_K),
    row_of<GroupsKernel, unpack::Q5_K>(DType::Q5_K),     row_of<TwoScalesKernel, unpack::Q6_K>(DType::Q6_K),
    row_of<GroupsKernel, unpack::IQ4_NL>(DType::IQ4_NL), row_of<GroupsKernel, unpack::IQ4_XS>(DType::IQ4_XS),
    row_of<GroupsKernel, unpack::MXFP4>(DType::MXFP4),   row_of<GroupsKernel, unpack::TQ2_0>(DType::TQ2_0),
};

}  // namespace

constinit const MatmulRows kQuantizedRows = {kRows, std::size(kRows)};

}  // namespace quern::QUERN_AVXVNNI
