// Case and classes of characters, as Python's str has them.
#pragma once

#include <string>

namespace quern::jinja {

// What str.isspace, str.strip and the regular expression \s take for white space.
bool is_space(char32_t c) noexcept;
bool is_line_end(char32_t c) noexcept;  // of str.splitlines
// Letters beyond ASCII follow the C library's tables for UTF-8.
bool is_alphabetic(char32_t c) noexcept;
bool is_decimal(char32_t c) noexcept;
bool is_upper(char32_t c) noexcept;
bool is_lower(char32_t c) noexcept;
bool is_printable(char32_t c) noexcept;  // shown as itself by repr()
// One character may become two ("\u00DF" -> "SS").
void append_upper(char32_t c, std::string* out);
void append_lower(char32_t c, std::string* out);
void append_title(char32_t c, std::string* out);   // "\u00DF" -> "Ss"
void append_folded(char32_t c, std::string* out);  // str.casefold

}  // namespace quern::jinja
