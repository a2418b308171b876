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

}  // namespace
}  // namespace quern
