// Reading a mapped file from its disk while others compute from it.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

#include "quant/mapped_file.h"

namespace quern {

// Brings parts of mapped files into memory from a thread of its own, one after the other, each in ascending
// order. It asks for huge pages, which the page cache keeps: mapping them, now and in later processes, takes
// a tenth of the faults. Several threads that compute would touch the file in an order in which the system
// sees no sequence. A hint: no effect on contents, and none at all where the part seems to be in memory
// already or no thread can be had.
class ReadAhead {
 public:
  struct Part {
    const MappedFile* file;          // must outlive the reading
    std::span<const uint8_t> bytes;  // of file->bytes(); may be empty
  };
  explicit ReadAhead(std::vector<Part> parts);
  // Stops reading, after one piece at most.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace quern
