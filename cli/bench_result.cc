#include "cli/bench_result.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quant/median.h"

namespace quern {
namespace {

template <class T>
double mean(const std::vector<T>& samples) {
  double sum = 0;
  for (const T sample : samples) sum += static_cast<double>(sample);
  return samples.empty() ? 0 : sum / static_cast<double>(samples.size());
}

template <class T>
double sample_stddev(const std::vector<T>& samples) {
  if (samples.size() < 2) return 0;
  const double average = mean(samples);
  double squares = 0;
  for (const T sample : samples) {
    const double difference = static_cast<double>(sample) - average;
    squares += difference * difference;
  }
  return std::sqrt(squares / static_cast<double>(samples.size() - 1));
}

}  // namespace

double BenchResult::average_ns() const { return mean(samples_ns); }
double BenchResult::stddev_ns() const { return sample_stddev(samples_ns); }

std::vector<double> BenchResult::samples_ts() const {
  const auto n_tokens = static_cast<double>(n_sequences * (n_prompt + n_gen));
  std::vector<double> samples;
  for (const uint64_t ns : samples_ns)
    samples.push_back(1e9 * n_tokens / static_cast<double>(std::max<uint64_t>(ns, 1)));
  return samples;
}

double BenchResult::average_ts() const { return mean(samples_ts()); }
double BenchResult::stddev_ts() const { return sample_stddev(samples_ts()); }

std::vector<double> BenchResult::shares() const {
  std::vector<double> shares;
  for (size_t i = 0; i < limit.peaks.size() && i < samples_ns.size(); ++i)
    shares.push_back(1e9 * static_cast<double>(limit.work) /
                     static_cast<double>(std::max<uint64_t>(samples_ns[i], 1)) / limit.peaks[i]);
  return shares;
}

double BenchResult::work_rate() const {
  std::vector<double> rates;
  for (const uint64_t ns : samples_ns)
    rates.push_back(1e9 * static_cast<double>(limit.work) / static_cast<double>(std::max<uint64_t>(ns, 1)));
  return median(rates);
}

double BenchResult::peak_rate() const { return median(limit.peaks); }

double BenchResult::attention_share() const {
  double total_ns = 0;
  for (const uint64_t ns : samples_ns) total_ns += static_cast<double>(ns);
  return total_ns > 0 ? attention.attention_seconds * 1e9 / total_ns : 0;
}

std::string test_name(const BenchResult& result) {
  std::string name = result.n_prompt > 0 ? fmt::format("pp{}", result.n_prompt) : "";
  if (result.n_gen > 0) name += fmt::format("{}tg{}", name.empty() ? "" : "+", result.n_gen);
  if (result.n_sequences > 1) name += fmt::format(" x{}", result.n_sequences);
  if (result.of_text) name += " text";
  if (result.n_depth > 0) name += fmt::format(" @ d{}", result.n_depth);
  return name;
}

}  // namespace quern
