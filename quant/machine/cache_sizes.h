// How large the CPU's caches are.
#pragma once

#include <cstdint>
#include <string>

namespace quern {

// Bytes of the first CPU's data and unified caches; 0: none, or not known.
struct CacheSizes {
  uint64_t l1, l2, l3;

  uint64_t last_level() const { return l3 != 0 ? l3 : l2 != 0 ? l2 : l1; }
};
// From sysfs; what that does not tell, from cpuid. Read once; thread-safe.
const CacheSizes& cache_sizes();

// sysfs's part, on a file system that begins at `root` ("" for the real one). What is missing or cannot be
// parsed counts as absent.
CacheSizes sysfs_cache_sizes(const std::string& root);

}  // namespace quern
