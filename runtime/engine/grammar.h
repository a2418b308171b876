// Languages that an answer is held to: context-free grammars over bytes, as a pushdown automaton.
//
// A rule is a network of states. An edge takes a byte of a range, takes nothing, or calls a rule and goes on
// where it returns. Grammars come from GBNF (grammar_gbnf.h), from regular expressions (grammar_regex.h) and
// from JSON schemas (grammar_schema.h), all through GrammarBuilder. Characters are taken as their UTF-8, so
// that what a grammar accepts is well-formed.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

// Characters: code points from U+0000 to U+10FFFF, without the surrogates, which are none.
class CharSet {
 public:
  struct Range {
    uint32_t low, high;  // both belong to it
    auto operator<=>(const Range&) const = default;
  };

  CharSet() = default;
  CharSet(std::initializer_list<Range> ranges);
  static CharSet of(std::vector<Range> ranges);  // in any order
  static CharSet all();

  bool empty() const { return ranges_.empty(); }
  bool contains(uint32_t code_point) const;
  CharSet operator|(const CharSet& other) const;
  CharSet operator&(const CharSet& other) const;
  CharSet operator~() const;
  // Ascending, with a gap between neighbours.
  std::span<const Range> ranges() const { return ranges_; }
  auto operator<=>(const CharSet&) const = default;

 private:
  std::vector<Range> ranges_;
};

// Immutable; thread-safe. From every state some text leads to the end.
class Grammar {
 public:
  using State = uint32_t;
  struct ByteEdge {
    uint8_t low, high;  // both are taken
    State target;
  };
  struct Call {
    static constexpr State kNothing = UINT32_MAX;

    State begin;  // of the rule
    State back;   // where its end returns to; kNothing: what follows is the caller's end
  };

  State begin() const { return begin_; }
  std::span<const ByteEdge> bytes(State state) const { return slice(bytes_, state, &Row::byte); }
  std::span<const State> empties(State state) const { return slice(empties_, state, &Row::empty); }
  std::span<const Call> calls(State state) const { return slice(calls_, state, &Row::call); }
  bool ends(State state) const { return rows_[state].ends; }  // the rule's end

  // Bytes that no edge tells apart are of one class.
  size_t n_classes() const { return representatives_.size(); }
  uint8_t class_of(uint8_t byte) const { return class_of_[byte]; }
  uint8_t representative(size_t byte_class) const { return representatives_[byte_class]; }

 private:
  friend class GrammarBuilder;
  struct Row {
    uint32_t byte = 0, empty = 0, call = 0;  // first edges; the next row has the ends
    bool ends = false;
  };
  template <class T>
  std::span<const T> slice(const std::vector<T>& edges, State state, uint32_t Row::*first) const {
    return std::span(edges).subspan(rows_[state].*first, rows_[state + 1].*first - rows_[state].*first);
  }

  State begin_ = 0;
  std::vector<Row> rows_;  // [states + 1]
  std::vector<ByteEdge> bytes_;
  std::vector<State> empties_;
  std::vector<Call> calls_;
  std::array<uint8_t, 256> class_of_{};
  std::vector<uint8_t> representatives_;
};

// Builds a grammar from pieces. A piece begins at a state, which may have other edges, and leads to a new
// one, which has none yet. Throws kMalformed "<where>: ..." for a grammar that grows too large.
class GrammarBuilder {
 public:
  using State = Grammar::State;
  using Rule = uint32_t;
  static constexpr size_t kMaxStates = 1u << 18;
  // Of a repetition that is counted.
  static constexpr size_t kMaxCount = 1u << 14;

  explicit GrammarBuilder(std::string where) : where_(std::move(where)) {}

  // A rule that nothing matches until a way leads from its begin to its end. The end gets no edges.
  Rule add_rule(std::string name);
  State begin(Rule rule) const { return rules_[rule].begin; }
  State end(Rule rule) const { return rules_[rule].end; }

  State add_state();
  void add_empty(State from, State to);
  void add_byte(State from, uint8_t low, uint8_t high, State to);

  State text(State from, std::string_view bytes);
  State chars(State from, const CharSet& set);
  State call(State from, Rule rule);
  // Builds a piece from a state and returns the state that it leads to; may be called several times.
  using Piece = std::function<State(State from)>;
  // The piece min to max times; no max: without end. min and max are at most kMaxCount.
  State repeat(State from, const Piece& piece, size_t min, std::optional<size_t> max);
  State optional(State from, const Piece& piece) { return repeat(from, piece, 0, 1); }
  // One of the pieces.
  State any_of(State from, std::span<const Piece> pieces);
  // Text up to and with the first occurrence of `mark` (not empty, valid UTF-8), which nothing else of it
  // overlaps; `may_end`: the text may also end without the mark, at that state.
  State until(State from, std::string_view mark, std::optional<State> may_end = std::nullopt);

  // Throws kMalformed "<where>: ..." where nothing matches, or for a rule that begins with itself (left
  // recursion). The builder is spent.
  Grammar finish(Rule root);

 private:
  struct Edge {
    enum class Kind : uint8_t { kByte, kEmpty, kCall };
    Kind kind;
    uint8_t low = 0, high = 0;
    State from;
    Rule rule = 0;
    State to;
  };
  struct RuleStates {
    std::string name;
    State begin, end;
  };
  void add_edge(const Edge& edge);
  void add_char_range(State from, State to, uint32_t low, uint32_t high);
  // Drops what leads nowhere.
  void trim(Rule root);
  void refuse_left_recursion(const std::vector<bool>& is_last) const;
  // Whether nothing but the end of the rule follows a state.
  std::vector<bool> last_states() const;

  std::string where_;
  uint32_t n_states_ = 0;
  std::vector<RuleStates> rules_;
  std::vector<Edge> edges_;
  std::map<CharSet, Rule> char_rules_;
};

}  // namespace quern
