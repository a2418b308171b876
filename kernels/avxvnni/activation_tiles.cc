// Lays quantized activations out in tiles (kernels/vnni_tiles.h).
#include "kernels/avxvnni/avxvnni_kernels.h"
#include "kernels/vnni_tiles.h"

namespace quern::QUERN_AVXVNNI {
namespace {

size_t tile_bytes(size_t n_tokens, size_t k) noexcept { return n_tokens * (k / 32) * kTokenBlockBytes; }

void pack_tiles(const QuantizedRows& a, size_t n_tokens, size_t k, size_t token_begin, size_t token_end,
                uint8_t* tiles) noexcept {
  for (size_t token = token_begin; token < token_end; token += kTileTokens) {
    uint8_t* const out = tiles + token * (k / 32) * kTokenBlockBytes;
    const size_t n = n_tokens - token < kTileTokens ? n_tokens - token : kTileTokens;
    if (n == 1) pack_tile<1>(a, token, n, k, out);
    if (n == 2) pack_tile<2>(a, token, n, k, out);
    if (n == 3) pack_tile<3>(a, token, n, k, out);
    if (n == 4) pack_tile<4>(a, token, n, k, out);
  }
}

}  // namespace

constinit const ActivationTiles kTiles = {kTileTokens, tile_bytes, pack_tiles};

}  // namespace quern::QUERN_AVXVNNI
