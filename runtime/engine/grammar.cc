#include "runtime/engine/grammar.h"

#include <algorithm>
#include <utility>

#include "quant/error.h"
#include "quant/utf8.h"

namespace quern {
namespace {

constexpr uint32_t kLastCodePoint = 0x10FFFF;
constexpr CharSet::Range kSurrogates = {0xD800, 0xDFFF};
constexpr size_t kMaxGrammarEdges = 1u << 20;

// Sorted, joined, without surrogates.
std::vector<CharSet::Range> normal_ranges(std::vector<CharSet::Range> ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<CharSet::Range> out;
  const auto add = [&](CharSet::Range range) {
    if (range.low > range.high) return;
    if (!out.empty() && range.low <= out.back().high + 1)
      out.back().high = std::max(out.back().high, range.high);
    else
      out.push_back(range);
  };
  for (const CharSet::Range& range : ranges) {
    const uint32_t high = std::min(range.high, kLastCodePoint);
    add({range.low, std::min(high, kSurrogates.low - 1)});
    add({std::max(range.low, kSurrogates.high + 1), high});
  }
  return out;
}

std::vector<uint32_t> code_points_of(std::string_view text) {
  std::vector<uint32_t> points;
  while (!text.empty()) {
    const size_t length = std::max<size_t>(utf8_length(text), 1);
    points.push_back(static_cast<uint32_t>(code_point(text.substr(0, length))));
    text.remove_prefix(length);
  }
  return points;
}

}  // namespace

CharSet::CharSet(std::initializer_list<Range> ranges) : ranges_(normal_ranges(ranges)) {}

CharSet CharSet::of(std::vector<Range> ranges) {
  CharSet set;
  set.ranges_ = normal_ranges(std::move(ranges));
  return set;
}

CharSet CharSet::all() { return {{0, kLastCodePoint}}; }

bool CharSet::contains(uint32_t point) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [&](const Range& range) { return point >= range.low && point <= range.high; });
}

CharSet CharSet::operator|(const CharSet& other) const {
  std::vector<Range> both = ranges_;
  both.insert(both.end(), other.ranges_.begin(), other.ranges_.end());
  return of(std::move(both));
}

CharSet CharSet::operator~() const {
  std::vector<Range> rest;
  uint32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.low > next) rest.push_back({next, range.low - 1});
    next = range.high + 1;
  }
  if (next <= kLastCodePoint) rest.push_back({next, kLastCodePoint});
  return of(std::move(rest));
}

CharSet CharSet::operator&(const CharSet& other) const { return ~(~*this | ~other); }

GrammarBuilder::Rule GrammarBuilder::add_rule(std::string name) {
  const State begin = add_state(), end = add_state();
  rules_.push_back({std::move(name), begin, end});
  return static_cast<Rule>(rules_.size() - 1);
}

GrammarBuilder::State GrammarBuilder::add_state() {
  if (n_states_ >= kMaxStates)
    fail(ErrorCode::kMalformed, "{}: too large (more than {} states)", where_, kMaxStates);
  return n_states_++;
}

void GrammarBuilder::add_edge(const Edge& edge) {
  if (edges_.size() >= kMaxGrammarEdges)
    fail(ErrorCode::kMalformed, "{}: too large (more than {} transitions)", where_, kMaxGrammarEdges);
  edges_.push_back(edge);
}

void GrammarBuilder::add_empty(State from, State to) {
  add_edge({.kind = Edge::Kind::kEmpty, .from = from, .to = to});
}

void GrammarBuilder::add_byte(State from, uint8_t low, uint8_t high, State to) {
  add_edge({.kind = Edge::Kind::kByte, .low = low, .high = high, .from = from, .to = to});
}

GrammarBuilder::State GrammarBuilder::text(State from, std::string_view bytes) {
  for (const char c : bytes) {
    const State next = add_state();
    add_byte(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), next);
    from = next;
  }
  if (!bytes.empty()) return from;
  const State next = add_state();
  add_empty(from, next);
  return next;
}

