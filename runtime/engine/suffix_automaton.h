// Where the end of a growing text of tokens has stood in it before, and what came then.
//
// Blumer, Blumer, Haussler, Ehrenfeucht, Chen and Seiferas, "The smallest automaton recognizing the subwords
// of a text", Theoretical Computer Science 40, 1985, section 2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/vocabulary.h"

namespace quern {

// Takes about 100 bytes and, amortised, constant time a token. Not thread-safe.
class SuffixAutomaton {
 public:
  SuffixAutomaton();

  // Appends a token. Throws kResource beyond 2^30 tokens.
  void push(TokenId token);
  std::span<const TokenId> text() const { return text_; }

  // Length of the longest end of the text that also stands further to the front (the two may overlap).
  size_t match_length() const { return match_length_; }
  // The token that came i places behind that earlier one; what lies beyond the text's end is taken to go on
  // as that says. match_length() > 0.
  TokenId following(size_t i) const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  // The texts that end at the same places: they are ends of each other.
  struct State {
    uint32_t length;            // of the longest
    uint32_t link;              // the state of the longest end that stands at more places
    uint32_t last;              // index of the last token of one occurrence, the latest that is known
    uint32_t first_transition;  // of a list
  };
  struct Transition {
    uint32_t state;
    TokenId token;
    uint32_t target, next;
  };

  uint32_t add_state(uint32_t length, uint32_t link, uint32_t last);
  void add_transition(uint32_t state, TokenId token, uint32_t target);
  uint32_t find(uint32_t state, TokenId token) const;
  uint32_t clone(uint32_t state, uint32_t length);
  size_t home_of(uint32_t state, TokenId token) const;
  void grow();

  std::vector<TokenId> text_;
  std::vector<State> states_;
  std::vector<Transition> transitions_;
  std::vector<uint32_t> table_;  // of transitions, by state and token: open addressing; a power of two
  uint32_t whole_ = 0;           // the state of the whole text
  size_t match_length_ = 0, match_last_ = 0;
};

}  // namespace quern
