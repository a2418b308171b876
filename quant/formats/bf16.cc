// BF16: the high half of an IEEE binary32, little-endian. A block is one weight.
//
//   bit 15     14..7       6..0
//       sign   exponent    mantissa
#include "quant/formats/formats.h"

namespace quern::formats::bf16 {

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  for (size_t i = 0; i < n_blocks; ++i) out[i] = f32_from_bf16(load_u16(blocks + i * kBytes));
}

// Rounds to nearest even.
void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  for (size_t i = 0; i < n_blocks; ++i) {
    const uint16_t bits = bf16_from_f32(x[i]);
    std::memcpy(blocks + i * kBytes, &bits, sizeof bits);
  }
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_float<uint16_t, 0x7f80u>(blocks, n_blocks);
}

}  // namespace quern::formats::bf16
