#include "convert/tensor_transforms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace quern {
namespace {

TEST(TensorTransforms, PairsTheHalvesOfEveryHead) {
  EXPECT_EQ(interleaved_row_map(2, 6), (std::vector<uint64_t>{0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11}));
  EXPECT_EQ(interleaved_row_map(1, 2), (std::vector<uint64_t>{0, 1}));
}

// Why the rows move at all: rotating halves before equals rotating neighbours after.
TEST(TensorTransforms, RotationCommutesWithTheRowMap) {
  constexpr uint32_t kHeadDim = 8;
  const std::vector<uint64_t> map = interleaved_row_map(1, kHeadDim);
  std::vector<double> halves(kHeadDim);
  for (uint32_t i = 0; i < kHeadDim; ++i) halves[i] = std::sin(1.0 + i);
  std::vector<double> pairs(kHeadDim);
  for (uint32_t i = 0; i < kHeadDim; ++i) pairs[i] = halves[map[i]];

  const auto rotate = [](double* a, double* b, double angle) {
    const double x = *a, y = *b;
    *a = x * std::cos(angle) - y * std::sin(angle);
    *b = x * std::sin(angle) + y * std::cos(angle);
  };
  for (uint32_t i = 0; i < kHeadDim / 2; ++i) {
    rotate(&halves[i], &halves[i + kHeadDim / 2], 0.3 * (i + 1));
    rotate(&pairs[2 * i], &pairs[2 * i + 1], 0.3 * (i + 1));
  }
  for (uint32_t i = 0; i < kHeadDim; ++i) EXPECT_EQ(pairs[i], halves[map[i]]) << i;
}

}  // namespace
}  // namespace quern
