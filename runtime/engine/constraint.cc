#include "runtime/engine/constraint.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "quant/error.h"

namespace quern {
namespace {

// What one automaton grows to; who comes after begins another.
constexpr size_t kMaxRowBytes = 8u << 20;
constexpr size_t kMaxMaskBytes = 8u << 20;
constexpr size_t kMaxSetBytes = 16u << 20;
constexpr size_t kMaxStackEntries = 1u << 18;
// Of one set.
constexpr size_t kMaxStacks = 1u << 12;
constexpr uint32_t kMaxStackDepth = 1000;  // a text that is nested deeper may not come
// Work for one mask, or one token that is taken: nobody waits for a hostile grammar, nor does it fill the
// memory. In units of about what an edge costs that takes a byte; cli/conventions.md 5.7 has what masks take.
constexpr int64_t kMaxMaskWork = 1 << 24;
constexpr int64_t kStackWork = 8;        // a stack whose edges are looked at
constexpr int64_t kEntryWork = 32;       // an entry whose edges are followed
constexpr int64_t kLookupWork = 16;      // one that they lead to
constexpr int64_t kTransitionWork = 32;  // one of a set that is made

constexpr int32_t kUnknownSet = -2, kNoSet = -1;

}  // namespace

class Constraint::Automaton {
 public:
  Automaton(const Grammar& grammar, const TokenTrie& trie)
      : grammar_(grammar), trie_(trie), n_classes_(grammar.n_classes()) {
    entries_.push_back({0, 0, 0});  // the empty stack
    seen_.push_back(0);
    budget_ = kMaxMaskWork;
    begin_closure();
    add(entry(grammar.begin(), 0));
    begin_ = intern_closure();
    if (begin_ == kNoSet) begin_ = 0;
  }

  std::mutex& mutex() { return mutex_; }
  uint32_t begin() const { return static_cast<uint32_t>(begin_); }
  bool is_full() const {
    return rows_.size() * sizeof rows_[0] > kMaxRowBytes || entries_.size() > kMaxStackEntries ||
           n_mask_bytes_ > kMaxMaskBytes || n_set_bytes_ > kMaxSetBytes;
  }
  bool may_end(uint32_t set) const { return sets_[set].may_end; }
  bool must_end(uint32_t set) const { return sets_[set].may_end && sets_[set].stacks.empty(); }

  // The set that `bytes` lead to; kNoSet: none.
  int32_t walk(uint32_t set, std::string_view bytes) {
    budget_ = kMaxMaskWork;
    int32_t at = static_cast<int32_t>(set);
    for (const char c : bytes) {
      at = step(static_cast<uint32_t>(at), grammar_.class_of(static_cast<uint8_t>(c)));
      if (at == kNoSet) break;
    }
    return at;
  }

  void mask(uint32_t set, bool is_first, TokenMask* out) {
    if (is_first) {
      budget_ = kMaxMaskWork;
      out->assign(trie_.mask_words(), 0);
      walk_trie(trie_.first(), set, out);
      return;
    }
    std::unique_ptr<TokenMask>& known = sets_[set].mask;
    if (known != nullptr) {
      *out = *known;
      return;
    }
    budget_ = kMaxMaskWork;
    if (takes_plain(set)) {
      *out = trie_.plain_mask();
    } else {
      out->assign(trie_.mask_words(), 0);
      walk_trie(trie_.plain(), set, out);
    }
    walk_trie(trie_.rest(), set, out);
    sets_[set].mask = std::make_unique<TokenMask>(*out);  // sets_ may have moved
    n_mask_bytes_ += out->size() * sizeof(uint64_t);
  }

