// An answer that keeps to a grammar: which tokens may come next.
//
// The automaton of a grammar is walked with sets of stacks, each a chain of states to return to. Sets are
// numbered as they appear, with their transitions by class of bytes, so that what was met once is looked up
// (a deterministic automaton that is built as it is needed), and the tokens that may follow a set are kept
// beside it. They are found by walking the vocabulary's trie; where any plain character may come, as in a
// string of JSON, tokens of plain characters alone are not walked: they are all there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "runtime/engine/grammar.h"
#include "runtime/engine/token_trie.h"

namespace quern {

// A grammar over a vocabulary, shared by any number of answers. Thread-safe.
class Constraint {
 public:
  // Throws kMalformed for a grammar that would go on in too many ways at once from its start.
  Constraint(Grammar grammar, std::shared_ptr<const TokenTrie> trie);
  ~Constraint();
  Constraint(const Constraint&) = delete;
  Constraint& operator=(const Constraint&) = delete;

  const TokenTrie& trie() const { return *trie_; }

 private:
  friend class ConstraintState;
  class Automaton;
  std::shared_ptr<Automaton> automaton() const { return automaton_; }

  const Grammar grammar_;
  const std::shared_ptr<const TokenTrie> trie_;
  const std::shared_ptr<Automaton> automaton_;
};

// Where one answer is. Cheap to copy; a copy goes its own way. Not thread-safe.
class ConstraintState {
 public:
  // loses_space: the answer's text loses the space that its first piece begins with.
  ConstraintState(std::shared_ptr<const Constraint> constraint, bool loses_space);

  // Replaces `mask` by the tokens that may come next: [mask_words]. Throws kMalformed for a grammar that goes
  // on in too many ways at once.
  void next_tokens(TokenMask* mask);
  // The text so far is whole.
  bool may_end() const;
  // And nothing may follow.
  bool must_end() const;
  // Takes a token. False, and nothing is changed, where it may not come.
  bool push(TokenId token);
  // Takes bytes; likewise.
  bool push(std::string_view bytes);

 private:
  void leave_full();  // the shared automaton, for one of its own, once that has grown too large

  std::shared_ptr<const Constraint> constraint_;
  std::shared_ptr<Constraint::Automaton> automaton_;
  uint32_t set_ = 0;
  bool loses_space_;
};

}  // namespace quern
