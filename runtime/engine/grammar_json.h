// JSON texts as pieces of a grammar: numbers within bounds, strings of some characters, white space, keys.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/json/json.h"
#include "runtime/engine/grammar.h"

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

  // The builder outlives it.
  explicit JsonPieces(GrammarBuilder& builder) : b_(builder) {}

  // Whole numbers from low to high, both at most kMaxInteger from 0.
  State integers(State from, int64_t low, int64_t high);
  // Numbers, with an exponent where there are no bounds. Bounds are at most 1e9 from 0.
  State numbers(State from, const NumberBounds& bounds);

  // A character of the set as strings have it, spelled in one way: \uXXXX only where nothing else does.
  State characters(State from, const CharSet& set);
  // Any character, in any way that spells one.
  Rule any_char();
  // A string of plain characters that is none of `names`.
  State other_key(State from, std::span<const std::string> names);

  // Nothing, a space, or the begin of an indented line.
  State space(State from);
  State comma(State from) { return space(b_.text(from, ",")); }

 private:
  State spelled(State from, const CharSet& set);
  void add_digits(State from, uint64_t low, uint64_t high, State to);
  void add_digit(State from, char low, char high, State to);
  void add_same_length(State from, std::string_view a, std::string_view b, State to);
  void add_magnitudes(State from, int64_t low, bool low_open, int64_t high, bool high_open, size_t n_digits,
                      State to);

  GrammarBuilder& b_;
  std::map<CharSet, Rule> char_rules_;
  std::optional<Rule> any_char_, space_;
};

// A text that is one of a list.
GrammarBuilder::State add_choice(GrammarBuilder& builder, GrammarBuilder::State from,
                                 std::vector<std::string> texts);

// A value as the grammars write it, on one line.
std::string compact_json(const Json& value);

}  // namespace quern
