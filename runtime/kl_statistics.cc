#include "runtime/kl_statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/math_f64.h"
#include "quant/error.h"

namespace quern {
namespace {

constexpr double kLog2E = 0x1.71547652b82fep0;
constexpr size_t kLanes = 8;

// Two of a row's values side by side: every CPU has this, and products and sums alone have the same bits
// everywhere. (math_f64.h has fused ones, which are slow where the compiler may not assume them.)
using Double2 [[gnu::vector_size(16)]] = double;
using Bits2 [[gnu::vector_size(16)]] = int64_t;

constexpr double kLeast = -700;

// e^x to the last bit or two, for x <= 0; what is below kLeast counts as that.
inline Double2 exp_of(Double2 x) {
  constexpr double kRound = 0x1.8p52;  // adding it leaves a whole number in the lowest bits
  constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
  constexpr double kInverse[] = {
      1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
      1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1,           1};
  x = x < kLeast ? Double2{kLeast, kLeast} : x;
  const Double2 shifted = x * kLog2E + kRound;
  const Double2 n = shifted - kRound;
  const Double2 r = (x - n * kLn2High) - n * kLn2Low;
  Double2 p = {1.0 / 6227020800, 1.0 / 6227020800};  // Taylor series: |r| <= ln(2) / 2 leaves 4e-18
  for (const double inverse : kInverse) p = p * r + inverse;
  return std::bit_cast<Double2>(std::bit_cast<Bits2>(p) + (std::bit_cast<Bits2>(shifted) << 52));
}

double exp_any(double x) { return exp2d(x * kLog2E); }

float max_of(std::span<const float> z) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, z[0]);
  size_t i = 0;
  for (; i + kLanes <= z.size(); i += kLanes)
    for (size_t k = 0; k < kLanes; ++k) lanes[k] = z[i + k] > lanes[k] ? z[i + k] : lanes[k];
  for (; i < z.size(); ++i) lanes[0] = std::max(lanes[0], z[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

size_t first_of(std::span<const float> z, float value) {
  return static_cast<size_t>(std::find(z.begin(), z.end(), value) - z.begin());
}

struct RowSums {
  double base = 0;      // of e^(base(i) - shift)
  double weighted = 0;  // of the same times (base(i) - z_i)
  double model = 0;     // of e^(z_i - z_max)
};

// base(i): an unscaled log-probability of the base, of two tokens. What is `threshold` or more below `shift`
// counts nothing; NaN is not that.
template <class Base>
RowSums sum_row(const Base& base, double shift, double threshold, std::span<const float> z, double z_max) {
  constexpr size_t kVectors = kLanes / 2;
  Double2 base_sums[kVectors] = {}, weighted_sums[kVectors] = {}, model_sums[kVectors] = {};
  const auto add = [&](Double2 b, Double2 value, size_t k) {
    const Double2 zero = {};
    const Double2 x = b - shift, e = exp_of(x);
    base_sums[k] += x <= threshold ? zero : e;
    weighted_sums[k] += x <= threshold ? zero : e * (b - value);
    model_sums[k] += exp_of(value - z_max);
  };
  size_t i = 0;
  for (; i + kLanes <= z.size(); i += kLanes)
    for (size_t k = 0; k < kVectors; ++k) {
      const size_t j = i + 2 * k;
      add(Double2{base(j), base(j + 1)}, Double2{z[j], z[j + 1]}, k);
    }
  for (size_t k = 0; i < z.size(); i += 2, ++k) {
    const bool alone = i + 1 == z.size();  // beside nothing
    add(Double2{base(i), alone ? -HUGE_VAL : base(i + 1)}, Double2{z[i], alone ? -HUGE_VAL : z[i + 1]}, k);
  }
  RowSums total;
  for (size_t k = 0; k < kLanes; ++k) {
    total.base += base_sums[k / 2][k % 2];
    total.weighted += weighted_sums[k / 2][k % 2];
    total.model += model_sums[k / 2][k % 2];
  }
  return total;
}

double p_of(double nll) { return exp_any(-nll); }

struct StoredHead {
  float scale, min;
};

StoredHead head_of(std::span<const uint16_t> row) {
  StoredHead head;
  std::memcpy(&head, row.data(), sizeof(head));
  return head;
}

}  // namespace

TokenComparison compare_logits(std::span<const float> base, std::span<const float> logits, int32_t target) {
  QUERN_CHECK(base.size() == logits.size() && target >= 0 && static_cast<size_t>(target) < base.size());
  const float base_max = max_of(base), z_max = max_of(logits);
  const RowSums sums =
      sum_row([&](size_t i) { return static_cast<double>(base[i]); }, base_max, kLeast, logits, z_max);
  const double log_base = base_max + ln(sums.base), log_model = z_max + ln(sums.model);
  TokenComparison result;
  result.nll = log_model - logits[target];
  result.nll_base = log_base - base[target];
  // Rounding may leave a little less than nothing.
  result.kl = sums.weighted / sums.base - log_base + log_model;
  if (result.kl < 0) result.kl = 0;
  result.p_diff = p_of(result.nll) - p_of(result.nll_base);
  result.same_top = first_of(base, base_max) == first_of(logits, z_max);
  return result;
}

void store_row(std::span<const float> logits, std::span<uint16_t> row) {
  constexpr float kRange = 16, kMostCode = 65535;
  const float most = max_of(logits);
  const float least = std::max(*std::min_element(logits.begin(), logits.end()), most - kRange);
  const RowSums sums = sum_row([](size_t) { return 0.0; }, 0, 0, logits, most);
  const auto log_sum = static_cast<float>(ln(sums.model));
  const StoredHead head{(most - least) / kMostCode, least - most - log_sum};
  std::memcpy(row.data(), &head, sizeof(head));
  std::fill(row.begin() + 4, row.end(), uint16_t{0});
  if (head.scale == 0) return;
  const float inverse = 1 / head.scale;
  for (size_t i = 0; i < logits.size(); ++i)
    if (logits[i] > least)
      row[4 + i] = static_cast<uint16_t>(std::lrint(std::min(inverse * (logits[i] - least), kMostCode)));
}

TokenComparison compare_stored(std::span<const uint16_t> base_row, std::span<const float> logits,
                               int32_t target) {
  constexpr double kThreshold = -16;
  QUERN_CHECK(base_row.size() == stored_row_words(logits.size()));
  const StoredHead head = head_of(base_row);
  const std::span<const uint16_t> codes = base_row.subspan(4, logits.size());
  const float z_max = max_of(logits);
  const auto base = [&](size_t i) { return static_cast<double>(head.scale * codes[i] + head.min); };
  const RowSums sums = sum_row(base, 0, kThreshold, logits, z_max);
  const double log_model = z_max + ln(sums.model);
  TokenComparison result;
  result.nll = log_model - logits[target];
  result.nll_base = -base(static_cast<size_t>(target));
  result.kl = sums.weighted + sums.base * log_model;
  result.p_diff = p_of(result.nll) - p_of(result.nll_base);
  const auto top = static_cast<size_t>(std::max_element(codes.begin(), codes.end()) - codes.begin());
  result.same_top = (head.scale == 0 ? 0 : top) == first_of(logits, z_max);
  return result;
}

double percentile(std::span<const double> values, double fraction) {
  const double at = fraction * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, values.size() - 1);
  const double weight = at - static_cast<double>(below);
  return (1 - weight) * values[below] + weight * values[above];
}

void KlStatistics::add(const TokenComparison& token) {
  nll_.push_back(token.nll);
  nll_base_.push_back(token.nll_base);
  kl_.push_back(token.kl);
  p_diff_.push_back(token.p_diff);
  n_same_top_ += token.same_top;
}

namespace {

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// Of the means of a and b: the mean product of their deviations, over n - 1.
double covariance_of_means(const std::vector<double>& a, double mean_a, const std::vector<double>& b,
                           double mean_b) {
  if (a.size() < 2) return 0;
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - mean_a) * (b[i] - mean_b);
  const auto n = static_cast<double>(a.size());
  return sum / n / (n - 1);
}

Estimate estimate_of(const std::vector<double>& values) {
  const double mean = mean_of(values);
  return {mean, std::sqrt(covariance_of_means(values, mean, values, mean))};
}

// Of the difference of two means.
double error_of_difference(double error_a, double error_b, double covariance) {
  return std::sqrt(std::max(0.0, error_a * error_a + error_b * error_b - 2 * covariance));
}

}  // namespace

