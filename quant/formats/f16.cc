// F16: IEEE binary16, little-endian. A block is one weight.
//
//   bit 15     14..10      9..0
//       sign   exponent    mantissa
#include "quant/formats/formats.h"

namespace quern::formats::f16 {

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  for (size_t i = 0; i < n_blocks; ++i) out[i] = load_f16(blocks + i * kBytes);
}

// Rounds to nearest even; what is beyond +-65504 by half a unit or more becomes infinite.
void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  for (size_t i = 0; i < n_blocks; ++i) store_f16(x[i], blocks + i * kBytes);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_float<uint16_t, 0x7c00u>(blocks, n_blocks);
}

}  // namespace quern::formats::f16
