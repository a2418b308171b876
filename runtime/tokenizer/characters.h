// Single characters of UTF-8 text, what Unicode says of them, and their replacement.
#pragma once

#include <string>
#include <string_view>

namespace quern {

// Where a text is malformed, one byte counts as a character. Empty for an empty text.
std::string_view first_character(std::string_view text);
std::string_view last_character(std::string_view text);

// Of one character; false for a malformed or empty one. Thread-safe.
bool is_white_space(std::string_view character);     // White_Space
bool is_word_character(std::string_view character);  // letters, marks, numbers, connectors: \w of PCRE2

// `text` with `to` wherever it has `from`, which is not empty.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

}  // namespace quern
