// How many threads are worth starting.
#pragma once

#include <span>
#include <string>

namespace quern {

// Physical cores within this process's affinity mask, not more than the cgroup's CPU quota (rounded down), at
// least 1.
struct CpuCount {
  int physical_cores;  // within affinity
  int affinity;        // logical CPUs in the mask
  int quota;           // of the cgroup, 0: none
  int usable;          // the number to use
};
CpuCount count_cpus();
// "physical cores", "the cgroup's CPU quota": what `usable` comes from.
const char* reason_of_usable(const CpuCount& count) noexcept;

// Of the logical `cpus`, on a file system that begins at `root` ("" for the real one). A CPU whose topology
// is missing or cannot be parsed is a core of its own.
int count_physical_cores(const std::string& root, std::span<const int> cpus);

}  // namespace quern