// A range of code points as sequences of ranges of bytes: cut where the number of bytes changes, then until
// all but one byte have their whole range (Cox, "Regular Expression Matching in the Wild", 2010, appendix).
void GrammarBuilder::add_char_range(State from, State to, uint32_t low, uint32_t high) {
  for (const uint32_t last : {0x7Fu, 0x7FFu, 0xFFFFu})
    if (low <= last && high > last) {
      add_char_range(from, to, low, last);
      add_char_range(from, to, last + 1, high);
      return;
    }
  for (uint32_t mask : {0x3Fu, 0xFFFu, 0x3FFFFu}) {
    if (low < 0x80 || (low & ~mask) == (high & ~mask)) continue;
    if ((low & mask) != 0) {
      add_char_range(from, to, low, low | mask);
      add_char_range(from, to, (low | mask) + 1, high);
      return;
    }
    if ((high & mask) != mask) {
      add_char_range(from, to, low, (high & ~mask) - 1);
      add_char_range(from, to, high & ~mask, high);
      return;
    }
  }
  std::string first, last;
  append_utf8(static_cast<char32_t>(low), &first);
  append_utf8(static_cast<char32_t>(high), &last);
  for (size_t i = 0; i < first.size(); ++i) {
    const State next = i + 1 == first.size() ? to : add_state();
    add_byte(from, static_cast<uint8_t>(first[i]), static_cast<uint8_t>(last[i]), next);
    from = next;
  }
}

GrammarBuilder::State GrammarBuilder::chars(State from, const CharSet& set) {
  const State to = add_state();
  if (set.empty()) return to;  // no character: no way leads there
  if (set.ranges().back().high < 0x80) {
    for (const CharSet::Range& range : set.ranges()) add_char_range(from, to, range.low, range.high);
    return to;
  }
  const auto [found, is_new] = char_rules_.try_emplace(set, 0);
  if (is_new) {
    found->second = add_rule("a set of characters");
    for (const CharSet::Range& range : set.ranges())
      add_char_range(begin(found->second), end(found->second), range.low, range.high);
  }
  add_edge({.kind = Edge::Kind::kCall, .from = from, .rule = found->second, .to = to});
  return to;
}

GrammarBuilder::State GrammarBuilder::call(State from, Rule rule) {
  const State to = add_state();
  add_edge({.kind = Edge::Kind::kCall, .from = from, .rule = rule, .to = to});
  return to;
}

GrammarBuilder::State GrammarBuilder::repeat(State from, const Piece& piece, size_t min,
                                             std::optional<size_t> max) {
  QUERN_CHECK(min <= kMaxCount && (!max || *max <= kMaxCount));
  State at = add_state();
  add_empty(from, at);
  const State out = add_state();
  if (max && *max < min) return out;  // never
  if (max == 0) {
    add_empty(at, out);
    return out;
  }
  if (!max && min <= 1) {
    const State after = piece(at);
    add_empty(after, at);
    add_empty(min == 0 ? at : after, out);
    return out;
  }
  if (max == 1) {
    if (min == 0) add_empty(at, out);
    add_empty(piece(at), out);
    return out;
  }
  const Rule item = add_rule("a repetition");
  add_empty(piece(begin(item)), end(item));
  for (size_t i = 0; i < (max ? *max : min); ++i) {
    if (i >= min) add_empty(at, out);
    at = call(at, item);
  }
  add_empty(at, out);
  if (!max) {
    const State loop = add_state();
    add_empty(at, loop);
    const State after = call(loop, item);
    add_empty(after, loop);
    add_empty(loop, out);
  }
  return out;
}

GrammarBuilder::State GrammarBuilder::any_of(State from, std::span<const Piece> pieces) {
  const State out = add_state();
  for (const Piece& piece : pieces) {
    const State at = add_state();
    add_empty(from, at);
    add_empty(piece(at), out);
  }
  return out;
}

// Knuth, Morris and Pratt, "Fast Pattern Matching in Strings", 1977, over characters.
GrammarBuilder::State GrammarBuilder::until(State from, std::string_view mark, std::optional<State> may_end) {
  const std::vector<uint32_t> points = code_points_of(mark);
  QUERN_CHECK(!points.empty());
  std::vector<size_t> fallback(points.size() + 1, 0);  // longest proper border of the first n characters
  for (size_t n = 1, k = 0; n < points.size(); ++n) {
    while (k > 0 && points[n] != points[k]) k = fallback[k];
    if (points[n] == points[k]) ++k;
    fallback[n + 1] = k;
  }
  std::vector<State> states;  // so many characters of the mark are there
  for (size_t n = 0; n <= points.size(); ++n) states.push_back(add_state());
  add_empty(from, states[0]);
  for (size_t n = 0; n < points.size(); ++n) {
    CharSet known;
    for (size_t k = n;; k = fallback[k]) {
      const CharSet next = {{points[k], points[k]}};
      if (!known.contains(points[k])) add_char_range(states[n], states[k + 1], points[k], points[k]);
      known = known | next;
      if (k == 0) break;
    }
    add_empty(chars(states[n], ~known), states[0]);
    if (may_end) add_empty(states[n], *may_end);
  }
  return states.back();
}

