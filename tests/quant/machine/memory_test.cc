#include "quant/machine/memory.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <vector>

#include "quant/error.h"
#include "quant/machine/disk_rate.h"
#include "quant/machine/system_files.h"
#include "tests/support/fake_system.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

using test::FakeSystem;
using test::TempFolder;

TEST(HugePages, ModeIsTheOneInBrackets) {
  const FakeSystem system;
  EXPECT_EQ(huge_page_mode(system.root()), "");
  system.write("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  EXPECT_EQ(huge_page_mode(system.root()), "madvise");
  system.write("/sys/kernel/mm/transparent_hugepage/enabled", "]broken[\n");
  EXPECT_EQ(huge_page_mode(system.root()), "");
}

TEST(Memory, AvailableIsLessThanTheMachineHas) {
  if (total_memory() == 0) GTEST_SKIP() << "/proc/meminfo does not tell";
  EXPECT_GT(available_memory(), 0u);
  EXPECT_LE(available_memory(), total_memory());
  EXPECT_LE(peak_memory(), total_memory());
}

TEST(Memory, PeakIsWhatWasTakenAtMost) {
  constexpr uint64_t kTaken = 256 << 20;
  const uint64_t before = peak_memory();
  {
    const std::vector<char> taken(kTaken, 1);
    EXPECT_EQ(taken[kTaken / 2], 1);
  }
  EXPECT_GE(peak_memory(), kTaken) << "given back, and still the peak";
  EXPECT_LE(peak_memory(), before + kTaken + (64 << 20));
}

TEST(Memory, IsLockedOrTheLimitIsNamed) {
  if (QUERN_SANITIZED) GTEST_SKIP() << "sanitizers lock no memory";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    try {
      lock_memory(1);
      ::_exit(read_field("/proc/self/status", "VmLck").value_or(0) > 0 ? 0 : 1);
    } catch (const Error& error) {
      ::_exit(std::string(error.what()).find("ulimit -l") != std::string::npos ? 0 : 2);
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(DiskRate, IsPlausibleOrNotKnown) {
  const TempFolder folder;
  EXPECT_EQ(disk_read_rate(folder.file("absent")), 0);
  EXPECT_EQ(disk_read_rate(folder.write("short", "text")), 0);
  const double rate = disk_read_rate(folder.write("long", std::string(20 << 20, 'x')));
  EXPECT_TRUE(rate == 0 || (rate > 1e5 && rate < 1e12)) << rate;
}

}  // namespace
}  // namespace quern
