// Perplexity to the letter of llama-perplexity's default mode (conventions.md 4.2), of one model or of two
// side by side (4.3).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/engine.h"
#include "runtime/kl_statistics.h"

namespace quern {

// Logits of every scored token, [vocab_size], in the order of the text; valid during the call.
using LogitRowFn = std::function<void(std::span<const float> logits)>;

struct PerplexityOptions {
  uint64_t n_ctx = 512;
  uint64_t max_chunks = 0;                     // 0: all
  uint64_t micro_batch = Engine::kMicroBatch;  // tokens of several chunks that are evaluated together
  LogitRowFn on_row;                           // where two models are compared, of the base; may be null
};

struct PerplexityChunk {
  uint64_t chunk;  // from 0
  uint64_t n_chunks;
  double perplexity;      // running, over all chunks so far
  double mean_nll;        // running
  double standard_error;  // of the perplexity, running: PPL * sqrt((mean(nll^2) - mean^2) / (count - 1))
  uint64_t count;         // scored tokens so far
  uint64_t n_evaluated;   // chunks: those of the same pass are all evaluated when the first is told of
};

// chunk, position of the predicted token in its chunk, its id, its negative log-likelihood (f64).
using ScoredTokenFn = std::function<void(uint64_t chunk, uint64_t position, int32_t id, double nll)>;

// tokens: the whole text's ids, BOS included when the vocabulary adds one. The model's context must be >=
// n_ctx. Throws kUsage when the text is shorter than 2 * n_ctx tokens or n_ctx is too small. Returns the
// final values; `on_chunk` is called after each chunk. As many chunks as a micro-batch has room for are
// evaluated in one pass; the numbers are those of one after the other.
PerplexityChunk measure_perplexity(const Model& model, std::span<const int32_t> tokens,
                                   const PerplexityOptions& options,
                                   const std::function<void(const PerplexityChunk&)>& on_chunk,
                                   const ScoredTokenFn& on_token, StopFlag stop);

// The ids as one chunk, nothing put in front, every next id scored: position 1 to ids.size() - 1 of chunk 0.
// At least two ids, which the model's context holds.
PerplexityChunk measure_ids(const Model& model, std::span<const int32_t> ids, const ScoredTokenFn& on_token,
                            StopFlag stop);

// How many chunks measure_perplexity makes of a text.
uint64_t count_chunks(uint64_t n_tokens, const PerplexityOptions& options);

// Two models on the same tokens, in one pass over both.
struct Comparison {
  const Model& model;
  const Model& base;          // of as many tokens and of a context that is as long
  bool peer_storage = false;  // the base's rows go through llama-perplexity's 16 bits
};
// kUsage when the two vocabularies are of different sizes; comparing asks for it too.
void require_same_vocabulary(const Comparison& models);

struct ComparisonChunk {
  uint64_t chunk, n_chunks, n_evaluated;  // as in PerplexityChunk
  const KlStatistics& statistics;         // of all chunks so far
};
using ComparisonChunkFn = std::function<void(const ComparisonChunk&)>;
using ComparedTokenFn =
    std::function<void(uint64_t chunk, uint64_t position, int32_t id, const TokenComparison& token)>;

// As measure_perplexity and measure_ids, errors too; `model` says whether chunks begin with BOS. No more than
// one row of logits of either model is on the host, and Network::kLogitRows on its device.
KlStatistics compare_perplexity(const Comparison& models, std::span<const int32_t> tokens,
                                const PerplexityOptions& options, const ComparisonChunkFn& on_chunk,
                                const ComparedTokenFn& on_token, StopFlag stop);
KlStatistics compare_ids(const Comparison& models, std::span<const int32_t> ids,
                         const ComparedTokenFn& on_token, StopFlag stop);

// Throws kUsage when a text of n_tokens is too short for chunks of n_ctx, or n_ctx too small.
void require_perplexity_text(uint64_t n_tokens, uint64_t n_ctx);

// -log softmax(logits)[target] (arithmetic.md "Perplexity").
double negative_log_likelihood(const KernelSet& kernels, std::span<const float> logits, int32_t target);

}  // namespace quern
