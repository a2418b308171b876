// Picks the next token from logits (arithmetic.md "Sampler": order and defaults of llama.cpp).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/vocabulary.h"

namespace quern {

struct SamplerOptions {
  float temperature = 0.8f;     // 0: greedy; finite, >= 0
  int top_k = 40;               // >= 0; 0: all
  double top_p = 0.95;          // [0, 1]; 1: all; the best candidate always stays
  double min_p = 0.05;          // [0, 1]; 0: all; relative to the best candidate
  float repeat_penalty = 1.0f;  // finite, > 0; 1: none
  int repeat_last_n = 64;       // tokens of history that the penalty looks at; -1: all
  uint64_t seed = 0;
};

// Not thread-safe (scratch); draws depend on (seed, position) alone.
class Sampler {
 public:
  // Throws kUsage, naming the option that is out of its range.
  explicit Sampler(const SamplerOptions& options);

  // logits: [vocab_size], unchanged. history: all tokens so far, the prompt included. position: index that
  // the picked token will have in the sequence. allowed: [vocab_size] bits, 64 a word, the lowest first: the
  // tokens that there are, at least one; empty: all. Throws kIntegrity "non-finite logits at position N" when
  // a logit is NaN or infinite.
  TokenId pick(std::span<const float> logits, std::span<const TokenId> history, uint64_t position,
               std::span<const uint64_t> allowed = {});

 private:
  struct Candidate {
    float logit;
    TokenId id;
    double weight;
  };
  std::span<const float> penalise(std::span<const float> logits, std::span<const TokenId> history);
  // -> candidates_, sorted, cut by top_k
  void collect_best(std::span<const float> logits, std::span<const uint64_t> allowed);
  void cut_tail();  // top_p, then min_p

  SamplerOptions options_;
  std::vector<Candidate> candidates_;
  std::vector<float> penalised_;
};

}  // namespace quern