  // The same set as `other` has as `set`.
  uint32_t adopt(const Automaton& other, uint32_t set) {
    std::vector<uint32_t> stacks, above;
    std::vector<uint32_t> known(
        other.entries_.size());  // an entry's number here; stacks share what lies below
    for (const uint32_t stack : other.sets_[set].stacks) {
      for (uint32_t at = stack; at != 0 && known[at] == 0; at = other.entries_[at].below) above.push_back(at);
      for (; !above.empty(); above.pop_back()) {
        const Entry& copied = other.entries_[above.back()];
        known[above.back()] = entry(copied.state, known[copied.below]);
      }
      stacks.push_back(known[stack]);
    }
    return static_cast<uint32_t>(intern(std::move(stacks), other.sets_[set].may_end));
  }

 private:
  // A state to go on at, and what is to be returned to when its rule ends.
  struct Entry {
    Grammar::State state;
    uint32_t below;  // 0: nothing
    uint32_t depth;
  };
  // Stacks whose top has edges that take bytes.
  struct Set {
    std::vector<uint32_t> stacks;  // ascending
    bool may_end = false;
    int32_t plain_next = kUnknownSet;  // where every plain character leads; kNoSet: not to one set
    std::unique_ptr<TokenMask> mask;
  };
  struct KeyHash {
    size_t operator()(const std::vector<uint32_t>& key) const {
      uint64_t hash = 0x9e3779b97f4a7c15;
      for (const uint32_t word : key) hash = (hash ^ word) * 0xff51afd7ed558ccd + (hash >> 29);
      return static_cast<size_t>(hash);
    }
  };

  uint32_t entry(Grammar::State state, uint32_t below) {
    const uint64_t key = uint64_t{state} << 32 | below;
    const auto [found, is_new] = entry_ids_.try_emplace(key, static_cast<uint32_t>(entries_.size()));
    if (is_new) {
      entries_.push_back({state, below, entries_[below].depth + 1});
      seen_.push_back(0);
    }
    return found->second;
  }

  void spend(int64_t work) {
    budget_ -= work;
    if (budget_ >= 0 && found_.size() <= kMaxStacks) return;
    work_.clear();
    fail(ErrorCode::kMalformed, "the grammar may go on in too many ways at once; make it less ambiguous");
  }

  void begin_closure() {
    ++closure_;
    found_.clear();
    may_end_ = false;
  }

  // Goes everywhere that no byte is needed for.
  void add(uint32_t first) {
    work_.push_back(first);
    while (!work_.empty()) {
      const uint32_t id = work_.back();
      work_.pop_back();
      if (std::exchange(seen_[id], closure_) == closure_) continue;
      const Entry at = entries_[id];
      const std::span<const Grammar::State> empties = grammar_.empties(at.state);
      const std::span<const Grammar::Call> calls = grammar_.calls(at.state);
      spend(kEntryWork + kLookupWork * static_cast<int64_t>(empties.size() + calls.size()));
      if (!grammar_.bytes(at.state).empty()) found_.push_back(id);
      for (const Grammar::State next : empties) work_.push_back(entry(next, at.below));
      for (const Grammar::Call& call : calls) {
        if (call.back == Grammar::Call::kNothing)
          work_.push_back(entry(call.begin, at.below));
        else if (at.depth < kMaxStackDepth)
          work_.push_back(entry(call.begin, entry(call.back, at.below)));
      }
      if (!grammar_.ends(at.state)) continue;
      if (at.below == 0)
        may_end_ = true;
      else
        work_.push_back(at.below);
    }
  }

  int32_t intern_closure() {
    if (found_.empty() && !may_end_) return kNoSet;
    std::sort(found_.begin(), found_.end());
    return intern(found_, may_end_);
  }

  int32_t intern(std::vector<uint32_t> stacks, bool may_end) {
    std::vector<uint32_t> key = stacks;
    key.push_back(may_end ? 1 : 0);
    const auto [found, is_new] = set_ids_.try_emplace(std::move(key), static_cast<int32_t>(sets_.size()));
    if (is_new) {
      Set& set = sets_.emplace_back();
      set.stacks = std::move(stacks);
      set.may_end = may_end;
      rows_.resize(rows_.size() + n_classes_, kUnknownSet);
      // Its stacks twice, the second time as a key in a node of its own.
      n_set_bytes_ += 2 * (sizeof(Set) + set.stacks.size() * sizeof(uint32_t));
      budget_ -= kTransitionWork * static_cast<int64_t>(n_classes_);
    }
    return found->second;
  }

