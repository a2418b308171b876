// Picks the next token from logits (arithmetic.md "Sampler": order and defaults of llama.cpp).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/vocabulary.h"

namespace quern {

struct SamplerOptions {
  float temperature = 0.8f;     // 0: greedy; finite, >= 0
  int top_k = 40;               // 0: all
  double top_p = 0.95;          // 1: all
  double min_p = 0.05;          // 0: all
  float repeat_penalty = 1.0f;  // 1: none; > 0
  int repeat_last_n = 64;
  uint64_t seed = 0;
};

// Not thread-safe (scratch); draws depend on (seed, position) alone.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  // logits: [vocab_size], unchanged. history: all tokens so far, the prompt included. position: index that
  // the picked token will have in the sequence. Throws kIntegrity "non-finite logits at position N" when a
  // logit is NaN or infinite.
  TokenId pick(std::span<const float> logits, std::span<const TokenId> history, uint64_t position);

 private:
  struct Candidate {
    float logit;
    TokenId id;
    double weight;
  };
  SamplerOptions options_;
  std::vector<Candidate> candidates_;
  std::vector<float> penalised_;
};

}  // namespace quern
