#include "quant/machine/cgroup.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/fake_system.h"

namespace quern {
namespace {

using test::FakeSystem;

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
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 2);  // 2.5, rounded down
  system.write("/sys/fs/cgroup/a.slice/b.scope/cpu.max", "50000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 1);
  system.write("/sys/fs/cgroup/a.slice/b.scope/cpu.max", "400000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(system.root()), 2);
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

TEST(CgroupMemory, IsUnlimitedWhereNothingCanBeRead) {
  const FakeSystem system;
  EXPECT_EQ(cgroup_memory_room(system.root()), UINT64_MAX);
  system.write("/proc/self/cgroup", "0::/a\n");
  system.write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  system.write("/sys/fs/cgroup/a/memory.max", "max\n");
  system.write("/sys/fs/cgroup/a/memory.current", "1000\n");
  EXPECT_EQ(cgroup_memory_room(system.root()), UINT64_MAX);
}

TEST(CgroupMemory, OfVersionTwoIsTheLeastRoomOnTheWayUpAndPageCacheIsFree) {
  const FakeSystem system;
  system.write("/proc/self/cgroup", "0::/a.slice/b.scope\n");
  system.write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  system.write("/sys/fs/cgroup/a.slice/b.scope/memory.max", "5000\n");
  system.write("/sys/fs/cgroup/a.slice/b.scope/memory.current", "3000\n");
  EXPECT_EQ(cgroup_memory_room(system.root()), 2000u);
  system.write("/sys/fs/cgroup/a.slice/b.scope/memory.stat", "anon 1\ninactive_file 400\nactive_file 100\n");
  EXPECT_EQ(cgroup_memory_room(system.root()), 2500u);
  system.write("/sys/fs/cgroup/a.slice/memory.max", "4000\n");
  system.write("/sys/fs/cgroup/a.slice/memory.current", "3500\n");
  EXPECT_EQ(cgroup_memory_room(system.root()), 500u);
  system.write("/sys/fs/cgroup/a.slice/memory.current", "4500\n");
  EXPECT_EQ(cgroup_memory_room(system.root()), 0u) << "more is used than allowed";
}

TEST(CgroupMemory, OfVersionOneIsReadFromTheMemoryController) {
  const FakeSystem system;
  system.write("/proc/self/cgroup", "8:cpu,cpuacct:/x\n7:memory:/docker/abc\n0::/y\n");
  system.write("/proc/self/mountinfo",
               "36 31 0:32 /docker/abc /mounted/memory rw - cgroup cgroup rw,memory\n");
  system.write("/mounted/memory/memory.limit_in_bytes", "9000\n");
  system.write("/mounted/memory/memory.usage_in_bytes", "8000\n");
  system.write("/mounted/memory/memory.stat",
               "inactive_file 1\ntotal_inactive_file 500\ntotal_active_file 20\n");
  EXPECT_EQ(cgroup_memory_room(system.root()), 1520u);
}

// The mount shows /a; the process is in /ab, which is not below it.
TEST(CgroupMemory, AGroupBesideTheMountedSubtreeIsNotTakenForOneBelowIt) {
  const FakeSystem system;
  system.write("/proc/self/cgroup", "0::/ab\n");
  system.write("/proc/self/mountinfo", "30 23 0:26 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  system.write("/sys/fs/cgroup/memory.max", "300\n");
  system.write("/sys/fs/cgroup/memory.current", "100\n");
  EXPECT_EQ(cgroup_memory_room(system.root()), 200u);
}

}  // namespace
}  // namespace quern
