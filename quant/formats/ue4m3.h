// NVFP4's scales: UE4M3, numbers without a sign, four bits of exponent (bias 7), three of mantissa. Private
// to quant/ (see formats.h).
#pragma once

#include <cstdint>

namespace quern::formats {

// Half of what the byte stands for, exactly. Bit 7 means nothing; 127 is 0, as 0 is.
constexpr float half_of_ue4m3(uint8_t byte) {
  if (byte == 127) return 0;
  const int exponent = byte >> 3 & 15, mantissa = byte & 7;
  // In units of 2^-10, the smallest number.
  const int units = exponent == 0 ? mantissa : (8 + mantissa) << (exponent - 1);
  return static_cast<float>(units) * 0x1p-10f;
}

}  // namespace quern::formats
