// "Did you mean ...?"
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace quern {

// The candidate that `word` is most likely a misspelling of, or, where none is near, the first that it is the
// beginning of; empty: neither.
std::string_view closest(std::string_view word, std::span<const std::string> candidates);

// " (did you mean 'x'?)", or nothing.
std::string suggestion(std::string_view word, std::span<const std::string> candidates);

}  // namespace quern
