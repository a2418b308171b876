// Guesses at what comes next, which one pass checks together: of the tokens that followed when the text's end
// last stood in the text, as many go into a pass as its time is likely to pay for. A token is taken only if
// the sampler picks it from the logits that it would have had anyway, so that no text depends on any of this.
//
// Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding", ICML 2023; Hu et
// al., "SAM Decoding: Speculative Decoding via Suffix Automaton", ACL 2025.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "runtime/engine/suffix_automaton.h"

namespace quern {

// What passes of so many rows take on this machine with this model, learnt from those that were run.
class PassCosts {
 public:
  static constexpr size_t kMaxRows = 64;

  PassCosts() = default;
  // Those of 1, 2, ... rows are known, and stay as they are; the more rows are not known.
  explicit PassCosts(std::span<const double> seconds);

  // A pass of `rows` took so long; more than kMaxRows rows are not looked at.
  void add(size_t rows, double seconds);
  // Seconds of a pass of `rows` rows, at least 1: as measured, or between what was measured beside it. Where
  // nothing has more rows, as beyond kMaxRows, each takes as much as those before it, or, where only one
  // number of rows is known, kAssumed of a pass of one. 0: nothing is known.
  double of(size_t rows) const;

 private:
  static constexpr double kAssumed = 0.25;
  struct Entry {
    double seconds = 0;
    size_t n = 0;         // measurements; 0: none
    size_t measured = 0;  // number of the latest
  };
  void forget_rare();

  std::array<Entry, kMaxRows + 1> entries_;
  size_t n_measured_ = 0;
  bool learns_ = true;
};

// How often a guess comes true, by the length of the match that it comes from. Learnt from every token of an
// answer, whether its guess was in a pass or not.
class GuessRates {
 public:
  double of(size_t match_length) const;
  void add(size_t match_length, bool came_true);

 private:
  static constexpr size_t kClasses = 7;  // 1, 2, 3-4, 5-8, 9-16, 17-32, longer
  static size_t class_of(size_t match_length);
  struct Count {
    double came_true, all;
  };
  // As if so many had been seen: what repetitive and other texts have in the middle.
  std::array<Count, kClasses> counts_{{{0.3, 3}, {0.6, 3}, {1.2, 3}, {1.8, 3}, {2.2, 3}, {2.5, 3}, {2.7, 3}}};
};

// Guesses for one text.
class Guesser {
 public:
  static constexpr size_t kMostGuesses = 15;  // KvShape::kStateRows less the token that is known

  // Starts with what was learnt from other texts.
  explicit Guesser(const GuessRates& rates = {}) : rates_(rates) {}

  size_t size() const { return automaton_.text().size(); }
  // Appends tokens that nobody picked: a prompt.
  void read(std::span<const TokenId> tokens);
  // Appends a token that was picked.
  void push(TokenId token);
  // Of the next 1, 2, ... up to min(most, kMostGuesses) guesses: the chance that all of them come true; those
  // that hardly can are left out.
  std::span<const double> chances(size_t most);
  TokenId guess(size_t i) const { return automaton_.following(i); }
  const GuessRates& rates() const { return rates_; }

 private:
  SuffixAutomaton automaton_;
  GuessRates rates_;
  std::vector<double> chances_;
};

// A sequence's guesses, and how many of them a pass takes.
struct Draft {
  std::span<const double> chances;  // as Guesser has them
  size_t n = 0;
};

// Sets the numbers of guesses, so that a pass that has `rows` rows without them brings most tokens a second,
// takes at most `slowest` times as long as without, and has at most most_rows rows. A gain that might be
// noise is none.
void choose_drafts(std::span<Draft> drafts, size_t rows, size_t most_rows, double slowest,
                   const PassCosts& costs);

}  // namespace quern