  int32_t step(uint32_t set, uint8_t byte_class) {
    const size_t place = set * n_classes_ + byte_class;
    if (rows_[place] != kUnknownSet) return rows_[place];
    const uint8_t byte = grammar_.representative(byte_class);
    begin_closure();
    for (const uint32_t stack : sets_[set].stacks) {
      const Entry at = entries_[stack];
      const std::span<const Grammar::ByteEdge> edges = grammar_.bytes(at.state);
      spend(kStackWork + static_cast<int64_t>(edges.size()));
      for (const Grammar::ByteEdge& edge : edges)
        if (byte >= edge.low && byte <= edge.high) add(entry(edge.target, at.below));
    }
    const int32_t next = intern_closure();
    rows_[place] = next;
    return next;
  }

  void walk_trie(const Trie& trie, uint32_t set, TokenMask* out) {
    path_.assign(trie.depth + 1, 0);
    path_[0] = set;
    for (size_t i = 0; i < trie.size();) {
      const size_t depth = trie.depths[i];
      const size_t place = path_[depth - 1] * n_classes_ + grammar_.class_of(trie.bytes[i]);
      int32_t next = rows_[place];
      if (next == kUnknownSet) next = step(path_[depth - 1], grammar_.class_of(trie.bytes[i]));
      if (next == kNoSet) {
        i = trie.ends[i];
        continue;
      }
      path_[depth] = static_cast<uint32_t>(next);
      for (uint32_t k = trie.first_ids[i]; k < trie.first_ids[i + 1]; ++k) set_bit(*out, trie.ids[k]);
      ++i;
    }
  }

  // As many plain characters may come as any token of them has, whichever they are.
  bool takes_plain(uint32_t set) {
    for (size_t n = 0; n < trie_.longest_plain(); ++n) {
      const int32_t next = plain_next(set);
      if (next == kNoSet) return false;
      if (static_cast<uint32_t>(next) == set) return true;
      set = static_cast<uint32_t>(next);
    }
    return true;
  }

  int32_t plain_next(uint32_t set) {
    if (sets_[set].plain_next != kUnknownSet) return sets_[set].plain_next;
    const int32_t next = step(set, grammar_.class_of('a'));
    bool same = next != kNoSet;
    // The characters by their first byte, with the bounds of the second (The Unicode Standard, table 3-7).
    struct Row {
      uint8_t low, high, second_low, second_high;
      int more;
    };
    constexpr Row kRows[] = {{0xC2, 0xDF, 0x80, 0xBF, 1}, {0xE0, 0xE0, 0xA0, 0xBF, 2},
                             {0xE1, 0xEC, 0x80, 0xBF, 2}, {0xED, 0xED, 0x80, 0x9F, 2},
                             {0xEE, 0xEF, 0x80, 0xBF, 2}, {0xF0, 0xF0, 0x90, 0xBF, 3},
                             {0xF1, 0xF3, 0x80, 0xBF, 3}, {0xF4, 0xF4, 0x80, 0x8F, 3}};
    for (unsigned byte = 0x20; same && byte < 0x80; ++byte)
      if (TokenTrie::is_plain(static_cast<uint8_t>(byte)))
        same = step(set, grammar_.class_of(static_cast<uint8_t>(byte))) == next;
    for (const Row& row : kRows) {
      if (!same) break;
      std::vector<uint32_t> at;
      same = step_range(set, row.low, row.high, &at);
      for (int i = 0; same && i < row.more; ++i) {
        std::vector<uint32_t> after;
        for (const uint32_t from : at)
          same = same &&
                 step_range(from, i == 0 ? row.second_low : 0x80, i == 0 ? row.second_high : 0xBF, &after);
        at = std::move(after);
      }
      same = same && at.size() == 1 && at[0] == static_cast<uint32_t>(next);
    }
    sets_[set].plain_next = same ? next : kNoSet;
    return sets_[set].plain_next;
  }