// A state counts where some text leads from it to its rule's end. Every edge is looked at a bounded number of
// times.
void GrammarBuilder::trim(Rule root) {
  std::vector<std::vector<uint32_t>> into(n_states_), calls_of(rules_.size());
  std::vector<std::vector<Rule>> begins(n_states_);
  for (uint32_t i = 0; i < edges_.size(); ++i) {
    into[edges_[i].to].push_back(i);
    if (edges_[i].kind == Edge::Kind::kCall) calls_of[edges_[i].rule].push_back(i);
  }
  for (Rule rule = 0; rule < rules_.size(); ++rule) begins[begin(rule)].push_back(rule);
  std::vector<bool> counts(n_states_);
  std::vector<uint8_t> matches(rules_.size());
  std::vector<State> work;
  const auto reach = [&](State state) {
    if (counts[state]) return;
    counts[state] = true;
    work.push_back(state);
  };
  for (const RuleStates& rule : rules_) reach(rule.end);
  while (!work.empty()) {
    const State state = work.back();
    work.pop_back();
    for (const uint32_t i : into[state])
      if (edges_[i].kind != Edge::Kind::kCall || matches[edges_[i].rule] != 0) reach(edges_[i].from);
    for (const Rule rule : begins[state]) {
      if (std::exchange(matches[rule], uint8_t{1}) != 0) continue;
      for (const uint32_t i : calls_of[rule])
        if (counts[edges_[i].to]) reach(edges_[i].from);
    }
  }
  if (matches[root] == 0) fail(ErrorCode::kMalformed, "{}: no text matches it", where_);
  std::erase_if(edges_, [&](const Edge& edge) {
    return !counts[edge.from] || !counts[edge.to] ||
           (edge.kind == Edge::Kind::kCall && matches[edge.rule] == 0);
  });
}

std::vector<bool> GrammarBuilder::last_states() const {
  // An end, or a state whose only edges are empty ones to such: each is decided when all of its edges are.
  std::vector<uint32_t> open(n_states_);
  std::vector<std::vector<State>> into(n_states_);
  std::vector<bool> is_last(n_states_);
  for (const Edge& edge : edges_) {
    ++open[edge.from];
    if (edge.kind == Edge::Kind::kEmpty) into[edge.to].push_back(edge.from);
  }
  std::vector<State> work;
  for (const RuleStates& rule : rules_)
    if (open[rule.end] == 0) {
      is_last[rule.end] = true;
      work.push_back(rule.end);
    }
  while (!work.empty()) {
    const State state = work.back();
    work.pop_back();
    for (const State from : into[state])
      if (--open[from] == 0 && !is_last[from]) {
        is_last[from] = true;
        work.push_back(from);
      }
  }
  return is_last;
}

