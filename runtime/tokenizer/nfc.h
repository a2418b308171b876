// Unicode's normalization form C, which some tokenizers bring text into first. Source: Unicode Standard Annex
// #15, and chapter 3.12 of The Unicode Standard for Hangul; characters of Unicode 14.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace quern {

// The text in form C; none where it is so already, as most texts are. Bytes that are no UTF-8 stay, and
// nothing is composed across them.
std::optional<std::string> to_nfc(std::string_view text);

}  // namespace quern
