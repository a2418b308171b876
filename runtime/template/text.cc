#include "runtime/template/text.h"

#include <algorithm>

#include "quant/utf8.h"

namespace quern::jinja {

size_t Text::first_run(size_t byte) const {
  const auto after = std::upper_bound(runs_.begin(), runs_.end(), byte,
                                      [](size_t value, const Run& run) { return value < run.end; });
  return static_cast<size_t>(after - runs_.begin());
}

Origin Text::origin_at(size_t byte) const { return runs_.empty() ? origin_ : runs_[first_run(byte)].origin; }

void Text::append(std::string_view bytes, Origin origin) {
  if (bytes.empty()) return;
  if (bytes_.empty()) {
    origin_ = origin;
    runs_.clear();
  } else if (runs_.empty() && origin != origin_) {
    runs_.push_back({bytes_.size(), origin_});
  }
  bytes_ += bytes;
  if (runs_.empty()) return;
  if (runs_.back().origin == origin)
    runs_.back().end = bytes_.size();
  else
    runs_.push_back({bytes_.size(), origin});
}

void Text::append(const Text& other, size_t begin, size_t end) {
  other.for_each_run(begin, end, [this](std::string_view bytes, Origin origin) { append(bytes, origin); });
}

Text Text::part(size_t begin, size_t end) const {
  Text text;
  text.append(*this, begin, end);
  return text;
}

size_t char_bytes(std::string_view text, size_t at) noexcept {
  return std::max<size_t>(utf8_length(text.substr(at)), 1);
}

size_t count_chars(std::string_view text) noexcept {
  size_t n = 0;
  for (size_t at = 0; at < text.size(); ++n)
    at += static_cast<uint8_t>(text[at]) < 0x80 ? 1 : char_bytes(text, at);
  return n;
}

size_t byte_of_char(std::string_view text, size_t index) noexcept {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += char_bytes(text, at);
  return at;
}

}  // namespace quern::jinja
