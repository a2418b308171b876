// What exact sums rest on, asked of the hardware: on the emulation (or a GPU: tests/support/test_gpu.h).
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/cuda/kernel_list.h"
#include "quant/float16.h"
#include "tests/support/test_gpu.h"

namespace quern {
namespace {

using cuda::Kernel;

constexpr int kRows = 16, kColumns = 8, kDepth = 16;

// Integer products of tensor cores, and where sums start. Row r and column c of sum s are element 4 * lane +
// i of its fragment.
struct Sums {
  std::vector<uint32_t> a, b;
  std::vector<float> start, expected;
};

uint32_t two_halves(int low, int high) {
  const auto half = [](int value) { return uint32_t{f16_from_f32(static_cast<float>(value))}; };
  return half(low) | half(high) << 16;
}

// `sign` of the products: 1 and -1 drive every partial sum the same way, 0 mixes them. The start leaves just
// the room that the products may need below 2^24.
Sums make_sums(size_t n, int n_steps, int most_a, int sign, uint32_t seed) {
  std::mt19937 random(seed);
  const auto code = [&](int most) {
    return static_cast<int>(random() % static_cast<uint32_t>(2 * most + 1)) - most;
  };
  const int room = n_steps * kDepth * most_a * 127;
  Sums sums;
  for (size_t s = 0; s < n; ++s) {
    std::vector<int64_t> total(kRows * kColumns);
    for (int64_t& value : total) value = (random() & 1) != 0 ? (1 << 24) - 1 - room : room + 1 - (1 << 24);
    const auto in_fragments = [&](std::vector<float>* to) {
      for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i)
          to->push_back(static_cast<float>(
              total[static_cast<size_t>((lane / 4 + i / 2 * 8) * kColumns + lane % 4 * 2 + i % 2)]));
    };
    in_fragments(&sums.start);
    for (int step = 0; step < n_steps; ++step) {
      int a[kRows][kDepth], b[kColumns][kDepth];
      for (auto& row : a)
        for (int& value : row) value = sign == 0 ? code(most_a) : most_a;
      for (auto& column : b)
        for (int& value : column) value = sign == 0 ? code(127) : 127 * sign;
      for (size_t lane = 0; lane < 32; ++lane) {
        const size_t g = lane / 4, t = lane % 4 * 2;
        for (const auto& [row, k] : {std::pair{g, t}, {g + 8, t}, {g, t + 8}, {g + 8, t + 8}})
          sums.a.push_back(two_halves(a[row][k], a[row][k + 1]));
        for (const size_t k : {t, t + 8}) sums.b.push_back(two_halves(b[g][k], b[g][k + 1]));
      }
      for (size_t r = 0; r < kRows; ++r)
        for (size_t c = 0; c < kColumns; ++c)
          for (size_t k = 0; k < kDepth; ++k) total[r * kColumns + c] += int64_t{a[r][k]} * b[c][k];
    }
    in_fragments(&sums.expected);
  }
  return sums;
}

std::vector<float> summed(cuda::Gpu& gpu, const Sums& sums, int n_steps) {
  const auto upload = [&](const auto& values) {
    cuda::GpuMemory memory(gpu, values.size() * sizeof values[0], "a test");
    gpu.upload(memory.as<void>(), values.data(), memory.size());
    return memory;
  };
  const cuda::GpuMemory a = upload(sums.a), b = upload(sums.b), c = upload(sums.start);
  const cuda::SumArgs args{a.as<uint32_t>(), b.as<uint32_t>(), c.as<float>(), n_steps};
  gpu.launch(Kernel::sum_f16, {.x = static_cast<int>(sums.start.size() / 128), .threads = 32}, &args,
             sizeof args);
  std::vector<float> result(sums.start.size());
  gpu.download(result.data(), c.as<void>(), c.size());
  return result;
}

// On a GPU ten thousand sums a case, up to the last integer below 2^24 and from either side.
TEST(CudaSweep, TensorCoresAddF16ProductsOfIntegersExactly) {
  const auto gpu = test::make_test_gpu(uint64_t{1} << 28);
  const size_t n = test::test_gpu_name() == "emulated" ? 4 : 10000;
  for (const int most_a : {1, 8, 127})
    for (const int sign : {-1, 0, 1})
      for (const int n_steps : {1, 2, 7}) {
        const Sums sums = make_sums(n, n_steps, most_a, sign, static_cast<uint32_t>(n_steps));
        EXPECT_EQ(summed(*gpu, sums, n_steps), sums.expected)
            << "codes to " << most_a << ", sign " << sign << ", " << n_steps << " steps";
      }
}

TEST(EmulationDeathTest, SumsThatMayNotBeExactAreNamed) {
  const auto gpu = cuda::make_emulated_gpu(uint64_t{1} << 24);
  Sums sums = make_sums(1, 1, 127, 1, 1);
  for (float& value : sums.start) value = std::fabs(value);
  sums.start[5] += 1;  // without room for the last product
  EXPECT_DEATH(summed(*gpu, sums, 1), "partial sums may reach 2\\^24");
  sums.start[5] = 0.5f;
  EXPECT_DEATH(summed(*gpu, sums, 1), "no integer below 2\\^24");
}

}  // namespace
}  // namespace quern
