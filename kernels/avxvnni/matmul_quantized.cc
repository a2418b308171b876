// Quantized formats with 256-bit vpdpbusd and 16 registers. Unpackers are the AVX2 set's (kernels/avx2/
// unpack.h, which explains the lanes); one tile loop for formats with a scale per 32 weights, one for Q6_K.
//
// vpdpbusd multiplies four unsigned codes with four signed activations and adds all to an int32 lane, which
// takes three instructions and an int16 that may overflow in the AVX2 set. A sum starts from the bias that
// stands for the codes' offset, so codes stay unsigned and nothing is left to do afterwards; the signed codes
// of Q8_0 become code + 128 by flipping a bit.
//
// The float sums of a tile live in L1: 8 registers of sums, 2 of weights, one of activations and the
// constants of the unpacker leave no room for them, and they are used once in 16 vpdpbusd.
#include <type_traits>

#include "kernels/avx2/panel_walk.h"
#include "kernels/avx2/unpack.h"
#include "kernels/avxvnni/avxvnni_kernels.h"
#include "kernels/avxvnni/dot4.h"
#include "kernels/vnni_tiles.h"

namespace quern::QUERN_AVXVNNI {
namespace {

using avx2::Bits, avx2::Codes, avx2::PackedBlock, avx2::ByteBlock, avx2::Q6KGroup;

// The row of a TileBlock that a format's sums start from; 0: they start from zero.
template <class Format, int N>
constexpr size_t bias_row() {
  if (Format::kBits == 8) return TileBlock<N>::kBias128;
  if (Format::kOffset == 8) return TileBlock<N>::kBias8;
  if (Format::kOffset == 16) return TileBlock<N>::kBias16;
  return 0;
}

// Bytes ahead of their use that packed nibbles and Q6_K are asked for; Q8_0 is read fast enough without. Not
// measured on a CPU of this kind: what AVX-512 uses for nibbles.
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
  using Format = typename Block::Format;
  constexpr size_t kBias = bias_row<Format, N>();
  for (; n_blocks != 0; --n_blocks, block += Block::kBytes, a += Tile::kBytes) {
    Bits sum[N][2];
    QUERN_UNROLL
    for (size_t t = 0; t < N; ++t) {
      sum[t][0] = kBias != 0 ? avx2::broadcast4(a + kBias + 4 * t) : _mm256_setzero_si256();
      sum[t][1] = sum[t][0];
      avx2::pin(sum[t][0], sum[t][1]);
    }
    QUERN_UNROLL
    for (size_t i = 0; i < 8; ++i) {
      const size_t s = i / 2 + 4 * (i % 2);  // steps that share their bytes follow each other
      if constexpr (std::is_same_v<Block, PackedBlock<Format>> && Format::kBits != 8)
        if (64 * i < Block::kBytes) prefetch(block + kPrefetchAhead + 64 * i);
      Codes w = Block::codes(block, s);
      if constexpr (Format::kBits == 8) {
        const Bits flip = _mm256_set1_epi8(static_cast<char>(0x80));
        w = {{_mm256_xor_si256(w.rows[0], flip), _mm256_xor_si256(w.rows[1], flip)}};
      }
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
    if constexpr (Block::kHasMin) {
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

// Q6_K, taken apart: n_groups groups of 32 weights. Each half of a group has a sum and a sub-scale of its
// own: I = sc0 * I0 + sc1 * I1, in floats, where it is exact as well (|I| < 2^24) and needs half of the
// multiplications that vpmulld is made of. Eight rows at a time: 16 would need 16 registers for their sums.
template <int N>
QUERN_KERNEL void tile_loop_q6_k(const uint8_t* group, size_t n_groups, const uint8_t* a,
                                 float* acc) noexcept {
  using Tile = TileBlock<N>;
  for (; n_groups != 0; --n_groups, group += Q6KGroup::kBytes, a += Tile::kBytes) {
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
        Bits w[2] = {Q6KGroup::codes(group, s).rows[r], Q6KGroup::codes(group, 4 + s).rows[r]};
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
        scale[half] = _mm256_cvtepi32_ps(_mm256_srai_epi32(Q6KGroup::sub_scales(group, half, r), 16));
      const __m256 d = Q6KGroup::scale(group, r);
      QUERN_UNROLL
      for (size_t t = 0; t < N; ++t) {
        const __m256 first = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[t][0]), scale[0]);
        const __m256 dot = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[t][1]), scale[1], first);
        add_scaled(acc + 16 * t + 8 * r, dot, d, broadcast_f32(a + Tile::kScale + 4 * t));
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
// Q6_K: below this many tokens memory sets the pace, and blocks are taken apart one by one, so that reading
// never pauses for long.
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

template <class Format>
struct Kernel : Tiles<PackedBlock<Format>> {
  using Activations = TileActivations;
  static constexpr size_t kBlockWeights = 32;
  static constexpr size_t kBlockBytes = Format::kBytes;
  static constexpr size_t kChunkBlocks = 32;  // taken apart, 20 KB

  static void accumulate(const uint8_t* blocks, size_t n_blocks, const TileActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    if (Format::kBits == 8 || n_tokens < kUnpackTokens<Format>) {
      avx2::for_each_tile<Kernel>(blocks, n_blocks, a, token, n_tokens, weight, acc);
      return;
    }
    alignas(64) uint8_t bytes[kChunkBlocks * ByteBlock<Format>::kBytes];
    avx2::unpack_blocks<Format>(blocks, n_blocks, bytes);
    avx2::for_each_tile<Tiles<ByteBlock<Format>>>(bytes, n_blocks, a, token, n_tokens, weight, acc);
  }
};

struct KernelQ6_K {
  using Activations = TileActivations;
  static constexpr size_t kBlockWeights = 256;
  static constexpr size_t kBlockBytes = avx2::Q6_K::kBytes;
  static constexpr size_t kChunkBlocks = 4;  // taken apart, 22 KB

  template <size_t C, size_t>
  static void tile(const uint8_t* groups, size_t, size_t n_groups, const uint8_t* a, float* acc) noexcept {
    tile_loop_q6_k<C>(groups, n_groups, a, acc);
  }
  static void accumulate(const uint8_t* blocks, size_t n_blocks, const TileActivations& a, size_t token,
                         size_t n_tokens, size_t weight, float* acc) noexcept {
    constexpr size_t kGroups = avx2::Q6_K::kGroups;
    alignas(64) uint8_t groups[kChunkBlocks * kGroups * Q6KGroup::kBytes];
    const size_t at_once = n_tokens < kManyTokens ? 1 : n_blocks;
    for (size_t block = 0; block < n_blocks; block += at_once) {
      avx2::unpack_q6_k<kPrefetchAhead>(blocks + block * kBlockBytes, at_once, groups);
      avx2::for_each_tile<KernelQ6_K>(groups, at_once * kGroups, a, token, n_tokens,
                                      weight + block * kBlockWeights, acc);
    }
  }
};

template <class K>
void multiply(const MatmulArgs& args) noexcept {
  avx2::walk_panels<K, kSlabTokens>(args);
}

}  // namespace

void matmul_q4_0(const MatmulArgs& args) noexcept { multiply<Kernel<avx2::Q4_0>>(args); }
void matmul_q4_1(const MatmulArgs& args) noexcept { multiply<Kernel<avx2::Q4_1>>(args); }
void matmul_q5_0(const MatmulArgs& args) noexcept { multiply<Kernel<avx2::Q5_0>>(args); }
void matmul_q5_1(const MatmulArgs& args) noexcept { multiply<Kernel<avx2::Q5_1>>(args); }
void matmul_q8_0(const MatmulArgs& args) noexcept { multiply<Kernel<avx2::Q8_0>>(args); }
void matmul_q6_k(const MatmulArgs& args) noexcept { multiply<KernelQ6_K>(args); }

}  // namespace quern::QUERN_AVXVNNI
