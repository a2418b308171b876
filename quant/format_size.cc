#include "quant/format_size.h"

#include <fmt/format.h>

namespace quern {

std::string format_size(uint64_t bytes, SizeUnit smallest) {
  const double b = static_cast<double>(bytes);
  if (bytes >= 1ull << 30) return fmt::format("{:.2f} GiB", b / 0x1p30);
  if (bytes >= 1ull << 20 || smallest == SizeUnit::kMiB) return fmt::format("{:.2f} MiB", b / 0x1p20);
  if (bytes >= 1ull << 10) return fmt::format("{:.2f} KiB", b / 0x1p10);
  return fmt::format("{} bytes", bytes);
}

}  // namespace quern
