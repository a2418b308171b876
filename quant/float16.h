// IEEE binary16 and bfloat16 as bits. Conversions to f32 are exact; from f32 they round to nearest even.
// The same bits on every CPU: no hardware instruction is used here.
// Source: IEEE 754-2019; bfloat16 as in ggml (NaN keeps its high half, made quiet by bit 6).
#pragma once

#include <bit>
#include <cstdint>

namespace quern {

// `a` where the condition holds, else `b`, as bit operations: conversions compute every case and then choose,
// and loops over them vectorise.
inline uint32_t select_bits(bool condition, uint32_t a, uint32_t b) {
  const uint32_t mask = 0u - static_cast<uint32_t>(condition);
  return (a & mask) | (b & ~mask);
}

inline float f32_from_f16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t magnitude = h & 0x7fffu;
  // Subnormal or zero: magnitude * 2^-24, exact in f32. The sign is put back bitwise, so -0 stays -0.
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(static_cast<float>(static_cast<int>(magnitude)) * 0x1p-24f);
  // The exponent's bias grows from 15 to 127; that of infinities and NaNs from 31 to 255.
  const uint32_t normal = (magnitude << 13) + (magnitude < 0x7c00u ? 112u << 23 : 224u << 23);
  return std::bit_cast<float>(sign | select_bits(magnitude < 0x400u, subnormal, normal));
}

// Overflow gives infinity; a NaN stays a (quiet) NaN with its sign.
inline uint16_t f16_from_f32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Where the result is subnormal, adding 0.5 aligns its last place with 2^-24 and rounds once, to nearest
  // even.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t odd = (magnitude >> 13) & 1u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + odd) >> 13;
  const uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  uint32_t result = select_bits(magnitude < 0x38800000u, subnormal, normal);
  result = select_bits(magnitude >= 0x477ff000u, 0x7c00u, result);  // 65520 and more rounds to infinity
  result = select_bits(magnitude > 0x7f800000u, nan, result);
  return static_cast<uint16_t>(sign | result);
}

// As an f16 holds it.
inline float rounded_to_f16(float value) { return f32_from_f16(f16_from_f32(value)); }

inline float f32_from_bf16(uint16_t b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }

inline uint16_t bf16_from_f32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace quern
