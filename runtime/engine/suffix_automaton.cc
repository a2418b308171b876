#include "runtime/engine/suffix_automaton.h"

#include "quant/error.h"

namespace quern {

SuffixAutomaton::SuffixAutomaton() : table_(64, kNone) { add_state(0, kNone, 0); }

uint32_t SuffixAutomaton::add_state(uint32_t length, uint32_t link, uint32_t last) {
  states_.push_back({length, link, last, kNone});
  return static_cast<uint32_t>(states_.size() - 1);
}

// Fibonacci hashing (Knuth, "The Art of Computer Programming", volume 3, section 6.4) of both numbers.
size_t SuffixAutomaton::home_of(uint32_t state, TokenId token) const {
  const uint64_t key = uint64_t{state} << 32 | static_cast<uint32_t>(token);
  const uint64_t hash = (key ^ key >> 29) * 0x9e3779b97f4a7c15;
  return static_cast<size_t>(hash >> 32) & (table_.size() - 1);
}

uint32_t SuffixAutomaton::find(uint32_t state, TokenId token) const {
  for (size_t i = home_of(state, token);; i = (i + 1) & (table_.size() - 1)) {
    const uint32_t found = table_[i];
    if (found == kNone || (transitions_[found].state == state && transitions_[found].token == token))
      return found;
  }
}

void SuffixAutomaton::add_transition(uint32_t state, TokenId token, uint32_t target) {
  if (2 * (transitions_.size() + 1) > table_.size()) grow();
  size_t i = home_of(state, token);
  while (table_[i] != kNone) i = (i + 1) & (table_.size() - 1);
  const auto index = static_cast<uint32_t>(transitions_.size());
  table_[i] = index;
  transitions_.push_back({state, token, target, states_[state].first_transition});
  states_[state].first_transition = index;
}

void SuffixAutomaton::grow() {
  table_.assign(2 * table_.size(), kNone);
  for (uint32_t index = 0; index < transitions_.size(); ++index) {
    size_t i = home_of(transitions_[index].state, transitions_[index].token);
    while (table_[i] != kNone) i = (i + 1) & (table_.size() - 1);
    table_[i] = index;
  }
}

// A state of the texts up to `length` of another one's, which keeps the longer. Transitions are never
// removed, and there are at most three for each token, so that copying them takes constant time a token too.
uint32_t SuffixAutomaton::clone(uint32_t state, uint32_t length) {
  const uint32_t copy = add_state(length, states_[state].link, states_[state].last);
  for (uint32_t i = states_[state].first_transition; i != kNone; i = transitions_[i].next)
    add_transition(copy, transitions_[i].token, transitions_[i].target);
  states_[state].link = copy;
  return copy;
}

void SuffixAutomaton::push(TokenId token) {
  constexpr size_t kMost = size_t{1} << 30;
  if (text_.size() >= kMost) fail(ErrorCode::kResource, "a text of more than {} tokens", kMost);
  const auto index = static_cast<uint32_t>(text_.size());
  text_.push_back(token);
  const uint32_t added = add_state(index + 1, 0, index);
  uint32_t p = whole_, transition = kNone;
  for (; p != kNone; p = states_[p].link) {
    transition = find(p, token);
    if (transition != kNone) break;
    add_transition(p, token, added);
  }
  uint32_t link = 0;
  if (p != kNone) {
    link = transitions_[transition].target;
    if (const uint32_t length = states_[p].length + 1; states_[link].length != length) {
      const uint32_t longer = link;
      link = clone(longer, length);
      for (; p != kNone; p = states_[p].link) {
        transition = find(p, token);
        if (transition == kNone || transitions_[transition].target != longer) break;
        transitions_[transition].target = link;
      }
    }
  }
  states_[added].link = link;
  whole_ = added;
  match_length_ = states_[link].length;
  match_last_ = states_[link].last;
  states_[link].last = index;
}

TokenId SuffixAutomaton::following(size_t i) const {
  const size_t period = text_.size() - 1 - match_last_;
  return text_[match_last_ + 1 + i % period];
}

}  // namespace quern
