#include "runtime/perplexity.h"

#include <algorithm>
#include <cmath>

#include "kernels/math_f64.h"

namespace quern {
namespace {

PerplexityChunk summarise(uint64_t chunk, uint64_t n_chunks, uint64_t count, double sum,
                          double sum_of_squares) {
  const double n = static_cast<double>(count);
  const double mean = sum / n;
  const double variance = std::max(0.0, sum_of_squares / n - mean * mean);
  const double perplexity = exp2d(mean * 0x1.71547652b82fep0);  // log2(e)
  const double error = count > 1 ? perplexity * std::sqrt(variance / (n - 1)) : 0.0;
  return {chunk, n_chunks, perplexity, mean, error, count};
}

}  // namespace

double negative_log_likelihood(const KernelSet& kernels, std::span<const float> logits, int32_t target) {
  const float z_max = *std::max_element(logits.begin(), logits.end());
  const double sum = kernels.sum_exp(logits.data(), logits.size(), z_max);
  return ln(sum) - static_cast<double>(logits[static_cast<size_t>(target)] - z_max);
}

void require_perplexity_text(uint64_t n_tokens, uint64_t n_ctx) {
  if (n_ctx < 4) fail(ErrorCode::kUsage, "--ctx {}: perplexity needs at least 4", n_ctx);
  if (n_tokens < 2 * n_ctx)
    fail(ErrorCode::kUsage,
         "the text has {} tokens; perplexity with --ctx {} needs at least {}: use a longer text or a smaller "
         "--ctx",
         n_tokens, n_ctx, 2 * n_ctx);
}

PerplexityChunk measure_perplexity(Session& session, std::span<const int32_t> tokens,
                                   const PerplexityOptions& options,
                                   const std::function<void(const PerplexityChunk&)>& on_chunk,
                                   const ScoredTokenFn& on_token, const Session::StopFn& stop) {
  const uint64_t n_ctx = options.n_ctx;
  require_perplexity_text(tokens.size(), n_ctx);
  if (n_ctx > session.model().context())
    fail(ErrorCode::kUsage, "--ctx {}: the session's context is {}", n_ctx, session.model().context());
  const Vocabulary& vocabulary = session.model().tokenizer().vocabulary();
  uint64_t n_chunks = tokens.size() / n_ctx;
  if (options.max_chunks != 0) n_chunks = std::min(n_chunks, options.max_chunks);

  const uint64_t first =
      n_ctx / 2;  // the second half is scored: every token has at least this much before it
  double sum = 0, sum_of_squares = 0;
  uint64_t count = 0;
  PerplexityChunk last{};
  for (uint64_t chunk = 0; chunk < n_chunks; ++chunk) {
    std::vector<int32_t> ids(tokens.begin() + chunk * n_ctx, tokens.begin() + (chunk + 1) * n_ctx);
    if (vocabulary.add_bos) ids[0] = vocabulary.bos;
    session.truncate(0);
    const auto score = [&](size_t position, std::span<const float> logits) {
      const int32_t target = ids[position + 1];
      const double nll = negative_log_likelihood(session.model().kernels(), logits, target);
      if (!std::isfinite(nll))
        fail(ErrorCode::kIntegrity, "non-finite logits at position {} of chunk {}", position, chunk);
      sum += nll;
      sum_of_squares += nll * nll;
      ++count;
      if (on_token) on_token(chunk, position + 1, target, nll);
    };
    // The last token of a chunk predicts nothing that is scored, so it is not evaluated.
    const auto inputs = std::span<const int32_t>(ids).first(n_ctx - 1);
    if (!session.eval(inputs, n_ctx - 1 - first, score, stop)) break;
    last = summarise(chunk, n_chunks, count, sum, sum_of_squares);
    if (on_chunk) on_chunk(last);
  }
  return last;
}

}  // namespace quern
