#include "runtime/tokenizer/characters.h"

#include <algorithm>

#include "quant/utf8.h"
#include "runtime/tokenizer/pattern.h"

namespace quern {

std::string_view first_character(std::string_view text) {
  return text.substr(0, std::max<size_t>(utf8_length(text), 1));
}

std::string_view last_character(std::string_view text) {
  for (size_t n = std::min<size_t>(4, text.size()); n > 1; --n) {
    const std::string_view end = text.substr(text.size() - n);
    if (utf8_length(end) == n) return end;
  }
  return text.substr(text.size() - std::min<size_t>(1, text.size()));
}

bool is_white_space(std::string_view character) {
  static const Pattern pattern(R"(\s)", Pattern::Sees::kCharacters);
  return is_valid_utf8(character) && pattern.matches(character);
}

bool is_word_character(std::string_view character) {
  static const Pattern pattern(R"([\p{L}\p{M}\p{N}\p{Pc}])", Pattern::Sees::kCharacters);
  return is_valid_utf8(character) && pattern.matches(character);
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at; (at = text.find(from)) != text.npos; text.remove_prefix(at + from.size())) {
    out += text.substr(0, at);
    out += to;
  }
  out += text;
  return out;
}

}  // namespace quern
