// Which of many texts another text begins with.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace quern {

// Calls visit(item) for each item whose `text` (not empty) `text` begins with, the shortest first. items:
// sorted by text, as unsigned bytes, each text once. Narrows the range of items that begin as `text` does,
// byte by byte.
template <class Items, class Visit>
void for_each_prefix(const Items& items, std::string_view text, Visit visit) {
  using Item = typename Items::value_type;
  auto low = items.begin(), high = items.end();
  for (size_t depth = 0; low != high; ++depth) {
    if (low->text.size() == depth) {
      visit(*low);
      ++low;
    }
    if (depth == text.size()) break;
    const auto byte_before = [depth](const Item& item, uint8_t byte) {
      return static_cast<uint8_t>(item.text[depth]) < byte;
    };
    const auto byte_after = [depth](uint8_t byte, const Item& item) {
      return byte < static_cast<uint8_t>(item.text[depth]);
    };
    const auto byte = static_cast<uint8_t>(text[depth]);
    low = std::lower_bound(low, high, byte, byte_before);
    high = std::upper_bound(low, high, byte, byte_after);
  }
}

}  // namespace quern
