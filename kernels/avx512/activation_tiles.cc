// Lays quantized activations out in tiles (kernels/vnni_tiles.h).
#include "kernels/avx512/avx512_kernels.h"
#include "kernels/avx512/tile.h"

namespace quern::avx512 {
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
