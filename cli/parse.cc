#include "cli/parse.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>

#include "quant/error.h"

namespace quern {
namespace {

// True when all of `text` is one number of type T; from_chars takes neither spaces nor a plus sign.
template <class T>
bool parse_whole(std::string_view text, T* value) {
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, *value);
  return error == std::errc() && stopped == end;
}

template <class T>
T parse_between(std::string_view what, std::string_view text, T min, T max) {
  T value{};
  if (!parse_whole(text, &value) || value < min || value > max)
    fail(ErrorCode::kUsage, "{}: '{}' is not a whole number between {} and {}", what, printable(text), min,
         max);
  return value;
}

}  // namespace

int64_t parse_integer(std::string_view what, std::string_view text, int64_t min, int64_t max) {
  return parse_between(what, text, min, max);
}

uint64_t parse_unsigned(std::string_view what, std::string_view text, uint64_t min, uint64_t max) {
  return parse_between(what, text, min, max);
}

uint64_t parse_bytes(std::string_view what, std::string_view text) {
  constexpr uint64_t kMost = uint64_t{1} << 62;
  const size_t end = std::min(text.find_first_not_of("0123456789"), text.size());
  std::string_view unit = text.substr(end);
  uint64_t factor = 1;
  if (!unit.empty() && unit != "B") {
    const size_t power = std::string_view("KMG").find(static_cast<char>(unit[0] & ~0x20)) + 1;
    const bool binary = unit.size() > 1 && unit[1] == 'i';
    unit.remove_prefix(binary ? 2 : 1);
    if (power == 0 || !(unit.empty() || unit == "B"))
      fail(ErrorCode::kUsage, "{}: '{}' is no size; expected bytes, as 2000000000, 500M, 4G or 2GiB", what,
           printable(text));
    for (size_t i = 0; i < power; ++i) factor *= binary ? 1024 : 1000;
  }
  return parse_unsigned(what, text.substr(0, end), 1, kMost / factor) * factor;
}

double parse_number(std::string_view what, std::string_view text, double min, double max) {
  double value = 0;
  if (!parse_whole(text, &value) || !std::isfinite(value))
    fail(ErrorCode::kUsage, "{}: '{}' is not a number", what, printable(text));
  const bool has_end =
      max < std::numeric_limits<float>::max();  // any number: nobody wants to read its largest
  if (!has_end && value > max) fail(ErrorCode::kUsage, "{}: {} is too large", what, printable(text));
  if (value < min || value > max)
    fail(ErrorCode::kUsage, "{}: {} is not {}", what, printable(text),
         has_end ? fmt::format("between {} and {}", min, max) : fmt::format("a number from {} on", min));
  return value;
}

std::vector<int64_t> parse_integers(std::string_view what, std::string_view text, int64_t min, int64_t max) {
  const auto is_separator = [](char c) { return c == ',' || c == ' ' || c == '\n'; };
  while (!text.empty() && text.back() != ',' && is_separator(text.back())) text.remove_suffix(1);
  std::vector<int64_t> values;
  size_t begin = 0;
  while (begin <= text.size()) {
    size_t end = begin;
    while (end < text.size() && !is_separator(text[end])) ++end;
    values.push_back(parse_integer(what, text.substr(begin, end - begin), min, max));
    begin = end + 1;
    // "1, 2": spaces behind a separator belong to it.
    while (begin < text.size() && text[begin] == ' ') ++begin;
  }
  return values;
}

std::vector<TokenId> parse_ids(std::string_view what, std::string_view text) {
  const auto values = parse_integers(what, text, 0, std::numeric_limits<TokenId>::max());
  return {values.begin(), values.end()};
}

}  // namespace quern
