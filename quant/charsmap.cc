#include "quant/charsmap.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "quant/error.h"

namespace quern {
namespace {

// A unit of the double array. A text's byte c leads from a node with base b to unit b ^ c, if that is
// labelled c.
struct Unit {
  uint32_t bits;
  uint32_t label() const { return bits & (1u << 31 | 0xFF); }
  uint32_t offset() const { return (bits >> 10) << ((bits & (1u << 9)) >> 6); }
  bool has_leaf() const { return (bits >> 8 & 1) != 0; }
  uint32_t value() const { return bits & ((1u << 31) - 1); }
};

// u32 bytes of the array, the array, then texts that end in NUL each.
struct Parts {
  std::vector<Unit> units;
  std::string_view texts;
};

Parts take_apart(std::string_view charsmap, const std::string& where) {
  uint32_t n_bytes = 0;
  if (charsmap.size() > sizeof(n_bytes)) std::memcpy(&n_bytes, charsmap.data(), sizeof(n_bytes));
  charsmap.remove_prefix(std::min(charsmap.size(), sizeof(n_bytes)));
  if (n_bytes == 0 || n_bytes % sizeof(Unit) != 0 || n_bytes >= charsmap.size()) {
    fail(ErrorCode::kMalformed,
         "{}: the normalizer's precompiled_charsmap: an array of {} bytes in a map of {}", where, n_bytes,
         charsmap.size());
  }
  Parts parts;
  parts.units.resize(n_bytes / sizeof(Unit));
  std::memcpy(parts.units.data(), charsmap.data(), n_bytes);
  parts.texts = charsmap.substr(n_bytes);
  if (parts.texts.back() != '\0')
    fail(ErrorCode::kMalformed, "{}: the normalizer's precompiled_charsmap: its last text does not end",
         where);
  return parts;
}

}  // namespace

void check_charsmap(std::string_view charsmap, const std::string& where) {
  if (charsmap.empty()) return;
  const Parts parts = take_apart(charsmap, where);
  const std::vector<Unit>& units = parts.units;
  const auto require = [&](bool inside, uint32_t unit) {
    if (!inside)
      fail(ErrorCode::kMalformed, "{}: the normalizer's precompiled_charsmap: unit {} leads outside", where,
           unit);
  };
  std::vector<bool> seen(units.size());
  std::vector<uint32_t> waiting = {0};
  seen[0] = true;
  while (!waiting.empty()) {
    const uint32_t node = waiting.back();
    waiting.pop_back();
    const uint32_t base = node ^ units[node].offset();
    // The lookup reads b ^ c for any byte c.
    require((base | 0xFF) < units.size(), node);
    if (node != 0 && units[node].has_leaf()) require(units[base].value() < parts.texts.size(), node);
    for (uint32_t c = 0; c < 256; ++c) {
      const uint32_t next = base ^ c;
      if (units[next].label() != c || seen[next]) continue;
      seen[next] = true;
      waiting.push_back(next);
    }
  }
}

}  // namespace quern
