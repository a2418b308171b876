// Lays quantized activations out in tiles (kernels/vnni_tiles.h).
#include "kernels/avx512/avx512_kernels.h"
#include "kernels/avx512/tile.h"

namespace quern::avx512 {
namespace {

size_t tile_bytes(size_t n_tokens, size_t k) noexcept {
  const size_t full = n_tokens / kTileTokens * kTileTokens, rest = n_tokens - full;
  return (full + (rest == 0 ? 0 : tile_width(rest))) * (k / 32) * kTokenBlockBytes;
}

// Puts the largest sum of 16 squares of a block's codes, as uint32, in TileBlock::kOfSet.
template <int C>
void put_square_sums(const QuantizedRows& a, size_t token, size_t n, size_t k, uint8_t* out) noexcept {
  for (size_t g = 0; g < k / 32; ++g, out += TileBlock<C>::kBytes) {
    Bits largest = _mm512_setzero_si512();
    for (size_t c = 0; c < n; ++c) {
      const Bits x = _mm512_cvtepi8_epi16(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a.codes + (token + c) * k + 32 * g)));
      Bits sums = _mm512_madd_epi16(x, x);  // eight lanes of each half
      sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
      sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_CDAB));
      sums = _mm512_add_epi32(sums, _mm512_shuffle_i32x4(sums, sums, 0xb1));
      largest = _mm512_max_epu32(largest, sums);
    }
    put(out + TileBlock<C>::kOfSet, _mm512_reduce_max_epu32(largest));
  }
}

template <int C>
void pack(const QuantizedRows& a, size_t token, size_t n, size_t k, uint8_t* out) noexcept {
  pack_tile<C>(a, token, n, k, out);
  put_square_sums<C>(a, token, n, k, out);
}

void pack_tiles(const QuantizedRows& a, size_t n_tokens, size_t k, size_t token_begin, size_t token_end,
                uint8_t* tiles) noexcept {
  for (size_t token = token_begin; token < token_end; token += kTileTokens) {
    uint8_t* const out = tiles + token * (k / 32) * kTokenBlockBytes;
    const size_t n = n_tokens - token < kTileTokens ? n_tokens - token : kTileTokens;
    switch (tile_width(n)) {
      case 1:
        pack<1>(a, token, n, k, out);
        break;
      case 2:
        pack<2>(a, token, n, k, out);
        break;
      case 3:
        pack<3>(a, token, n, k, out);
        break;
      case 4:
        pack<4>(a, token, n, k, out);
        break;
      case 8:
        pack<8>(a, token, n, k, out);
        break;
      case 12:
        pack<12>(a, token, n, k, out);
        break;
      default:
        pack<16>(a, token, n, k, out);
        break;
    }
  }
}

}  // namespace

constinit const ActivationTiles kTiles = {kTileTokens, tile_bytes, pack_tiles};

}  // namespace quern::avx512
