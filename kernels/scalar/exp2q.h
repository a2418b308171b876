// exp2q, the one f32 exponential of every result (arithmetic.md "exp2q").
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace quern::scalar {

// 2^x within 1.2 * 2^-24 relative; +0 below -100, 2^126 from 126 on, NaN for NaN.
inline float exp2q(float x) noexcept {
  if (x < -100.0f) return 0.0f;
  const float y = 126.0f < x ? 126.0f : x;
  // 1.5 * 2^23 + 127: the sum's last bits are round(y) + 127, the exponent field of 2^round(y).
  const float t = y + 12583039.0f;
  const float n = t - 12583039.0f;
  const float r = y - n;
  float p = 0x1.44138ap-13f;
  p = std::fma(p, r, 0x1.5f0890p-10f);
  p = std::fma(p, r, 0x1.3b2a54p-7f);
  p = std::fma(p, r, 0x1.c6af6cp-5f);
  p = std::fma(p, r, 0x1.ebfbe0p-3f);
  p = std::fma(p, r, 0x1.62e430p-1f);
  p = std::fma(p, r, 1.0f);
  return p * std::bit_cast<float>(std::bit_cast<uint32_t>(t) << 23);
}

}  // namespace quern::scalar
