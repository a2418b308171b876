#include "quant/read_ahead.h"

#include <system_error>

namespace quern {

ReadAhead::ReadAhead(const MappedFile& file, std::span<const uint8_t> part) {
  if (part.empty()) return;
  const uint64_t begin = static_cast<uint64_t>(part.data() - file.bytes().data());
  if (file.seems_in_memory(begin, part.size())) return;
  file.use_huge_pages();
  try {
    thread_ = std::thread([this, part] {
      // What one fault maps where pages are small. The system reads more than this at once, and goes on to
      // the next piece when the last one is touched.
      constexpr uint64_t kStep = 64 << 10;
      for (uint64_t at = 0; at < part.size() && !stop_.load(std::memory_order_relaxed); at += kStep)
        static_cast<void>(*static_cast<const volatile uint8_t*>(part.data() + at));
    });
  } catch (const std::system_error&) {
  }
}

ReadAhead::~ReadAhead() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

}  // namespace quern
