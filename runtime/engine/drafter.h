// Guesses of a smaller model of the same vocabulary, which the large one's passes check as they check those
// of speculation.h: no text depends on them. The small model picks with the answer's own sampler, whose draws
// depend on seed and position alone, so that at any temperature the two differ only where their probabilities
// do.
//
// Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding", ICML 2023.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "runtime/engine.h"
#include "runtime/engine/speculation.h"
#include "runtime/sampler.h"

namespace quern {

// How often a guess comes true, by the probability that the small model gives it. Learnt from those whose
// truth came out.
class DraftRates {
 public:
  double of(double probability) const;
  void add(double probability, bool came_true);
  // Of all guesses.
  double mean() const { return came_true_ / all_; }

 private:
  static constexpr size_t kClasses = 8;  // of equal width
  static size_t class_of(double probability);
  struct Count {
    double came_true = 0, all = 0;
  };
  std::array<Count, kClasses> counts_{};
  double came_true_ = 2, all_ = 3;  // as if so many had been seen
};

// Not thread-safe.
class Drafter {
 public:
  // Both models outlive it. Throws kUsage where their vocabularies differ, with the first id that does.
  Drafter(const Model& draft, const Model& target);

  // One text: what it is so far, the small model's cache of it, and the guesses at what follows.
  class Text {
   public:
    // Allocates the cache for the small model's context. The drafter outlives it.
    explicit Text(Drafter& drafter);

    Drafter& drafter() const { return drafter_; }
    // Begins another text, without what the cache has of earlier ones if `forgets`. sampler: as the answer
    // has it.
    void begin(const SamplerOptions& sampler, bool forgets = false);
    size_t size() const { return tokens_.size() - probabilities_.size(); }
    // Appends tokens that were not to be guessed: a prompt.
    void read(std::span<const TokenId> tokens);
    // Appends a token that was picked.
    void push(TokenId token);

    // Of the latest guesses that no token was appended to since, the chances that the first, the first two,
    // ... come true.
    std::span<const double> chances() const { return chances_; }
    TokenId guess(size_t i) const { return tokens_[size() + i]; }

   private:
    friend class Drafter;
    void forget_guesses();

    Drafter& drafter_;
    Sequence sequence_;
    std::optional<Sampler> sampler_;
    std::vector<TokenId> tokens_;        // the guesses are the last of them
    std::vector<double> probabilities_;  // of each guess
    std::vector<double> chances_;
    size_t n_resting_ = 0;  // times in a row that guessing was not worth it
  };

  // Guesses behind each text, at most `most` of its own and Guesser::kMostGuesses, as long as one more is
  // likely to be worth the time: of the small model, and of a row more in a pass of the large one, which has
  // `rows` rows without guesses and takes what `costs` says; together at most `slowest` times as long as that
  // pass without (infinity: nobody else waits). A text that the small model has not read yet is read first,
  // in pieces. Texts differ. Where `stop` ended it there are fewer, where the small model failed none.
  struct Job {
    Text* text;
    size_t most;
  };
  void guess(std::span<const Job> jobs, size_t rows, double slowest, const PassCosts& costs,
             StopFlag stop = {});
  // Is it worth asking where a text itself suggests guesses with these chances?
  bool may_be_likelier(std::span<const double> chances) const {
    return chances.empty() || chances[0] < rates_.mean();
  }

 private:
  struct Guess {
    TokenId token;
    double probability;
  };
  void read_and_guess(std::span<const Job> jobs, size_t rows, double slowest, const PassCosts& costs,
                      StopFlag stop);
  Guess pick(Text& text, std::span<const float> logits) const;
  bool evaluate(std::span<const Job> jobs, StopFlag stop);

  const Model& model_;
  const size_t vocab_size_;  // of the model whose text it is
  Engine engine_;
  PassCosts costs_;
  bool is_warm_ = false;  // has run a pass
  DraftRates rates_;
};

}  // namespace quern
