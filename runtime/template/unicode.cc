#include "runtime/template/unicode.h"

#include <clocale>
#include <cwctype>

#include "runtime/template/text.h"

namespace quern::jinja {
namespace {

// Made once, never freed; null (ASCII only) where the C library has no such locale.
locale_t utf8_locale() noexcept {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return locale;
}

bool has_class(char32_t c, const char* name) noexcept {
  const locale_t locale = utf8_locale();
  if (locale == nullptr) return c < 0x80 && std::iswctype(static_cast<wint_t>(c), std::wctype(name)) != 0;
  return iswctype_l(static_cast<wint_t>(c), wctype_l(name, locale), locale) != 0;
}

char32_t simple_upper(char32_t c) noexcept {
  const locale_t locale = utf8_locale();
  if (c < 0x80 || locale == nullptr) return c >= 'a' && c <= 'z' ? c - 32 : c;
  return static_cast<char32_t>(towupper_l(static_cast<wint_t>(c), locale));
}

char32_t simple_lower(char32_t c) noexcept {
  const locale_t locale = utf8_locale();
  if (c < 0x80 || locale == nullptr) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  return static_cast<char32_t>(towlower_l(static_cast<wint_t>(c), locale));
}

// Category Cf: shown by nothing, though C libraries call some of them printable.
bool is_format_control(char32_t c) noexcept {
  return c == 0xAD || (c >= 0x600 && c <= 0x605) || c == 0x61C || c == 0x6DD || c == 0x70F || c == 0x8E2 ||
         c == 0x180E || (c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) ||
         (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFB) || c == 0x110BD ||
         c == 0x110CD || (c >= 0x1BCA0 && c <= 0x1BCA3) || (c >= 0x1D173 && c <= 0x1D17A) || c >= 0xE0000;
}

}  // namespace

bool is_space(char32_t c) noexcept {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_line_end(char32_t c) noexcept {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool is_alphabetic(char32_t c) noexcept {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return has_class(c, "alpha") && !is_decimal(c);
}

bool is_decimal(char32_t c) noexcept {
  if (c < 0x80) return c >= '0' && c <= '9';
  // The first digits of the blocks of ten in the Basic Multilingual Plane.
  for (const char32_t zero : {U'\u0660', U'\u06F0', U'\u07C0', U'\u0966', U'\u09E6', U'\u0A66', U'\u0AE6',
                              U'\u0B66', U'\u0BE6', U'\u0C66', U'\u0CE6', U'\u0D66', U'\u0E50', U'\u0ED0',
                              U'\u0F20', U'\u1040', U'\u17E0', U'\u1810', U'\uFF10'})
    if (c >= zero && c < zero + 10) return true;
  return false;
}

bool is_upper(char32_t c) noexcept { return has_class(c, "upper"); }
bool is_lower(char32_t c) noexcept { return c == 0xDF || has_class(c, "lower"); }

bool is_printable(char32_t c) noexcept {
  if (c < 0x7F) return c >= 0x20;
  const bool is_private = (c >= 0xE000 && c <= 0xF8FF) || c >= 0xF0000;
  return !is_space(c) && !is_format_control(c) && !is_private && has_class(c, "print");
}

void append_upper(char32_t c, std::string* out) {
  if (c == 0xDF) {
    *out += "SS";
  } else if (c >= 0xFB00 && c <= 0xFB06) {  // ligatures of f and of st
    static constexpr const char* kLigatures[] = {"FF", "FI", "FL", "FFI", "FFL", "ST", "ST"};
    *out += kLigatures[c - 0xFB00];
  } else {
    append_utf8(simple_upper(c), out);
  }
}

void append_lower(char32_t c, std::string* out) {
  if (c == 0x130)
    *out += "i\u0307";
  else
    append_utf8(simple_lower(c), out);
}

void append_title(char32_t c, std::string* out) {
  std::string upper;
  append_upper(c, &upper);
  const bool is_several = c >= 0x80 && upper.size() > 1 && static_cast<uint8_t>(upper[0]) < 0x80;
  for (size_t i = 1; is_several && i < upper.size(); ++i) upper[i] = static_cast<char>(upper[i] | 0x20);
  *out += upper;
}

void append_folded(char32_t c, std::string* out) {
  if (c == 0xDF || (c >= 0xFB00 && c <= 0xFB06)) {
    std::string upper;
    append_upper(c, &upper);
    for (const char letter : upper) *out += static_cast<char>(letter | 0x20);
  } else {
    append_lower(c == 0x3C2 ? 0x3C3 : c, out);
  }
}

}  // namespace quern::jinja
