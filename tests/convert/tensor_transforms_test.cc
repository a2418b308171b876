#include "convert/tensor_transforms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "quant/block_format.h"

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

TensorView bytes_view(const std::vector<uint8_t>& bytes) {
  return {"bytes", DType::I8, {bytes.size()}, bytes.data(), bytes.size()};
}

// Two rows of 64 weights, the second one first.
TEST(TensorTransforms, TakesMxfp4ApartIntoItsWeights) {
  std::vector<uint8_t> pairs(64, 0), powers = {127, 128, 120, 1};
  pairs[0] = 0x21;   // row 0: 0.5, 1
  pairs[31] = 0xF7;  // its last: 6 * 2, -6 * 2
  pairs[32] = 0x9A;  // row 1: -1 / 128, -0.5 / 128
  std::vector<float> out(128);
  picked_mxfp4_rows([](uint64_t row) { return 1 - row; })(std::vector{bytes_view(pairs), bytes_view(powers)},
                                                          0, 2, 64, out.data());
  EXPECT_EQ(out[0], -1.0f / 128);
  EXPECT_EQ(out[1], -0.5f / 128);
  EXPECT_EQ(out[64], 0.5f);
  EXPECT_EQ(out[65], 1.0f);
  EXPECT_EQ(out[126], 12.0f);
  EXPECT_EQ(out[127], -12.0f);
}

// So that a published MXFP4 checkpoint loses nothing in a file of this format, whatever its powers.
TEST(TensorTransforms, WeightsOfMxfp4ComeThroughItsEncoderUnchanged) {
  std::vector<uint8_t> pairs, powers;
  uint32_t random = 1;
  for (size_t block = 0; block < 64; ++block) {
    powers.push_back(static_cast<uint8_t>(100 + block / 2));
    for (size_t i = 0; i < 16; ++i) {
      random = random * 1664525 + 1013904223;
      const uint32_t most = block % 8;  // of the magnitudes' codes
      pairs.push_back(static_cast<uint8_t>((random >> 8) % (most + 1) | (random >> 16) % (most + 1) << 4 |
                                           (random >> 24 & 0x88)));
    }
  }
  std::vector<float> weights(64 * 32), found(weights.size());
  picked_mxfp4_rows([](uint64_t row) { return row; })(std::vector{bytes_view(pairs), bytes_view(powers)}, 0,
                                                      2, 1024, weights.data());
  const BlockFormat& format = block_format(DType::MXFP4);
  std::vector<uint8_t> blocks(64 * format.block_bytes);
  format.encode(weights.data(), 64, blocks.data());
  format.decode(blocks.data(), 64, found.data());
  EXPECT_EQ(found, weights);
}

}  // namespace
}  // namespace quern
