#include "kernels/cpu_features.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string_view>

#include "tests/support/temp_folder.h"

namespace quern {
namespace {

// A file system of a test's own below a folder.
class FakeSystem {
 public:
  void write(const std::string& path, std::string_view content) const {
    const std::filesystem::path full = root() + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << content;
  }
  std::string root() const { return folder_.path().string(); }

 private:
  test::TempFolder folder_;
};

std::string topology(int cpu, const char* file) {
  return "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/" + file;
}

TEST(CpuFeatures, AreReadOnceAndAgreeWithTheCompiler) {
  EXPECT_EQ(&cpu_features(), &cpu_features());
#if defined(__x86_64__)
  EXPECT_EQ(cpu_features().avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(cpu_features().fma, __builtin_cpu_supports("fma") != 0);
  EXPECT_EQ(cpu_features().avx512_vnni, __builtin_cpu_supports("avx512vnni") != 0);
#endif
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

TEST(CgroupQuota, IsNoneWhereNothingCanBeRead) {
  const FakeSystem system;
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 0);
  system.write("/proc/self/cgroup", "nonsense\n::\n0:\n");
  system.write("/proc/self/mountinfo", "1 2 3\n\n- - -\n");
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 0);
}

TEST(CgroupQuota, OfVersionTwoIsTheTightestOnTheWayUp) {
  const FakeSystem system;
  system.write("/proc/self/cgroup", "0::/a.slice/b.scope\n");
  system.write("/proc/self/mountinfo",
               "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n");
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 0);
  system.write("/sys/fs/cgroup/a.slice/b.scope/cpu.max", "max 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 0);
  system.write("/sys/fs/cgroup/a.slice/cpu.max", "250000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 3);  // 2.5, rounded up
  system.write("/sys/fs/cgroup/a.slice/b.scope/cpu.max", "50000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 1);
  system.write("/sys/fs/cgroup/a.slice/b.scope/cpu.max", "400000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 3);
}

TEST(CgroupQuota, OfVersionOneIsReadFromTheCpuController) {
  const FakeSystem system;
  system.write("/proc/self/cgroup", "9:cpuset:/x\n4:cpu,cpuacct:/docker/abc\n0::/y\n");
  // A container sees its own part of the hierarchy as the root of the mount.
  system.write("/proc/self/mountinfo",
               "35 31 0:31 /x /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
               "36 31 0:32 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
  system.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  system.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 0);
  system.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 2);
}

TEST(CgroupQuota, IgnoresFilesThatMakeNoSense) {
  const FakeSystem system;
  system.write("/proc/self/cgroup", "0::/\n");
  system.write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  for (const char* text : {"", "x y", "100000", "100000 0", "-5 100000", "nan 1", "\xff\xfe"}) {
    system.write("/sys/fs/cgroup/cpu.max", text);
    EXPECT_EQ(cgroup_cpu_quota(system.root()), 0) << text;
  }
}

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

TEST(HugePages, ModeIsTheOneInBrackets) {
  const FakeSystem system;
  EXPECT_EQ(huge_page_mode(system.root()), "");
  system.write("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  EXPECT_EQ(huge_page_mode(system.root()), "madvise");
  system.write("/sys/kernel/mm/transparent_hugepage/enabled", "]broken[\n");
  EXPECT_EQ(huge_page_mode(system.root()), "");
}

}  // namespace
}  // namespace quern
