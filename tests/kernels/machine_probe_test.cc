#include "kernels/machine_probe.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/dispatch.h"
#include "tests/kernels/avxvnni_twins.h"

namespace quern {
namespace {

class ProbeLoopsOf : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (!row_.supported(cpu_features())) GTEST_SKIP() << row_.set->name << " needs " << row_.needs;
  }
  const KernelSet& set() const { return *row_.set; }

 private:
  KernelSetRow row_ = test::sets_and_twins()[GetParam()];
};

TEST_P(ProbeLoopsOf, ReadEveryByteOnce) {
  constexpr size_t kBytes = 4 * kProbeReadStep;
  const HostMemory memory(kBytes, "bytes");
  const uint64_t zeros = set().probe->read(memory.data(), kBytes);
  for (size_t i = 0; i < kBytes; i += 7) {
    memory.data()[i] = 1;
    EXPECT_NE(set().probe->read(memory.data(), kBytes), zeros) << "byte " << i;
    memory.data()[i] = 0;
  }
  EXPECT_EQ(set().probe->read(memory.data(), kBytes), zeros);
}

TEST_P(ProbeLoopsOf, MultiplyAsOftenAsAskedAndALittleMore) {
  for (const uint64_t n : {uint64_t{1}, uint64_t{100'000}}) {
    const uint64_t done = set().probe->multiply(n);
    EXPECT_GE(done, n);
    EXPECT_LT(done, n + 10'000);
  }
}

TEST_P(ProbeLoopsOf, MeasureAboutAsLongAsAsked) {
  ReadProbe probe(2, 64 << 20);
  EXPECT_EQ(probe.bytes(), 64u << 20);
  const auto start = std::chrono::steady_clock::now();
  for (const int n_threads : {1, 2}) {
    // Wide bounds: no machine is slower than a megabyte or faster than a hundred terabytes in a second.
    EXPECT_GT(probe.rate(set(), n_threads, 0.005), 1e6);
    EXPECT_LT(probe.rate(set(), n_threads, 0.005), 1e14);
    EXPECT_GT(multiply_rate(set(), n_threads, 0.005), 1e6);
    EXPECT_LT(multiply_rate(set(), n_threads, 0.005), 1e16);
  }
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(8 * 5));
}

TEST_P(ProbeLoopsOf, ReadMemoryThatIsThere) {
  const HostMemory memory(17 << 20, "bytes");
  for (const size_t begin : {0, 1, 64}) {
    ReadProbe probe({memory.data() + begin, memory.size() - begin});
    EXPECT_EQ(probe.bytes(), 16u << 20);
    EXPECT_GT(probe.rate(set(), 2, 0.005), 1e6);
  }
}

std::string set_name(const testing::TestParamInfo<size_t>& info) {
  return test::sets_and_twins()[info.param].set->name;
}
INSTANTIATE_TEST_SUITE_P(, ProbeLoopsOf, testing::Range(size_t{0}, test::sets_and_twins().size()), set_name);

}  // namespace
}  // namespace quern