KlSummary KlStatistics::summary(bool with_percentiles) const {
  KlSummary s;
  s.count = count();
  if (s.count == 0) return s;
  const auto n = static_cast<double>(s.count);
  // First-order propagation: the error of f(x) is |f'(x)| times that of x.
  const Estimate nll = estimate_of(nll_), nll_base = estimate_of(nll_base_);
  const double covariance = covariance_of_means(nll_, nll.value, nll_base_, nll_base.value);
  const auto exponential = [](const Estimate& e) {
    const double value = exp_any(e.value);
    return Estimate{value, value * e.error};
  };
  s.perplexity = exponential(nll);
  s.perplexity_base = exponential(nll_base);
  const double spread = nll.error * nll_base.error;
  s.correlation = spread > 0 ? covariance / spread : 0;
  s.log_ratio = {nll.value - nll_base.value, error_of_difference(nll.error, nll_base.error, covariance)};
  s.ratio = exponential(s.log_ratio);
  s.difference = {s.perplexity.value - s.perplexity_base.value,
                  error_of_difference(s.perplexity.error, s.perplexity_base.error,
                                      s.perplexity.value * s.perplexity_base.value * covariance)};
  s.kl = estimate_of(kl_);
  s.p_diff = estimate_of(p_diff_);
  std::vector<double> squares(p_diff_);
  for (double& value : squares) value *= value;
  const Estimate mean_square = estimate_of(squares);
  const double rms = std::sqrt(mean_square.value);
  s.p_diff_rms = {rms, rms > 0 ? 0.5 / rms * mean_square.error : 0};
  const double share = static_cast<double>(n_same_top_) / n;
  s.same_top = {share, s.count > 1 ? std::sqrt(share * (1 - share) / (n - 1)) : 0};
  if (!with_percentiles) return s;

  std::vector<double> sorted(kl_);
  std::sort(sorted.begin(), sorted.end());
  s.kl_max = sorted.back();
  s.kl_median = percentile(sorted, 0.5);
  s.kl_min = sorted.front();
  for (size_t i = 0; i < s.kl_percentiles.size(); ++i)
    s.kl_percentiles[i] = percentile(sorted, KlSummary::kKlFractions[i]);
  sorted = p_diff_;
  std::sort(sorted.begin(), sorted.end());
  s.p_diff_max = sorted.back();
  s.p_diff_median = percentile(sorted, 0.5);
  s.p_diff_min = sorted.front();
  for (size_t i = 0; i < s.p_diff_percentiles.size(); ++i)
    s.p_diff_percentiles[i] = percentile(sorted, KlSummary::kDiffFractions[i]);
  return s;
}

}  // namespace quern
