#include "quant/machine/cache_sizes.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/fake_system.h"

namespace quern {
namespace {

using test::FakeSystem;

TEST(CacheSizes, CountDataAndUnifiedCaches) {
  const FakeSystem system;
  const auto cache = [&](int index, const char* level, const char* type, const char* size) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    system.write(folder + "level", level);
    system.write(folder + "type", type);
    system.write(folder + "size", size);
  };
  cache(0, "1\n", "Data\n", "48K\n");
  cache(1, "1\n", "Instruction\n", "32K\n");
  cache(2, "2\n", "Unified\n", "1280K\n");
  EXPECT_EQ(sysfs_cache_sizes(system.root()).last_level(), 1280u << 10);
  cache(3, "3\n", "Unified\n", "12M\n");
  const CacheSizes sizes = sysfs_cache_sizes(system.root());
  EXPECT_EQ(sizes.l1, 48u << 10);
  EXPECT_EQ(sizes.l2, 1280u << 10);
  EXPECT_EQ(sizes.l3, 12u << 20);
  EXPECT_EQ(sizes.last_level(), 12u << 20);
}

TEST(CacheSizes, AreZeroWhereNothingIsKnown) {
  const FakeSystem system;
  EXPECT_EQ(sysfs_cache_sizes(system.root()).last_level(), 0u);
  system.write("/sys/devices/system/cpu/cpu0/cache/index0/type", "Data\n");
  system.write("/sys/devices/system/cpu/cpu0/cache/index0/level", "1\n");
  system.write("/sys/devices/system/cpu/cpu0/cache/index0/size", "big\n");
  EXPECT_EQ(sysfs_cache_sizes(system.root()).l1, 0u);
}

TEST(CacheSizes, OfThisMachineGrowWithTheLevel) {
  const CacheSizes& sizes = cache_sizes();
  if (sizes.l1 == 0) GTEST_SKIP() << "neither sysfs nor cpuid tells";
  EXPECT_GE(sizes.l1, 8u << 10);
  EXPECT_GE(sizes.last_level(), sizes.l1);
}

}  // namespace
}  // namespace quern
