#include "kernels/avx2/activation_tiles.h"

#include <immintrin.h>

namespace quern::avx2 {
namespace {

template <size_t kBytes>
void put(uint8_t* out, __m128i value) {
  __builtin_memcpy(out, &value, kBytes);
}

// The codes of C tokens, `stride` apart, step by step.
template <size_t C>
void pack_codes(const int8_t* codes, size_t stride, uint8_t* out) {
  if constexpr (C == 4) {
    // Four rows of eight dwords, transposed.
    const auto row = [&](size_t t) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + t * stride));
    };
    const __m256i a = row(0), b = row(1), c = row(2), d = row(3);
    const __m256i ab0 = _mm256_unpacklo_epi32(a, b), ab2 = _mm256_unpackhi_epi32(a, b);
    const __m256i cd0 = _mm256_unpacklo_epi32(c, d), cd2 = _mm256_unpackhi_epi32(c, d);
    const __m256i s04 = _mm256_unpacklo_epi64(ab0, cd0), s15 = _mm256_unpackhi_epi64(ab0, cd0);
    const __m256i s26 = _mm256_unpacklo_epi64(ab2, cd2), s37 = _mm256_unpackhi_epi64(ab2, cd2);
    auto* to = reinterpret_cast<__m256i*>(out);
    _mm256_storeu_si256(to, _mm256_permute2x128_si256(s04, s15, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(s26, s37, 0x20));
    _mm256_storeu_si256(to + 2, _mm256_permute2x128_si256(s04, s15, 0x31));
    _mm256_storeu_si256(to + 3, _mm256_permute2x128_si256(s26, s37, 0x31));
  } else {
    for (size_t s = 0; s < 8; ++s)
      for (size_t t = 0; t < C; ++t) __builtin_memcpy(out + 4 * (C * s + t), codes + t * stride + 4 * s, 4);
  }
}

// Packs the tile of C tokens from `token` on.
template <size_t C>
void pack_tile(const QuantizedRows& a, size_t token, size_t k, uint8_t* out) {
  using Block = TileBlock<C>;
  using Side = TileSide<C>;
  const size_t groups = k / 32;
  const int8_t* codes = a.codes + token * k;
  const float* scales = a.scales + token * groups;
  const int16_t* sums = a.sums + 4 * token * groups;
  uint8_t* side = out + groups * Block::kBytes;
  for (size_t g = 0; g < groups; ++g, codes += 32, scales += 1, sums += 4) {
    pack_codes<C>(codes, k, out);
    // [token] pairs of int16 of the first and of the second 16 values, and scales; missing tokens are zeros.
    alignas(16) int32_t first[4] = {}, second[4] = {};
    alignas(16) float scale[4] = {};
    for (size_t t = 0; t < C; ++t) {
      __builtin_memcpy(&first[t], sums + 4 * groups * t, 4);
      __builtin_memcpy(&second[t], sums + 4 * groups * t + 2, 4);
      scale[t] = scales[groups * t];
    }
    const __m128i low = _mm_load_si128(reinterpret_cast<const __m128i*>(first));
    const __m128i high = _mm_load_si128(reinterpret_cast<const __m128i*>(second));
    const __m128i pairs = _mm_add_epi16(low, high);
    const __m128i total = _mm_madd_epi16(pairs, _mm_set1_epi16(1));
    const __m128 da = _mm_load_ps(scale);
    put<4 * C>(out + Block::kScales, _mm_castps_si128(da));
    put<4 * C>(out + Block::kBias8, _mm_mullo_epi16(pairs, _mm_set1_epi16(-8)));
    put<4 * C>(side + Side::kScaledSums, _mm_castps_si128(_mm_mul_ps(da, _mm_cvtepi32_ps(total))));
    put<4 * C>(side + Side::kSums16, _mm_slli_epi32(total, 4));
    put<4 * C>(side + Side::kBias32, _mm_mullo_epi16(low, _mm_set1_epi16(-32)));
    put<4 * C>(side + Side::kBias32 + 4 * C, _mm_mullo_epi16(high, _mm_set1_epi16(-32)));
    const __m128i ones = _mm_set1_epi16(1);
    const __m128i s0 = _mm_madd_epi16(low, ones), s1 = _mm_madd_epi16(high, ones);
    put<4 * C>(side + Side::kHalfSums, _mm_blend_epi16(s0, _mm_slli_epi32(s1, 16), 0xaa));
    out += Block::kBytes;
    side += Side::kBytes;
  }
}

// Packs the pair tile of the four tokens from `token` on.
void pack_pair_tile(const QuantizedRows& a, size_t token, size_t k, uint8_t* out) {
  const size_t groups = k / 32;
  const int8_t* codes = a.codes + token * k;
  const float* scales = a.scales + token * groups;
  for (size_t g = 0; g < groups; ++g, codes += 32, ++scales, out += PairBlock::kBytes) {
    alignas(32) uint8_t steps[8][16];
    pack_codes<kTileTokens>(codes, k, steps[0]);
    for (size_t s = 0; s < 8; ++s) {
      const __m128i four = _mm_load_si128(reinterpret_cast<const __m128i*>(steps[s]));
      put<16>(out + 32 * s, _mm_srai_epi16(_mm_slli_epi16(four, 8), 8));
      put<16>(out + 32 * s + 16, _mm_srai_epi16(four, 8));
    }
    put<16>(out + PairBlock::kScales,
            _mm_castps_si128(_mm_setr_ps(scales[0], scales[groups], scales[2 * groups], scales[3 * groups])));
  }
}

// Packs the tile of up to four of the tokens_left tokens from `token` on.
void pack_tile_of(size_t tokens_left, const QuantizedRows& a, size_t token, size_t k, uint8_t* out) {
  switch (tokens_left) {
    case 1:
      return pack_tile<1>(a, token, k, out);
    case 2:
      return pack_tile<2>(a, token, k, out);
    case 3:
      return pack_tile<3>(a, token, k, out);
    default:
      return pack_tile<4>(a, token, k, out);
  }
}

size_t tile_bytes(size_t n_tokens, size_t k) noexcept { return n_tokens * (k / 32) * kTokenGroupBytes; }

void pack_tiles(const QuantizedRows& a, size_t n_tokens, size_t k, size_t token_begin, size_t token_end,
                uint8_t* tiles) noexcept {
  for (size_t token = token_begin; token < token_end; token += kTileTokens) {
    pack_tile_of(n_tokens - token, a, token, k, tiles + tile_bytes(token, k));
  }
}

size_t pair_tile_bytes(size_t n_tokens, size_t k) noexcept {
  return n_tokens * (k / 32) * PairBlock::kTokenBytes;
}

void pack_pair_tiles(const QuantizedRows& a, size_t n_tokens, size_t k, size_t token_begin, size_t token_end,
                     uint8_t* tiles) noexcept {
  for (size_t token = token_begin; token < token_end; token += kTileTokens) {
    uint8_t* const out = tiles + pair_tile_bytes(token, k);
    if (n_tokens - token < kTileTokens)
      pack_tile_of(n_tokens - token, a, token, k, out);
    else
      pack_pair_tile(a, token, k, out);
  }
}

}  // namespace

constinit const ActivationTiles kTiles = {kTileTokens, tile_bytes, pack_tiles};
constinit const ActivationTiles kPairTiles = {kTileTokens, pair_tile_bytes, pack_pair_tiles};

}  // namespace quern::avx2
