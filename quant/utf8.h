// UTF-8, one character at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace quern {

// Bytes of the well-formed character that `text` begins with; 0 when it begins with none (empty or malformed:
// truncated, overlong, a surrogate, above U+10FFFF). Source: The Unicode Standard 15.0, table 3-7.
inline size_t utf8_length(std::string_view text) noexcept {
  const auto byte = [&](size_t i) -> uint8_t { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const uint8_t first = byte(0), second = byte(1);
  if (text.empty()) return 0;
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool overlong = first == 0xE0 && second < 0xA0;
    const bool surrogate = first == 0xED && second > 0x9F;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool overlong = first == 0xF0 && second < 0x90;
    const bool too_large = first == 0xF4 && second > 0x8F;
    return continues(1) && continues(2) && continues(3) && !overlong && !too_large ? 4 : 0;
  }
  return 0;
}

inline bool is_valid_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

// A-Z become a-z; all other bytes stay.
inline char lower_ascii(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
inline std::string lower_ascii(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = lower_ascii(c);
  return lower;
}

// What UTF-16 begins with is not UTF-8.
inline bool begins_like_utf16(std::string_view text) noexcept {
  return text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF");
}

inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// Takes it off where the text begins with one; was it there?
inline bool skip_byte_order_mark(std::string* text) {
  if (!text->starts_with(kByteOrderMark)) return false;
  text->erase(0, kByteOrderMark.size());
  return true;
}

// Why a text that begins with a byte order mark is not read, and what to do: the end of an error message.
// Empty where it begins with none.
inline std::string_view byte_order_problem(std::string_view text) noexcept {
  if (begins_like_utf16(text))
    return "is UTF-16, expected UTF-8: iconv -f UTF-16 -t UTF-8 turns it into that";
  if (text.starts_with(kByteOrderMark))
    return "begins with a byte order mark (EF BB BF), expected UTF-8 without one: tail -c +4 leaves it off";
  return "";
}

// `text` with U+FFFD for each byte that is part of no character.
inline std::string well_formed_utf8(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    out += length == 0 ? std::string_view("\uFFFD") : text.substr(0, length);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

// Of one character; one byte that is none is U+FFFD.
inline char32_t code_point(std::string_view character) noexcept {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(character[i])); };
  switch (character.size()) {
    case 1:
      return byte(0) < 0x80 ? byte(0) : U'\uFFFD';
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
}

inline void append_utf8(char32_t code_point, std::string* out) {
  const auto continuation = [&](int shift) {
    *out += static_cast<char>(0x80 | (code_point >> shift & 0x3F));
  };
  if (code_point < 0x80) {
    *out += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    *out += static_cast<char>(0xC0 | code_point >> 6);
    continuation(0);
  } else if (code_point < 0x10000) {
    *out += static_cast<char>(0xE0 | code_point >> 12);
    continuation(6);
    continuation(0);
  } else {
    *out += static_cast<char>(0xF0 | code_point >> 18);
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

}  // namespace quern
