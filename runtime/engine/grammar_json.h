// JSON texts as pieces of a grammar: numbers within bounds, strings of some characters, white space, keys.
// Other notations' too.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quant/json/json.h"
#include "runtime/engine/grammar.h"
#include "runtime/engine/value_notation.h"

namespace quern {

// Those that are there. low is at most high, or nothing is between them.
struct NumberBounds {
  std::optional<int64_t> low, high;
  bool low_open = false, high_open = false;  // the bound itself is outside
};

// For one builder, whose rules it makes once each. As all pieces, each begins at a state that may have other
// edges and returns the one that it leads to. What nothing can be leads nowhere.
class JsonPieces {
 public:
  using State = GrammarBuilder::State;
  using Rule = GrammarBuilder::Rule;
  static constexpr int64_t kMaxInteger = 999'999'999'999'999'999;  // 18 digits

  // The builder and the notation outlive it.
  explicit JsonPieces(GrammarBuilder& builder, const ValueNotation& notation = kJsonNotation)
      : b_(builder), notation_(notation) {}

  // Whole numbers from low to high, both at most kMaxInteger from 0.
  State integers(State from, int64_t low, int64_t high);
  // Numbers, with an exponent where there are no bounds. Bounds are at most 1e9 from 0.
  State numbers(State from, const NumberBounds& bounds);

  // A string in any quotes. text: of what is between two of `quote`.
  using StringText = std::function<State(State from, std::string_view quote)>;
  State string(State from, const StringText& text);
  // A character of the set as strings between such quotes have it, spelled in one way: \uXXXX only where
  // nothing else does. Without escapes: none that would make the quote.
  State characters(State from, const CharSet& set, std::string_view quote);
  // Any character, in any way that spells one.
  Rule any_char(std::string_view quote);
  // true, false; null
  State booleans(State from);
  State nulls(State from);

  // A member's name, with what stands between it and the value. outermost: of an object that is a call.
  State key(State from, const std::string& name, bool outermost);
  // The same of any name of plain characters but `names`.
  State other_key(State from, std::span<const std::string> names, bool outermost);
  // Names stand without quotes.
  bool has_bare_keys(bool outermost) const { return outermost || notation_.has_bare_keys; }

  // Nothing, a space, or the begin of an indented line.
  State space(State from);
  State comma(State from) { return space(b_.text(from, ",")); }

 private:
  State spelled(State from, const CharSet& set, std::string_view quote);
  CharSet plain_characters(std::string_view quote) const;
  State other_name(State from, std::span<const std::string> names, const CharSet& plain);
  void add_digits(State from, uint64_t low, uint64_t high, State to);
  void add_digit(State from, char low, char high, State to);
  void add_same_length(State from, std::string_view a, std::string_view b, State to);
  void add_magnitudes(State from, int64_t low, bool low_open, int64_t high, bool high_open, size_t n_digits,
                      State to);

  GrammarBuilder& b_;
  const ValueNotation& notation_;
  std::map<std::pair<CharSet, std::string_view>, Rule> char_rules_;
  std::map<std::string_view, Rule> any_chars_;  // by their quote
  std::optional<Rule> space_;
};

// A text that is one of a list.
GrammarBuilder::State add_choice(GrammarBuilder& builder, GrammarBuilder::State from,
                                 std::vector<std::string> texts);

}  // namespace quern
