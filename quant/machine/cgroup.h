// What the control groups that this process is in allow it: cgroups(7), version 1 and 2, also where a
// container sees its part of the hierarchy only. Limits hold for a group and all its ancestors: the tightest
// counts.
//
// On a file system that begins at `root` ("" for the real one). What is missing or cannot be parsed sets no
// limit.
#pragma once

#include <cstdint>
#include <string>

namespace quern {

// CPUs, rounded down, but at least 1; 0: no quota.
int cgroup_cpu_quota(const std::string& root = "");
// Bytes that may still be taken; page cache, which the kernel takes back when memory is needed, counts as
// free. UINT64_MAX: no limit.
uint64_t cgroup_memory_room(const std::string& root = "");

}  // namespace quern
