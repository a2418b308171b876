// A place in the text of a grammar or an expression, which moves forward: what its parsers have in common.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/engine/grammar.h"

namespace quern {

class GrammarReader {
 protected:
  // How often something stands; no max: any number of times.
  struct Count {
    size_t min;
    std::optional<size_t> max;
  };

  // The text outlives the reader.
  explicit GrammarReader(std::string_view text) : text_(text) {}
  ~GrammarReader() = default;

  // Throws kMalformed with the place and why.
  [[noreturn]] virtual void refuse(const std::string& why) const = 0;

  // '\0' behind the end.
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  // Moves behind `expected` where that stands here.
  bool take(std::string_view expected) {
    if (!text_.substr(at_).starts_with(expected)) return false;
    at_ += expected.size();
    return true;
  }
  // Of a count; refuses what is no number, or beyond what a grammar may ask for.
  size_t parse_number() {
    size_t value = 0;
    const size_t begin = at_;
    for (; peek() >= '0' && peek() <= '9'; ++at_) {
      value = value * 10 + static_cast<size_t>(peek() - '0');
      if (value > GrammarBuilder::kMaxCount)
        refuse(fmt::format("a count of more than {}", GrammarBuilder::kMaxCount));
    }
    if (at_ == begin) refuse("expected a number in the count");
    return value;
  }

  const std::string_view text_;
  size_t at_ = 0;
};

}  // namespace quern
