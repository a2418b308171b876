#pragma once

#include <cstdint>
#include <fstream>
#include <string>

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

}  // namespace quern::test
