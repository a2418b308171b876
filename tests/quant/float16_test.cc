#include "quant/float16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace quern {
namespace {

uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }

// The value of binary16 bits by its definition.
double f16_value(uint32_t h) {
  const int exponent = static_cast<int>(h >> 10 & 31), mantissa = static_cast<int>(h & 0x3ff);
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (h & 0x8000) != 0 ? -magnitude : magnitude;
}

bool is_f16_nan(uint32_t h) { return (h & 0x7fff) > 0x7c00; }

TEST(Float16, EveryValueDecodesExactlyAndComesBack) {
  for (uint32_t h = 0; h <= 0xffff; ++h) {
    const float decoded = f32_from_f16(static_cast<uint16_t>(h));
    if (is_f16_nan(h)) {
      ASSERT_TRUE(std::isnan(decoded)) << h;
      ASSERT_EQ(f16_from_f32(decoded), h | 0x200) << h;  // made quiet, payload and sign kept
      continue;
    }
    if ((h & 0x7fff) == 0x7c00) {
      ASSERT_TRUE(std::isinf(decoded)) << h;
    } else {
      ASSERT_EQ(static_cast<double>(decoded), f16_value(h)) << h;
    }
    ASSERT_EQ(std::signbit(decoded), (h & 0x8000) != 0) << h;
    ASSERT_EQ(f16_from_f32(decoded), h) << h;
  }
}

// Between every two neighbours: the middle goes to the even one, everything else to the nearer one.
TEST(Float16, RoundsToNearestEvenEverywhere) {
  for (uint32_t sign : {0u, 0x8000u}) {
    for (uint32_t h = 0; h < 0x7c00; ++h) {
      const double low = std::fabs(f16_value(h));
      const double high = h + 1 == 0x7c00 ? 65536.0 : std::fabs(f16_value(h + 1));
      const auto middle = static_cast<float>((low + high) / 2);  // exact
      const float s = sign != 0 ? -1.0f : 1.0f;
      const uint32_t even = h % 2 == 0 ? h : h + 1;
      ASSERT_EQ(f16_from_f32(s * middle), sign | even) << h;
      ASSERT_EQ(f16_from_f32(s * std::nextafter(middle, 0.0f)), sign | h) << h;
      ASSERT_EQ(f16_from_f32(s * std::nextafter(middle, 1e9f)), sign | (h + 1)) << h;
    }
  }
}

TEST(Float16, OverflowsToInfinityAndKeepsNanAndSign) {
  EXPECT_EQ(f16_from_f32(65504.0f), 0x7bff);
  EXPECT_EQ(f16_from_f32(65519.996f), 0x7bff);
  EXPECT_EQ(f16_from_f32(65520.0f), 0x7c00);
  EXPECT_EQ(f16_from_f32(-65520.0f), 0xfc00);
  EXPECT_EQ(f16_from_f32(std::numeric_limits<float>::max()), 0x7c00);
  EXPECT_EQ(f16_from_f32(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(f16_from_f32(float_of(0x7f800001)), 0x7e00);  // a signalling NaN with a payload that is lost
  EXPECT_EQ(f16_from_f32(float_of(0xffc00000)), 0xfe00);
  EXPECT_EQ(f16_from_f32(-0.0f), 0x8000);
  EXPECT_EQ(f16_from_f32(0x1p-25f), 0x0000);  // half the smallest, to even
  EXPECT_EQ(f16_from_f32(std::nextafter(0x1p-25f, 1.0f)), 0x0001);
  EXPECT_EQ(f16_from_f32(float_of(1)), 0x0000);  // a subnormal f32
}

TEST(BFloat16, EveryValueIsTheHighHalfAndComesBack) {
  for (uint32_t b = 0; b <= 0xffff; ++b) {
    const float decoded = f32_from_bf16(static_cast<uint16_t>(b));
    const bool nan = (b & 0x7fff) > 0x7f80;
    if (nan) {
      ASSERT_TRUE(std::isnan(decoded)) << b;
    } else {
      ASSERT_EQ(bits_of(decoded), b << 16) << b;
    }
    ASSERT_EQ(bf16_from_f32(decoded), nan ? b | 0x40 : b) << b;
  }
}

TEST(BFloat16, RoundsToNearestEvenEverywhere) {
  for (uint32_t b = 0; b < 0xffff; ++b) {
    if ((b & 0x7fff) >= 0x7f80) continue;
    const uint32_t middle = b << 16 | 0x8000;
    ASSERT_EQ(bf16_from_f32(float_of(middle)), b % 2 == 0 ? b : b + 1) << b;
    ASSERT_EQ(bf16_from_f32(float_of(middle - 1)), b) << b;
    ASSERT_EQ(bf16_from_f32(float_of(middle + 1)), b + 1) << b;
  }
}

TEST(BFloat16, KeepsNanThatHasItsPayloadInTheLowHalf) {
  EXPECT_EQ(bf16_from_f32(float_of(0x7f800001)), 0x7fc0);
  EXPECT_EQ(bf16_from_f32(float_of(0xff80ffff)), 0xffc0);
  EXPECT_EQ(bf16_from_f32(std::numeric_limits<float>::infinity()), 0x7f80);
}

}  // namespace
}  // namespace quern
