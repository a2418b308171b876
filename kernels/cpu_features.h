// What the CPU and the operating system allow (cpuid and xgetbv).
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace quern {

struct CpuFeatures {
  bool avx2 = false, fma = false, f16c = false;
  bool avx512 = false;       // F, BW, VL, DQ
  bool avx512_vnni = false;  // and avx512
  bool avx_vnni = false;
  std::string model_name;  // "AMD EPYC ..."; empty when unknown
};

// Read once; the same object afterwards. Thread-safe.
const CpuFeatures& cpu_features();

// Threads that are worth starting: physical cores within this process's affinity mask, not more than the
// cgroup's CPU quota (rounded up), at least 1.
struct CpuCount {
  int physical_cores;  // within affinity
  int affinity;        // logical CPUs in the mask
  int quota;           // of the cgroup, 0: none
  int usable;          // the number to use
};
CpuCount count_cpus();
// "physical cores", "the cgroup's CPU quota": what `usable` comes from.
const char* reason_of_usable(const CpuCount& count) noexcept;

// Bytes of the first CPU's data and unified caches; 0: none, or not known.
struct CacheSizes {
  uint64_t l1, l2, l3;

  uint64_t last_level() const { return l3 != 0 ? l3 : l2 != 0 ? l2 : l1; }
};
// From sysfs; what that does not tell, from cpuid. Read once; thread-safe.
const CacheSizes& cache_sizes();

// The parts of the above, on a file system that begins at `root` ("" for the real one). What is missing or
// cannot be parsed counts as absent: a CPU without topology is a core of its own, a cgroup without a quota
// sets none.
int count_physical_cores(const std::string& root, std::span<const int> cpus);
// The tightest CPU quota of this process's cgroup (version 1 or 2) and its ancestors, rounded up; 0: none.
int cgroup_cpu_quota(const std::string& root);
CacheSizes sysfs_cache_sizes(const std::string& root);
// How the system backs memory with huge pages: "always", "madvise" (where it is asked to, as quern does),
// "never"; empty: not known.
std::string huge_page_mode(const std::string& root);

}  // namespace quern
