// What the tests of kernel sets share: inputs of every kind, and comparison of bits.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/dispatch.h"

namespace quern::test {

// The same bits, or both NaN: what arithmetic.md promises.
inline bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}
inline bool same_bits(double a, double b) {
  return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b) || (std::isnan(a) && std::isnan(b));
}

inline testing::AssertionResult same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return testing::AssertionFailure() << "sizes " << a.size() << " and " << b.size();
  for (size_t i = 0; i < a.size(); ++i)
    if (!same_bits(a[i], b[i]))
      return testing::AssertionFailure() << "[" << i << "] " << std::hexfloat << a[i] << " and " << b[i];
  return testing::AssertionSuccess();
}

// The sets that this machine can run, the reference first.
inline std::vector<const KernelSet*> supported_sets() {
  std::vector<const KernelSet*> sets;
  for (const KernelSetRow& row : kernel_sets())
    if (row.supported(cpu_features())) sets.push_back(row.set);
  return sets;
}
inline const KernelSet& reference_set() { return *kernel_sets().front().set; }
inline std::string set_name(const testing::TestParamInfo<const KernelSet*>& info) { return info.param->name; }

enum class Values { kNormal, kTiny, kSubnormal, kHuge, kAnyBits, kWithNan, kWithInfinity, kZeros, kHalves };
inline constexpr Values kAllValues[] = {Values::kNormal,       Values::kTiny,    Values::kSubnormal,
                                        Values::kHuge,         Values::kAnyBits, Values::kWithNan,
                                        Values::kWithInfinity, Values::kZeros,   Values::kHalves};

inline std::vector<float> random_values(size_t n, Values kind, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& value : x) {
    value = normal(random);
    if (kind == Values::kTiny) value *= 0x1p-100f;
    if (kind == Values::kSubnormal) value *= 0x1p-135f;
    if (kind == Values::kHuge) value *= 0x1p124f;
    if (kind == Values::kAnyBits) value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (kind == Values::kZeros) value = random() % 2 != 0 ? 0.0f : -0.0f;
    // Ties of the activation quantizer, once 127 stands in the group.
    if (kind == Values::kHalves)
      value = static_cast<float>(random() % 255) / 2 * (random() % 2 != 0 ? 1 : -1);
  }
  if (n == 0) return x;
  if (kind == Values::kWithNan) x[random() % n] = std::numeric_limits<float>::quiet_NaN();
  if (kind == Values::kWithInfinity) x[random() % n] = -std::numeric_limits<float>::infinity();
  if (kind == Values::kHalves) x[random() % n] = 127;
  return x;
}

}  // namespace quern::test
