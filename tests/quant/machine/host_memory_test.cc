#include "quant/machine/host_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "quant/error.h"
#include "tests/support/resident_memory.h"

namespace quern {
namespace {

constexpr uint64_t kHugePage = uint64_t{2} << 20;

TEST(HostMemory, IsZeroedAlignedAndWritableToItsEnd) {
  for (const uint64_t n : {uint64_t{1}, uint64_t{100}, kHugePage - 1, kHugePage, 2 * kHugePage + 5}) {
    const HostMemory memory(n, "test");
    ASSERT_EQ(memory.size(), n);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % (n < kHugePage ? 64 : kHugePage), 0u);
    EXPECT_TRUE(std::all_of(memory.data(), memory.data() + n, [](uint8_t byte) { return byte == 0; }));
    std::fill(memory.data(), memory.data() + n, uint8_t{1});
  }
  EXPECT_EQ(HostMemory(0, "test").data(), nullptr);
}

TEST(HostMemory, TakesOnePageForATouchWhereSmallPagesAreUsed) {
  constexpr uint64_t kPages = 32;
  const HostMemory memory((kPages + 1) * kHugePage, "test");
  memory.use_small_pages(kPages * kHugePage);
  for (uint64_t i = 0; i < kPages; ++i) memory.data()[i * kHugePage] = 1;
  EXPECT_EQ(test::resident_bytes(memory.data(), kPages * kHugePage), kPages * sysconf(_SC_PAGESIZE));
  HostMemory(100, "test").use_small_pages(50);  // not of pages of its own: nothing to do
}

TEST(HostMemory, TakesNoMorePagesThanItsBytesNeed) {
  constexpr uint64_t kBytes = kHugePage + (uint64_t{200} << 10);
  constexpr int kBlocks = 20;
  const int64_t before = test::resident_bytes();
  std::vector<HostMemory> blocks;
  for (int i = 0; i < kBlocks; ++i) {
    blocks.emplace_back(kBytes, "test");
    std::fill(blocks.back().data(), blocks.back().data() + kBytes, uint8_t{1});
  }
  const int64_t taken = test::resident_bytes() - before;
  EXPECT_GT(taken, kBlocks * static_cast<int64_t>(kBytes) - (4 << 20)) << "measures nothing";
  EXPECT_LT(taken, kBlocks * static_cast<int64_t>(kBytes) + (4 << 20));  // 36 MiB more in huge pages alone
}

TEST(HostMemory, Moves) {
  HostMemory a(10, "a"), b(3 * kHugePage, "b");
  uint8_t *const a_data = a.data(), *const b_data = b.data();
  a.data()[9] = 1;
  std::swap(a, b);
  EXPECT_EQ(a.data(), b_data);
  EXPECT_EQ(b.data(), a_data);
  const HostMemory c(std::move(b));
  EXPECT_EQ(c.data()[9], 1);
  EXPECT_EQ(c.size(), 10u);
}

TEST(HostMemory, RefusalNamesWhatItWasFor) {
  for (const uint64_t n : {uint64_t{1} << 50, std::numeric_limits<uint64_t>::max()}) {
    try {
      const HostMemory memory(n, "the KV cache");
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kResource);
      EXPECT_NE(std::string_view(error.what()).find("the KV cache"), std::string_view::npos);
    }
  }
}

}  // namespace
}  // namespace quern
