#include "kernels/math_f64.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "kernels/scalar/exp2q.h"
#include "tests/kernels/kernel_test.h"

namespace quern {
namespace {

using test::same_bits;

TEST(MathF64, PowiMultipliesFromTheLowBit) {
  EXPECT_EQ(powi(3, 0), 1);
  EXPECT_EQ(powi(3, 5), 243);
  EXPECT_EQ(powi(0.5, 10), 0x1p-10);
  EXPECT_EQ(powi(2, 1023), 0x1p1023);
  // 1.1^3 as (1.1) * (1.1 * 1.1), not (1.1 * 1.1) * 1.1 of another order or one rounding.
  const double b = 1.1;
  EXPECT_TRUE(same_bits(powi(b, 3), b * (b * b)));
}

TEST(MathF64, RootIsTheLargestDoubleWhosePowerFits) {
  for (const double value : {1.0, 2.0, 10000.0, 500000.0, 1e6, 1.5}) {
    for (const unsigned degree : {1u, 2u, 3u, 16u, 32u, 64u, 128u}) {
      const double r = root(value, degree);
      EXPECT_LE(powi(r, degree), value) << value << " " << degree;
      EXPECT_GT(powi(std::nextafter(r, HUGE_VAL), degree), value) << value << " " << degree;
    }
  }
  EXPECT_EQ(root(1e6, 2), 1000);
}

TEST(MathF64, SineAndCosineAreCloseToTheTrueOnes) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200000; ++i) {
    const double scale = std::ldexp(1.0, static_cast<int>(random() % 50) - 20);  // up to 2^29
    const double angle = std::uniform_real_distribution<double>(-scale, scale)(random);
    double sine, cosine;
    sincos(angle, &sine, &cosine);
    ASSERT_NEAR(sine, static_cast<double>(sinl(angle)), 0x1p-52) << std::hexfloat << angle;
    ASSERT_NEAR(cosine, static_cast<double>(cosl(angle)), 0x1p-52) << std::hexfloat << angle;
  }
  double sine, cosine;
  sincos(0, &sine, &cosine);
  EXPECT_EQ(sine, 0);
  EXPECT_EQ(cosine, 1);
}

TEST(MathF64, LogarithmIsCloseToTheTrueOne) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 200000; ++i) {
    const double x = std::ldexp(std::uniform_real_distribution<double>(1, 2)(random),
                                static_cast<int>(random() % 2000) - 1000);
    const double expected = static_cast<double>(logl(x));
    ASSERT_NEAR(ln(x), expected, 4 * 0x1p-53 * std::abs(expected) + 0x1p-54) << std::hexfloat << x;
  }
  EXPECT_EQ(ln(1), 0);
  EXPECT_TRUE(same_bits(ln(2), 0x1.62e42fefa39efp-1));
}

TEST(MathF64, ExponentialIsCloseToTheTrueOne) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 200000; ++i) {
    const double x = std::uniform_real_distribution<double>(-1000, 10)(random);
    const long double expected = exp2l(x);
    ASSERT_LE(std::abs(exp2d(x) - expected), 3 * 0x1p-53L * expected) << std::hexfloat << x;
  }
  EXPECT_EQ(exp2d(0), 1);
  EXPECT_EQ(exp2d(-3), 0.125);
  EXPECT_EQ(exp2d(-1000), 0x1p-1000);
  EXPECT_EQ(exp2d(std::nextafter(-1000.0, -2000.0)), 0);
  EXPECT_EQ(exp2d(-HUGE_VAL), 0);
  EXPECT_EQ(exp2d(5000), HUGE_VAL);
  EXPECT_TRUE(std::isnan(exp2d(std::nan(""))));
}

TEST(Exp2q, StaysWithinItsErrorBound) {
  // Every 997th float between -100 and 126: all exponents, many mantissas.
  const auto check = [](float x) {
    const long double expected = exp2l(x);
    const long double error = std::abs(scalar::exp2q(x) - expected) / expected;
    ASSERT_LE(error, 1.2L * 0x1p-24L) << std::hexfloat << x;
  };
  for (uint32_t bits = 0; bits <= std::bit_cast<uint32_t>(126.0f); bits += 997) {
    const float x = std::bit_cast<float>(bits);
    check(x);
    if (x <= 100) check(-x);
  }
}

TEST(Exp2q, HasTheBitsOfItsDefinition) {
  // Computed from the definition in exact rational arithmetic.
  const struct {
    float x;
    uint32_t bits;
  } cases[] = {{0.5f, 0x3fb504f4},           {-0.5f, 0x3f3504f3},         {1.5f, 0x403504f3},
               {0.25f, 0x3f9837f0},          {0x1.921fb6p1f, 0x410d331c}, {-0x1.433334p3f, 0x3a6edb3c},
               {-0x1.8ff5c2p6f, 0x0d80e3f8}, {0x1.f7999ap6f, 0x7e6edb51}, {-0x1.0c6f7ap-20f, 0x3f7ffff4}};
  for (const auto& c : cases) EXPECT_EQ(std::bit_cast<uint32_t>(scalar::exp2q(c.x)), c.bits) << c.x;
}

TEST(Exp2q, TreatsTheEndsAsDefined) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(same_bits(scalar::exp2q(0.0f), 1.0f));
  EXPECT_TRUE(same_bits(scalar::exp2q(-0.0f), 1.0f));
  EXPECT_TRUE(same_bits(scalar::exp2q(-infinity), 0.0f));
  EXPECT_TRUE(same_bits(scalar::exp2q(-100.0f), 0x1p-100f));
  EXPECT_TRUE(same_bits(scalar::exp2q(std::nextafter(-100.0f, -infinity)), 0.0f));
  EXPECT_TRUE(same_bits(scalar::exp2q(126.0f), 0x1p126f));
  EXPECT_TRUE(same_bits(scalar::exp2q(infinity), 0x1p126f));
  EXPECT_TRUE(std::isnan(scalar::exp2q(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace quern