// A rule that calls itself before it has taken a byte would be gone into without end, unless each of the
// calls is the last thing of its rule: then nothing is left to return to, and it is the same place again.
void GrammarBuilder::refuse_left_recursion(const std::vector<bool>& is_last) const {
  std::vector<std::vector<uint32_t>> from(n_states_), into(n_states_), calls_of(rules_.size());
  for (uint32_t i = 0; i < edges_.size(); ++i) {
    if (edges_[i].kind == Edge::Kind::kByte) continue;
    from[edges_[i].from].push_back(i);
    into[edges_[i].to].push_back(i);
    if (edges_[i].kind == Edge::Kind::kCall) calls_of[edges_[i].rule].push_back(i);
  }
  // Which rules match nothing at all, by the way that trim() goes.
  std::vector<bool> empty(n_states_);
  std::vector<uint8_t> nullable(rules_.size());
  std::vector<std::vector<Rule>> begins(n_states_);
  for (Rule rule = 0; rule < rules_.size(); ++rule) begins[begin(rule)].push_back(rule);
  std::vector<State> work;
  const auto reach = [&](State state) {
    if (empty[state]) return;
    empty[state] = true;
    work.push_back(state);
  };
  for (const RuleStates& rule : rules_) reach(rule.end);
  while (!work.empty()) {
    const State state = work.back();
    work.pop_back();
    for (const uint32_t i : into[state])
      if (edges_[i].kind == Edge::Kind::kEmpty || nullable[edges_[i].rule] != 0) reach(edges_[i].from);
    for (const Rule rule : begins[state]) {
      if (std::exchange(nullable[rule], uint8_t{1}) != 0) continue;
      for (const uint32_t i : calls_of[rule])
        if (empty[edges_[i].to]) reach(edges_[i].from);
    }
  }
  // The calls that a rule may begin with.
  struct First {
    Rule rule;
    bool returns;  // something of the caller may follow
  };
  std::vector<std::vector<First>> firsts(rules_.size());
  std::vector<bool> seen(n_states_);
  for (Rule rule = 0; rule < rules_.size(); ++rule) {
    std::vector<State> open = {begin(rule)}, visited = open;
    seen[begin(rule)] = true;
    while (!open.empty()) {
      const State state = open.back();
      open.pop_back();
      for (const uint32_t i : from[state]) {
        const Edge& edge = edges_[i];
        const bool is_call = edge.kind == Edge::Kind::kCall;
        if (is_call) firsts[rule].push_back({edge.rule, !is_last[edge.to]});
        if ((is_call && nullable[edge.rule] == 0) || seen[edge.to]) continue;
        seen[edge.to] = true;
        open.push_back(edge.to);
        visited.push_back(edge.to);
      }
    }
    for (const State state : visited) seen[state] = false;
  }
  // Strongly connected rules: Tarjan, "Depth-First Search and Linear Graph Algorithms", 1972, with a stack of
  // its own.
  constexpr uint32_t kUnseen = UINT32_MAX;
  std::vector<uint32_t> order(rules_.size(), kUnseen), low(rules_.size()), component(rules_.size(), kUnseen);
  std::vector<Rule> path;
  uint32_t n_seen = 0, n_components = 0;
  struct Frame {
    Rule rule;
    size_t next;
  };
  for (Rule first = 0; first < rules_.size(); ++first) {
    if (order[first] != kUnseen) continue;
    std::vector<Frame> frames;
    const auto enter = [&](Rule rule) {
      order[rule] = low[rule] = n_seen++;
      path.push_back(rule);
      frames.push_back({rule, 0});
    };
    enter(first);
    while (!frames.empty()) {
      const Rule rule = frames.back().rule;
      if (frames.back().next < firsts[rule].size()) {
        const Rule callee = firsts[rule][frames.back().next++].rule;
        if (order[callee] == kUnseen)
          enter(callee);
        else if (component[callee] == kUnseen)
          low[rule] = std::min(low[rule], order[callee]);
        continue;
      }
      frames.pop_back();
      if (!frames.empty()) low[frames.back().rule] = std::min(low[frames.back().rule], low[rule]);
      if (low[rule] != order[rule]) continue;
      for (Rule member = kUnseen; member != rule;) {
        member = path.back();
        path.pop_back();
        component[member] = n_components;
      }
      ++n_components;
    }
  }
  for (Rule rule = 0; rule < rules_.size(); ++rule)
    for (const First& call : firsts[rule])
      if (call.returns && component[call.rule] == component[rule])
        fail(ErrorCode::kMalformed,
             "{}: the rule '{}' may begin with itself (left recursion); let it end with itself instead",
             where_, printable(rules_[rule].name));
}

Grammar GrammarBuilder::finish(Rule root) {
  trim(root);
  const std::vector<bool> is_last = last_states();
  refuse_left_recursion(is_last);
  Grammar grammar;
  grammar.begin_ = begin(root);
  std::stable_sort(edges_.begin(), edges_.end(),
                   [](const Edge& a, const Edge& b) { return a.from < b.from; });
  std::array<bool, 257> cuts{};
  cuts[0] = true;
  size_t next = 0;
  for (State state = 0; state <= n_states_; ++state) {
    grammar.rows_.push_back({static_cast<uint32_t>(grammar.bytes_.size()),
                             static_cast<uint32_t>(grammar.empties_.size()),
                             static_cast<uint32_t>(grammar.calls_.size())});
    for (; next < edges_.size() && edges_[next].from == state; ++next) {
      const Edge& edge = edges_[next];
      switch (edge.kind) {
        case Edge::Kind::kByte:
          grammar.bytes_.push_back({edge.low, edge.high, edge.to});
          cuts[edge.low] = cuts[size_t{edge.high} + 1] = true;
          break;
        case Edge::Kind::kEmpty:
          grammar.empties_.push_back(edge.to);
          break;
        case Edge::Kind::kCall:
          grammar.calls_.push_back({begin(edge.rule), is_last[edge.to] ? Grammar::Call::kNothing : edge.to});
          break;
      }
    }
  }
  for (const RuleStates& rule : rules_) grammar.rows_[rule.end].ends = true;
  for (size_t byte = 0; byte < 256; ++byte) {
    if (cuts[byte]) grammar.representatives_.push_back(static_cast<uint8_t>(byte));
    grammar.class_of_[byte] = static_cast<uint8_t>(grammar.representatives_.size() - 1);
  }
  return grammar;
}

}  // namespace quern
