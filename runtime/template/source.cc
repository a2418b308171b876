#include "runtime/template/source.h"

#include <algorithm>

#include "runtime/template/text.h"

namespace quern::jinja {

Source::Source(std::string_view text, std::string name) : name_(std::move(name)) {
  if (text.size() > kMaxTemplateBytes)
    fail(ErrorCode::kMalformed, "{}: the template has {} bytes, at most {} are supported", name_, text.size(),
         kMaxTemplateBytes);
  text_.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_return = text[i] == '\r';
    text_ += is_return ? '\n' : text[i];
    if (is_return && i + 1 < text.size() && text[i + 1] == '\n') ++i;
  }
  if (!text_.empty() && text_.back() == '\n') text_.pop_back();
}

void Source::refuse(size_t offset, std::string_view message) const {
  const std::string_view before = text().substr(0, std::min(offset, text_.size()));
  const size_t line = 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n'));
  const size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0
  constexpr size_t kMaxMessageBytes = 2000;
  fail(ErrorCode::kMalformed, "{} ({}, line {}, column {})", printable(message, kMaxMessageBytes), name_,
       line, 1 + count_chars(before.substr(line_start)));
}

}  // namespace quern::jinja
