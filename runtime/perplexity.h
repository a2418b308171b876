// Perplexity to the letter of llama-perplexity's default mode (conventions.md 4.2).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/session.h"

namespace quern {

struct PerplexityOptions {
  uint64_t n_ctx = 512;
  uint64_t max_chunks = 0;  // 0: all
};

struct PerplexityChunk {
  uint64_t chunk;  // from 0
  uint64_t n_chunks;
  double perplexity;      // running, over all chunks so far
  double mean_nll;        // running
  double standard_error;  // of the perplexity, running: PPL * sqrt((mean(nll^2) - mean^2) / (count - 1))
  uint64_t count;         // scored tokens so far
};

// chunk, position of the predicted token in its chunk, its id, its negative log-likelihood (f64).
using ScoredTokenFn = std::function<void(uint64_t chunk, uint64_t position, int32_t id, double nll)>;

// tokens: the whole text's ids, BOS included when the vocabulary adds one. The model's context must be >=
// n_ctx. Throws kUsage when the text is shorter than 2 * n_ctx tokens or n_ctx is too small. Returns the
// final values; `on_chunk` is called after each chunk.
PerplexityChunk measure_perplexity(Session& session, std::span<const int32_t> tokens,
                                   const PerplexityOptions& options,
                                   const std::function<void(const PerplexityChunk&)>& on_chunk,
                                   const ScoredTokenFn& on_token, const Session::StopFn& stop);

// Throws kUsage when a text of n_tokens is too short for chunks of n_ctx, or n_ctx too small.
void require_perplexity_text(uint64_t n_tokens, uint64_t n_ctx);

// -log softmax(logits)[target] (arithmetic.md "Perplexity").
double negative_log_likelihood(const KernelSet& kernels, std::span<const float> logits, int32_t target);

}  // namespace quern
