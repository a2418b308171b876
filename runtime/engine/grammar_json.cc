#include "runtime/engine/grammar_json.h"

#include <fmt/format.h>

#include <algorithm>

#include "quant/utf8.h"
#include "runtime/engine/grammar_regex.h"

namespace quern {

JsonPieces::State JsonPieces::integers(State from, int64_t low, int64_t high) {
  const State out = b_.add_state();
  if (low > high) return out;
  if (high >= 0)
    add_digits(from, static_cast<uint64_t>(std::max<int64_t>(low, 0)), static_cast<uint64_t>(high), out);
  if (low < 0)
    add_digits(b_.text(from, "-"), static_cast<uint64_t>(std::max<int64_t>(-high, 1)),
               static_cast<uint64_t>(-low), out);
  return out;
}

JsonPieces::State JsonPieces::numbers(State from, const NumberBounds& bounds) {
  const State out = b_.add_state();
  if (!bounds.low && !bounds.high) {
    static constexpr std::string_view kNumber =
        "-?(0|[1-9][0-9]{0,14})(\\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?";
    b_.add_empty(add_regex(b_, from, kNumber, "a number"), out);
    return out;
  }
  // So few digits that no double is rounded onto a bound that is outside.
  const bool is_open = bounds.low_open || bounds.high_open;
  const int64_t most = is_open ? 999'999'999 : 999'999'999'999'999;
  const size_t n_digits = is_open ? 6 : 15;
  const int64_t low = bounds.low.value_or(-most), high = bounds.high.value_or(most);
  if (low > high) return out;
  if (high >= 0)
    add_magnitudes(from, std::max<int64_t>(low, 0), bounds.low_open && low >= 0, high, bounds.high_open,
                   n_digits, out);
  if (low < 0)
    add_magnitudes(b_.text(from, "-"), std::max<int64_t>(-high, 0), bounds.high_open && high <= 0, -low,
                   bounds.low_open, n_digits, out);
  return out;
}

JsonPieces::State JsonPieces::string(State from, const StringText& text) {
  const auto within = [&](State at, std::string_view quote) {
    return b_.text(text(b_.text(at, quote), quote), quote);
  };
  const auto quotes = notation_.quote_texts();
  if (quotes.size() == 1) return within(from, quotes[0]);
  const GrammarBuilder::Piece pieces[] = {[&](State at) { return within(at, quotes[0]); },
                                          [&](State at) { return within(at, quotes[1]); }};
  return b_.any_of(from, pieces);
}

// Characters as a string has them, one way each.
JsonPieces::State JsonPieces::spelled(State from, const CharSet& set, std::string_view quote) {
  const State out = b_.add_state();
  const auto escaped = [&](uint32_t point, const std::string& text) {
    if (set.contains(point)) b_.add_empty(b_.text(from, text), out);
  };
  const CharSet plain = set & plain_characters(quote);
  if (!plain.empty()) b_.add_empty(b_.chars(from, plain), out);
  if (!notation_.has_escapes) return out;
  escaped(static_cast<unsigned char>(quote[0]), fmt::format("\\{}", quote));
  escaped('\\', "\\\\");
  for (uint32_t point = 0; point < 0x20; ++point) {
    constexpr std::string_view kShort = "\b\f\n\r\t", kLetters = "bfnrt";
    const size_t at = kShort.find(static_cast<char>(point));
    escaped(point, at != kShort.npos ? std::string("\\") + kLetters[at] : fmt::format("\\u{:04x}", point));
  }
  return out;
}

// That need no escape; where there are none, all but one that the quote cannot be made without.
CharSet JsonPieces::plain_characters(std::string_view quote) const {
  const auto mark = static_cast<unsigned char>(quote[quote.size() > 1 ? 1 : 0]);
  if (!notation_.has_escapes) return ~CharSet{{mark, mark}};
  return ~CharSet{{0, 0x1F}, {mark, mark}, {'\\', '\\'}};
}

// As a rule, where it has more than plain characters.
JsonPieces::State JsonPieces::characters(State from, const CharSet& set, std::string_view quote) {
  const auto [found, is_new] = char_rules_.try_emplace({set, quote}, 0);
  if (is_new) {
    found->second = b_.add_rule("characters");
    b_.add_empty(spelled(b_.begin(found->second), set, quote), b_.end(found->second));
  }
  return b_.call(from, found->second);
}

JsonPieces::Rule JsonPieces::any_char(std::string_view quote) {
  const auto [found, is_new] = any_chars_.try_emplace(quote, 0);
  if (!is_new) return found->second;
  const Rule rule = found->second = b_.add_rule("a character");
  const State begin = b_.begin(rule), end = b_.end(rule);
  b_.add_empty(b_.chars(begin, plain_characters(quote)), end);
  if (!notation_.has_escapes) return rule;
  const State escape = b_.text(begin, "\\");
  for (const char c : std::string_view("\"\\/bfnrt"))
    b_.add_byte(escape, static_cast<uint8_t>(c), static_cast<uint8_t>(c), end);
  if (quote == "'") b_.add_byte(escape, '\'', '\'', end);
  // \uXXXX, but for surrogates, which spell a character in pairs only.
  const State digits = b_.text(escape, "u");
  const CharSet hex = {{'0', '9'}, {'A', 'F'}, {'a', 'f'}};
  const State after_d = b_.chars(digits, {{'D', 'D'}, {'d', 'd'}});
  const State two = b_.chars(digits, hex & ~CharSet{{'D', 'D'}, {'d', 'd'}});
  const State three = b_.chars(two, hex);
  b_.add_empty(b_.chars(after_d, {{'0', '7'}}), three);
  b_.add_empty(b_.chars(b_.chars(three, hex), hex), end);
  return rule;
}

JsonPieces::State JsonPieces::booleans(State from) {
  if (notation_.has_python) return add_choice(b_, from, {"true", "false", "True", "False"});
  return add_choice(b_, from, {"true", "false"});
}
JsonPieces::State JsonPieces::nulls(State from) {
  return notation_.has_python ? add_choice(b_, from, {"null", "None"}) : b_.text(from, "null");
}

// Decimal numbers from low to high, without leading zeros.
void JsonPieces::add_digits(State from, uint64_t low, uint64_t high, State to) {
  uint64_t first = 0, last = 9;  // of so many digits
  for (size_t n = 1; first <= high; ++n) {
    const uint64_t a = std::max(low, first), b = std::min(high, last);
    if (a <= b) add_same_length(from, std::to_string(a), std::to_string(b), to);
    first = last + 1;
    last = last * 10 + 9;
    if (n == 18) break;
  }
}
void JsonPieces::add_digit(State from, char low, char high, State to) {
  if (low <= high) b_.add_byte(from, static_cast<uint8_t>(low), static_cast<uint8_t>(high), to);
}
// Texts of the same number of digits from a to b.
void JsonPieces::add_same_length(State from, std::string_view a, std::string_view b, State to) {
  if (a.empty()) return b_.add_empty(from, to);
  if (a[0] == b[0]) {
    const State next = b_.add_state();
    add_digit(from, a[0], a[0], next);
    return add_same_length(next, a.substr(1), b.substr(1), to);
  }
  const std::string nines(a.size() - 1, '9'), zeros(a.size() - 1, '0');
  const bool low_whole = a.substr(1) == zeros, high_whole = b.substr(1) == nines;
  const auto low = static_cast<char>(a[0] + (low_whole ? 0 : 1));
  const auto high = static_cast<char>(b[0] - (high_whole ? 0 : 1));
  if (low <= high) {
    State at = b_.add_state();
    add_digit(from, low, high, at);
    for (size_t i = 1; i < a.size(); ++i) {
      const State next = b_.add_state();
      add_digit(at, '0', '9', next);
      at = next;
    }
    b_.add_empty(at, to);
  }
  if (!low_whole) {
    const State next = b_.add_state();
    add_digit(from, a[0], a[0], next);
    add_same_length(next, a.substr(1), nines, to);
  }
  if (!high_whole) {
    const State next = b_.add_state();
    add_digit(from, b[0], b[0], next);
    add_same_length(next, zeros, b.substr(1), to);
  }
}

// Decimal fractions from low to high; open: without the bound itself.
void JsonPieces::add_magnitudes(State from, int64_t low, bool low_open, int64_t high, bool high_open,
                                size_t n_digits, State to) {
  const auto unsigned_of = [](int64_t n) { return static_cast<uint64_t>(n); };
  const CharSet digits = {{'0', '9'}};
  const auto digit = [&](State at) { return b_.chars(at, digits); };
  const int64_t first = low_open ? low + 1 : low;
  if (first < high) {
    const State whole = b_.add_state();
    add_digits(from, unsigned_of(first), unsigned_of(high - 1), whole);
    b_.add_empty(whole, to);
    b_.add_empty(b_.repeat(b_.text(whole, "."), digit, 1, n_digits), to);
  }
  if (low_open && low < high) {  // a fraction that is not zero
    const State whole = b_.add_state();
    add_digits(from, unsigned_of(low), unsigned_of(low), whole);
    const State at = b_.repeat(b_.text(whole, "."), digit, 0, n_digits - 1);
    b_.add_empty(b_.chars(at, {{'1', '9'}}), to);
  }
  if (!high_open && !(low_open && low == high)) add_digits(from, unsigned_of(high), unsigned_of(high), to);
}

JsonPieces::State JsonPieces::space(State from) {
  if (!space_) {
    space_ = b_.add_rule("white space");
    const State begin = b_.begin(*space_), end = b_.end(*space_);
    b_.add_empty(begin, end);
    b_.add_byte(begin, ' ', ' ', end);
    const auto indent = [&](State at) { return b_.chars(at, {{'\t', '\t'}, {' ', ' '}}); };
    b_.add_empty(b_.repeat(b_.text(begin, "\n"), indent, 0, 20), end);
  }
  return b_.call(from, *space_);
}

JsonPieces::State JsonPieces::key(State from, const std::string& name, bool outermost) {
  std::vector<std::string> texts = {name};
  if (!has_bare_keys(outermost)) texts = written_values(Json(name), notation_);
  for (std::string& text : texts) text += outermost ? '=' : ':';
  return texts.size() == 1 ? b_.text(from, texts[0]) : add_choice(b_, from, std::move(texts));
}

JsonPieces::State JsonPieces::other_key(State from, std::span<const std::string> names, bool outermost) {
  const std::string_view sign = outermost ? "=" : ":";
  if (has_bare_keys(outermost)) {
    std::vector<std::string> all(names.begin(), names.end());
    all.emplace_back();  // nothing is no name
    const CharSet plain = {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}, {'_', '_'}, {'-', '-'}, {'.', '.'}};
    return b_.text(other_name(from, all, plain), sign);
  }
  const auto name = [&](State at, std::string_view quote) {
    return other_name(at, names, plain_characters(quote));
  };
  return b_.text(string(from, name), sign);
}

