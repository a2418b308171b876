#include "runtime/template/search.h"

#include <cstring>

namespace quern::jinja {
namespace {

constexpr size_t kNowhere = std::string_view::npos;
// Up to here the product is small, and no text need be turned round.
constexpr size_t kShort = 16;

}  // namespace

size_t find_text(std::string_view text, std::string_view wanted, size_t from) {
  if (wanted.size() <= kShort) return text.find(wanted, from);
  if (from > text.size()) return kNowhere;
  // glibc's is the two-way algorithm (Crochemore, Perrin: Two-Way String-Matching, 1991).
  const void* const found = memmem(text.data() + from, text.size() - from, wanted.data(), wanted.size());
  return found == nullptr ? kNowhere : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

SearchFromRight::SearchFromRight(std::string_view text, std::string_view wanted)
    : text_(text), wanted_(wanted) {
  if (wanted.size() <= kShort) return;
  text_backwards_.assign(text.rbegin(), text.rend());
  wanted_backwards_.assign(wanted.rbegin(), wanted.rend());
}

size_t SearchFromRight::find_before(size_t end) const {
  if (end < wanted_.size()) return kNowhere;
  if (wanted_.size() <= kShort) return text_.rfind(wanted_, end - wanted_.size());
  const size_t found = find_text(text_backwards_, wanted_backwards_, text_.size() - end);
  return found == kNowhere ? kNowhere : text_.size() - found - wanted_.size();
}

}  // namespace quern::jinja
