// Lays quantized activations out in tiles (tile.h).
#include "kernels/avx512/avx512_kernels.h"
#include "kernels/avx512/tile.h"

namespace quern::avx512 {
namespace {

template <class T>
QUERN_INLINE void put(uint8_t* p, T value) {
  __builtin_memcpy(p, &value, sizeof value);
}

template <int C>
void pack_tile(const QuantizedRows& a, size_t token, size_t n, size_t k, uint8_t* out) {
  using Block = TileBlock<C>;
  const size_t groups = k / 32;
  for (size_t g = 0; g < groups; ++g, out += Block::kBytes) {
    for (size_t c = 0; c < C; ++c) {
      if (c >= n) {  // padding: zeros, whose results nobody keeps
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * c), _mm256_setzero_si256());
        for (size_t row = Block::kScale; row < Block::kBytes; row += 4 * C) put(out + row + 4 * c, 0);
        continue;
      }
      const size_t t = token + c;
      const void* codes = a.codes + t * k + 32 * g;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * c),
                          _mm256_loadu_si256(static_cast<const __m256i*>(codes)));
      const float da = a.scales[t * groups + g];
      const int16_t* sums = a.sums + 4 * (t * groups + g);
      const int32_t s0 = sums[0] + sums[1], s1 = sums[2] + sums[3], s = s0 + s1;
      put(out + Block::kScale + 4 * c, da);
      put(out + Block::kBias8 + 4 * c, -8 * s);
      put(out + Block::kBias16 + 4 * c, -16 * s);
      put(out + Block::kBias128 + 4 * c, -128 * s);
      put(out + Block::kBias32Low + 4 * c, -32 * s0);
      put(out + Block::kBias32High + 4 * c, -32 * s1);
      put(out + Block::kScaledSum + 4 * c, da * static_cast<float>(s));
    }
  }
}

}  // namespace

size_t tile_bytes(size_t n_tokens, size_t k) noexcept {
  const size_t full = n_tokens / kTileTokens * kTileTokens, rest = n_tokens - full;
  return (full + (rest == 0 ? 0 : tile_width(rest))) * (k / 32) * kTokenBlockBytes;
}

void pack_tiles(const QuantizedRows& a, size_t n_tokens, size_t k, size_t token_begin, size_t token_end,
                uint8_t* tiles) noexcept {
  for (size_t token = token_begin; token < token_end; token += kTileTokens) {
    uint8_t* const out = tiles + token * (k / 32) * kTokenBlockBytes;
    const size_t n = n_tokens - token < kTileTokens ? n_tokens - token : kTileTokens;
    switch (tile_width(n)) {
      case 1:
        pack_tile<1>(a, token, n, k, out);
        break;
      case 2:
        pack_tile<2>(a, token, n, k, out);
        break;
      case 3:
        pack_tile<3>(a, token, n, k, out);
        break;
      case 4:
        pack_tile<4>(a, token, n, k, out);
        break;
      case 8:
        pack_tile<8>(a, token, n, k, out);
        break;
      case 12:
        pack_tile<12>(a, token, n, k, out);
        break;
      default:
        pack_tile<16>(a, token, n, k, out);
        break;
    }
  }
}

}  // namespace quern::avx512
