#include "tests/support/random_text.h"

#include <string_view>
#include <vector>

namespace quern::test {
namespace {

using Alphabet = std::vector<std::string_view>;

const std::vector<Alphabet>& alphabets() {
  static const std::vector<Alphabet> all = {
      {"a", "b", "e", "t", "x", "z", "A", "B", "Z"},
      {"'", "s", "S", "t", "m", "d", "ll", "ve", "RE", "\u2019", "\u017F"},
      {"0", "1", "2", "3", "7", "9", "\u00B2", "\u00BD", "\u0661", "\u2163", "\uFF13"},
      {" ", " ", " ", "\t", "\n", "\r", "\u00A0", "\u2003", "\u3000", "\u0085", "\u2028", "\u200B", "\u180E"},
      {"!", "\"", "#", "$", "%", "&", "(", ")", "*", "+", ",",
       "-", ".",  "/", ":", "<", "=", "?", "@", "[", "\\"},
      {"\u00E4", "\u00DF", "\u00C4", "\u0142", "\u0130", "\u01C5", "\u02B0", "\u00AA"},
      {"\u03B1", "\u03A9", "\u03C2", "\u041F", "\u0440", "\u0451"},
      {"\u6F22", "\u5B57", "\u304B", "\u30AB", "\uD55C", "\u3005", "\u3002", "\uFF01"},
      {"\u05E9", "\u0645", "\u064B", "\u0301", "\u0308", "\u0928", "\u094D", "\u0E01", "\u0E34"},
      {"\U0001F600", "\U0001F999", "\u200D", "\uFE0F", "\U0001F1EB", "\u2200", "\u20AC", "\u2122"},
      {std::string_view("\0", 1), "\x01", "\x1B", "\x7F", "\uFEFF", "\uFFFD", "\uE000", "\U0010FFFF"},
  };
  return all;
}

}  // namespace

std::string random_text(std::mt19937& random, int max_runs) {
  const auto below = [&random](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  std::string text;
  const size_t n_runs = 1 + below(static_cast<size_t>(max_runs));
  for (size_t run = 0; run < n_runs; ++run) {
    const Alphabet& alphabet = alphabets()[below(alphabets().size())];
    const size_t length = size_t{1} << below(4);
    for (size_t i = 0; i < length; ++i) text += alphabet[below(alphabet.size())];
  }
  return text;
}

std::string random_bytes(std::mt19937& random, size_t n) {
  std::string bytes;
  while (bytes.size() < n) bytes += static_cast<char>(random() & 0xFF);
  return bytes;
}

}  // namespace quern::test
