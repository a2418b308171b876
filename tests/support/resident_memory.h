// How much of a range of memory, or of the process, lies in memory now. Linux.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

namespace quern::test {

// Bytes of this process that are in memory, exactly: smaps_rollup is counted page by page, where statm and
// status may be off by some hundred pages per CPU of the machine.
inline int64_t resident_bytes() {
  std::ifstream rollup("/proc/self/smaps_rollup");
  std::string line;
  std::getline(rollup, line);  // the range of addresses
  std::string name;
  int64_t kib = 0;
  rollup >> name >> kib;
  return name == "Rss:" ? kib * 1024 : -1;
}

// Bytes of the whole pages that hold [begin, begin + n_bytes), mapped memory, that are in memory: nothing
// that the rest of the process or its sanitizer takes meanwhile counts. -1 where the system does not say.
inline int64_t resident_bytes(const void* begin, uint64_t n_bytes) {
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t address = reinterpret_cast<uintptr_t>(begin), first = address / page * page;
  const uint64_t n_pages = (address + n_bytes - first + page - 1) / page;
  std::vector<unsigned char> in_memory(n_pages);
  if (mincore(reinterpret_cast<void*>(first), n_pages * page, in_memory.data()) != 0) return -1;
  const auto is_in = [](unsigned char flags) { return (flags & 1) != 0; };
  return static_cast<int64_t>(page) * std::count_if(in_memory.begin(), in_memory.end(), is_in);
}

}  // namespace quern::test