JsonPieces::State JsonPieces::other_name(State from, std::span<const std::string> names,
                                         const CharSet& plain) {
  struct Node {
    std::map<uint32_t, size_t> next;
    bool is_key = false;
  };
  std::vector<Node> nodes(1);
  for (const std::string& name : names) {
    size_t at = 0;
    for (std::string_view rest = name; !rest.empty();) {
      const size_t length = std::max<size_t>(utf8_length(rest), 1);
      const auto point = static_cast<uint32_t>(code_point(rest.substr(0, length)));
      rest.remove_prefix(length);
      const auto [found, is_new] = nodes[at].next.try_emplace(point, nodes.size());
      const size_t to = found->second;
      if (is_new) nodes.emplace_back();
      at = to;
    }
    nodes[at].is_key = true;
  }
  std::vector<State> states;
  for (size_t i = 0; i < nodes.size(); ++i) states.push_back(b_.add_state());
  b_.add_empty(from, states[0]);
  const State other = b_.add_state(), end = b_.add_state();
  b_.add_empty(b_.chars(other, plain), other);
  b_.add_empty(other, end);
  for (size_t i = 0; i < nodes.size(); ++i) {
    std::vector<CharSet::Range> known;
    for (const auto& [point, to] : nodes[i].next) {
      known.push_back({point, point});
      const CharSet one = CharSet{{point, point}} & plain;
      if (!one.empty()) b_.add_empty(b_.chars(states[i], one), states[to]);
    }
    b_.add_empty(b_.chars(states[i], plain & ~CharSet::of(known)), other);
    if (!nodes[i].is_key) b_.add_empty(states[i], end);
  }
  return end;
}

GrammarBuilder::State add_choice(GrammarBuilder& builder, GrammarBuilder::State from,
                                 std::vector<std::string> texts) {
  std::sort(texts.begin(), texts.end());
  const GrammarBuilder::State out = builder.add_state();
  std::vector<GrammarBuilder::State> path = {builder.add_state()};  // what the last text led through
  builder.add_empty(from, path[0]);
  std::string_view last;
  for (const std::string& text : texts) {
    size_t common = 0;
    while (common < std::min(text.size(), last.size()) && text[common] == last[common]) ++common;
    path.resize(common + 1);
    for (size_t i = common; i < text.size(); ++i) path.push_back(builder.text(path[i], text.substr(i, 1)));
    builder.add_empty(path.back(), out);
    last = text;
  }
  return out;
}

}  // namespace quern
