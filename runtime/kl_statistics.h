// How far a model's predictions are from those of another one, its base: token by token, and the statistics
// over all tokens that llama-perplexity --kl-divergence prints (cli/conventions.md 4.3), in f64 throughout.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace quern {

// One scored token. nll: -ln of the probability of the token that came; natural logarithms.
struct TokenComparison {
  double nll = 0, nll_base = 0;
  double kl = 0;          // sum over the vocabulary of p_base * ln(p_base / p)
  double p_diff = 0;      // p - p_base of the token that came
  bool same_top = false;  // both find the same token the likeliest; of equal ones the lowest id
};

// base, logits: [vocab_size] of the same position; target: the id that came, in range. Infinite or NaN
// logits make values that are not finite; -Inf is allowed where the base has it. The same bits on every CPU.
TokenComparison compare_logits(std::span<const float> base, std::span<const float> logits, int32_t target);

// --- llama-perplexity's 16-bit storage of a row of log-probabilities ---
// uint16 words of a row: f32 scale, f32 min, then vocab_size codes q with ln p = scale * q + min, and one
// more where their number is odd. Whatever is 16 below the maximum or less is stored as that.
constexpr size_t stored_row_words(size_t vocab_size) { return 4 + (vocab_size + 1) / 2 * 2; }
// row: stored_row_words(logits.size()).
void store_row(std::span<const float> logits, std::span<uint16_t> row);
// The same comparison with a base that was stored; tokens whose stored ln p is -16 or less do not count, and
// what counts is not scaled to a sum of 1: numbers as the programs print that read such a file.
TokenComparison compare_stored(std::span<const uint16_t> base_row, std::span<const float> logits,
                               int32_t target);

// A value and its standard error.
struct Estimate {
  double value = 0, error = 0;
};

struct KlSummary {
  static constexpr std::array<double, 8> kKlFractions = {0.999, 0.99, 0.95, 0.90, 0.10, 0.05, 0.01, 0.001};
  static constexpr std::array<double, 10> kDiffFractions = {0.999, 0.99, 0.95, 0.90, 0.75,
                                                            0.25,  0.10, 0.05, 0.01, 0.001};
  uint64_t count = 0;  // tokens
  Estimate perplexity, perplexity_base;
  double correlation = 0;                 // of the logarithms, -1 to 1
  Estimate log_ratio, ratio, difference;  // of the perplexities: model / base, model - base
  Estimate kl;
  double kl_max = 0, kl_median = 0, kl_min = 0;
  std::array<double, 8> kl_percentiles{};  // at kKlFractions
  Estimate p_diff, p_diff_rms;             // as probabilities, not percent
  double p_diff_max = 0, p_diff_median = 0, p_diff_min = 0;
  std::array<double, 10> p_diff_percentiles{};  // at kDiffFractions
  Estimate same_top;                            // share of tokens
};

// Collects tokens; 33 bytes each.
class KlStatistics {
 public:
  void add(const TokenComparison& token);
  uint64_t count() const { return kl_.size(); }
  const std::vector<double>& kl() const { return kl_; }

  // Of all tokens so far; what needs them in order (maxima, minima, percentiles) stays 0 unless asked for.
  // Zeros for no tokens. A percentile is interpolated linearly at fraction * (count - 1).
  KlSummary summary(bool with_percentiles) const;

 private:
  std::vector<double> nll_, nll_base_, kl_, p_diff_;
  uint64_t n_same_top_ = 0;
};

// values: ascending, at least one; fraction: 0 to 1.
double percentile(std::span<const double> values, double fraction);

}  // namespace quern
