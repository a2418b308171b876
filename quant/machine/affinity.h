// Which CPUs threads may run on: their affinity masks. Failures of the system's calls change nothing.
#pragma once

#include <bitset>
#include <optional>
#include <vector>

namespace quern {

// Of CPUs 0 .. 1023, as glibc's cpu_set_t; masks of larger machines are not changed.
using CpuSet = std::bitset<1024>;

// The system's number of the calling thread.
int this_thread_id();
// The CPU that the calling thread runs on; -1 where the system does not say.
int this_cpu();

// The mask of a thread; nothing where the system does not say.
std::optional<CpuSet> thread_affinity(int thread_id);
bool set_thread_affinity(int thread_id, const CpuSet& cpus);

// The CPUs of the calling thread's mask, in ascending order, however many there are; all that exist where the
// system does not say.
std::vector<int> affinity_cpus();

}  // namespace quern
