#include "quant/read_ahead.h"

#include <system_error>
#include <utility>
#include <vector>

namespace quern {

ReadAhead::ReadAhead(std::vector<Part> parts) {
  std::erase_if(parts, [](const Part& part) {
    if (part.bytes.empty()) return true;
    const auto begin = static_cast<uint64_t>(part.bytes.data() - part.file->bytes().data());
    return part.file->seems_in_memory(begin, part.bytes.size());
  });
  if (parts.empty()) return;
  for (const Part& part : parts) part.file->use_huge_pages();
  try {
    thread_ = std::thread([this, parts = std::move(parts)] {
      // What one fault maps where pages are small. The system reads more than this at once, and goes on to
      // the next piece when the last one is touched.
      constexpr uint64_t kStep = 64 << 10;
      for (const Part& part : parts)
        for (uint64_t at = 0; at < part.bytes.size() && !stop_.load(std::memory_order_relaxed); at += kStep)
          static_cast<void>(*static_cast<const volatile uint8_t*>(part.bytes.data() + at));
    });
  } catch (const std::system_error&) {
  }
}

ReadAhead::~ReadAhead() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

}  // namespace quern