  // Adds where the bytes from low to high lead; false: one of them leads nowhere.
  bool step_range(uint32_t set, unsigned low, unsigned high, std::vector<uint32_t>* to) {
    for (unsigned byte = low; byte <= high; ++byte) {
      const int32_t next = step(set, grammar_.class_of(static_cast<uint8_t>(byte)));
      if (next == kNoSet) return false;
      if (std::find(to->begin(), to->end(), static_cast<uint32_t>(next)) == to->end())
        to->push_back(static_cast<uint32_t>(next));
    }
    return true;
  }

  const Grammar& grammar_;
  const TokenTrie& trie_;
  const size_t n_classes_;
  std::mutex mutex_;
  int32_t begin_ = 0;
  std::vector<Entry> entries_;
  std::unordered_map<uint64_t, uint32_t> entry_ids_;
  std::vector<Set> sets_;
  std::unordered_map<std::vector<uint32_t>, int32_t, KeyHash> set_ids_;
  std::vector<int32_t> rows_;  // [sets, classes]
  size_t n_mask_bytes_ = 0, n_set_bytes_ = 0;
  // Of the closure that is being made.
  std::vector<uint32_t> seen_;  // [entries] the last closure that it was in
  std::vector<uint32_t> work_, found_;
  uint32_t closure_ = 0;
  bool may_end_ = false;
  int64_t budget_ = 0;
  std::vector<uint32_t> path_;  // [depth + 1] of a walk
};

Constraint::Constraint(Grammar grammar, std::shared_ptr<const TokenTrie> trie)
    : grammar_(std::move(grammar)),
      trie_(std::move(trie)),
      automaton_(std::make_shared<Automaton>(grammar_, *trie_)) {}

Constraint::~Constraint() = default;

ConstraintState::ConstraintState(std::shared_ptr<const Constraint> constraint, bool loses_space)
    : constraint_(std::move(constraint)),
      automaton_(constraint_->automaton()),
      set_(automaton_->begin()),
      loses_space_(loses_space) {}

void ConstraintState::leave_full() {
  auto own = std::make_shared<Constraint::Automaton>(constraint_->grammar_, *constraint_->trie_);
  set_ = own->adopt(*automaton_, set_);
  automaton_ = std::move(own);
}

void ConstraintState::next_tokens(TokenMask* mask) {
  const std::shared_ptr<Constraint::Automaton> shared = automaton_;
  const std::lock_guard lock(shared->mutex());
  if (shared->is_full()) leave_full();
  automaton_->mask(set_, loses_space_, mask);
}

bool ConstraintState::may_end() const {
  const std::lock_guard lock(automaton_->mutex());
  return automaton_->may_end(set_);
}

bool ConstraintState::must_end() const {
  const std::lock_guard lock(automaton_->mutex());
  return automaton_->must_end(set_);
}

bool ConstraintState::push(TokenId token) {
  const TokenTrie& trie = constraint_->trie();
  if (token < 0 || static_cast<size_t>(token) >= trie.vocab_size()) return false;
  std::string_view text = trie.text(token);
  if (loses_space_ && trie.begins_with_prefix(token)) text.remove_prefix(1);
  return !text.empty() && push(text);
}

bool ConstraintState::push(std::string_view bytes) {
  const std::lock_guard lock(automaton_->mutex());
  const int32_t next = automaton_->walk(set_, bytes);
  if (next < 0) return false;
  set_ = static_cast<uint32_t>(next);
  if (!bytes.empty()) loses_space_ = false;
  return true;
}

}  // namespace quern
