// F32: IEEE binary32, little-endian. A block is one weight.
#include "quant/formats/formats.h"

namespace quern::formats::f32 {

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  if (n_blocks > 0) std::memcpy(out, blocks, n_blocks * kBytes);
}

void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  if (n_blocks > 0) std::memcpy(blocks, x, n_blocks * kBytes);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_float<uint32_t, 0x7f800000u>(blocks, n_blocks);
}

}  // namespace quern::formats::f32
