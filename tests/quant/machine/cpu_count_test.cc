#include "quant/machine/cpu_count.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/fake_system.h"

namespace quern {
namespace {

using test::FakeSystem;

std::string topology(int cpu, const char* file) {
  return "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/" + file;
}

TEST(CpuCount, UsesNoMoreThanItMay) {
  const CpuCount count = count_cpus();
  EXPECT_GE(count.usable, 1);
  EXPECT_GE(count.affinity, count.physical_cores);
  EXPECT_LE(count.usable, count.physical_cores);
  EXPECT_LE(count.usable, count.quota > 0 ? count.quota : count.affinity);
}

TEST(CpuCount, CountsThreadsOfOneCoreOnce) {
  const FakeSystem system;
  for (const int cpu : {0, 1, 2, 3})
    system.write(topology(cpu, "thread_siblings_list"), cpu % 2 ? "1,3\n" : "0,2\n");
  EXPECT_EQ(count_physical_cores(system.root(), std::vector{0, 1, 2, 3}), 2);
  EXPECT_EQ(count_physical_cores(system.root(), std::vector{0, 2}), 1);
  EXPECT_EQ(count_physical_cores(system.root(), std::vector{3}), 1);
}

TEST(CpuCount, TellsCoresOfTwoPackagesApart) {
  const FakeSystem system;
  for (const int cpu : {0, 1, 2, 3}) {
    system.write(topology(cpu, "core_id"), cpu % 2 ? "1\n" : "0\n");
    system.write(topology(cpu, "physical_package_id"), cpu / 2 ? "1\n" : "0\n");
  }
  EXPECT_EQ(count_physical_cores(system.root(), std::vector{0, 1, 2, 3}), 4);
}

TEST(CpuCount, TakesCpusWithoutTopologyForCores) {
  const FakeSystem system;
  EXPECT_EQ(count_physical_cores(system.root(), std::vector{0, 1, 5}), 3);
}

}  // namespace
}  // namespace quern
