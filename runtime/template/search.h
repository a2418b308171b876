// Searches in text whose time is linear in it, whatever is searched: std::string_view's takes the product of
// both lengths for texts made for it, such as megabytes of one letter.
#pragma once

#include <string>
#include <string_view>

namespace quern::jinja {

// As std::string_view's: the first place at or behind `from`, npos where there is none.
size_t find_text(std::string_view text, std::string_view wanted, size_t from = 0);

// The same from the right, one search after another. Views what it is given.
class SearchFromRight {
 public:
  SearchFromRight(std::string_view text, std::string_view wanted);
  // The last place where `wanted` ends at or before `end`; npos where there is none.
  size_t find_before(size_t end) const;

 private:
  std::string_view text_, wanted_;
  std::string text_backwards_, wanted_backwards_;  // where `wanted` is long
};

}  // namespace quern::jinja
