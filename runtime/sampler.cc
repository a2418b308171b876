#include "runtime/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/math_f64.h"
#include "quant/error.h"

namespace quern {

namespace {

constexpr double kLog2E = 0x1.71547652b82fep0;

// A number in [0, 1) from (seed, position) alone: output position + 1 of the SplitMix64 generator (Steele,
// Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
double uniform(uint64_t seed, uint64_t position) {
  uint64_t z = seed + (position + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

void check_options(const SamplerOptions& options) {
  const auto check = [](bool in_range, std::string_view name, auto value, std::string_view range) {
    if (!in_range) fail(ErrorCode::kUsage, "{} is {} (expected {})", name, value, range);
  };
  check(std::isfinite(options.temperature) && options.temperature >= 0, "temperature", options.temperature,
        "a number >= 0");
  check(options.top_k >= 0, "top-k", options.top_k, "a number >= 0");
  check(options.top_p >= 0 && options.top_p <= 1, "top-p", options.top_p, "0 to 1");
  check(options.min_p >= 0 && options.min_p <= 1, "min-p", options.min_p, "0 to 1");
  check(std::isfinite(options.repeat_penalty) && options.repeat_penalty > 0, "repeat-penalty",
        options.repeat_penalty, "a number > 0");
  check(options.repeat_last_n >= -1, "repeat-last-n", options.repeat_last_n, "a number >= -1");
}

TokenId greedy(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Calls visit(id) for each bit, the lowest first.
template <class Visit>
void for_each_allowed(std::span<const uint64_t> allowed, size_t vocab_size, Visit visit) {
  QUERN_CHECK(allowed.size() == (vocab_size + 63) / 64);
  for (size_t word = 0; word < allowed.size(); ++word)
    for (uint64_t bits = allowed[word]; bits != 0; bits &= bits - 1)
      visit(word * 64 + static_cast<size_t>(std::countr_zero(bits)));
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options) : options_(options) { check_options(options); }

TokenId Sampler::pick(std::span<const float> logits, std::span<const TokenId> history, uint64_t position,
                      std::span<const uint64_t> allowed) {
  QUERN_CHECK(!logits.empty());
  for (const float logit : logits) {
    if (!std::isfinite(logit)) fail(ErrorCode::kIntegrity, "non-finite logits at position {}", position);
  }
  logits = penalise(logits, history);
  if (options_.temperature == 0 && allowed.empty()) return greedy(logits);

  collect_best(logits, allowed);
  if (options_.temperature == 0) return candidates_[0].id;
  cut_tail();

  const double scale = static_cast<double>(options_.temperature);
  double total = 0;
  for (Candidate& candidate : candidates_) {
    candidate.weight = exp2d(double{candidate.logit - candidates_[0].logit} * kLog2E / scale);
    total += candidate.weight;
  }
  const double threshold = uniform(options_.seed, position) * total;
  double sum = 0;
  for (const Candidate& candidate : candidates_) {
    sum += candidate.weight;
    if (sum > threshold) return candidate.id;
  }
  return candidates_.back().id;
}

// Each token of the recent history becomes less likely, once however often it occurs.
std::span<const float> Sampler::penalise(std::span<const float> logits, std::span<const TokenId> history) {
  const size_t last_n =
      options_.repeat_last_n < 0 ? history.size() : static_cast<size_t>(options_.repeat_last_n);
  const auto recent = history.last(std::min(history.size(), last_n));
  if (options_.repeat_penalty == 1 || recent.empty()) return logits;

  constexpr float kLargest = std::numeric_limits<float>::max();
  penalised_.assign(logits.begin(), logits.end());
  for (const TokenId token : recent) {
    const auto id = static_cast<size_t>(token);
    QUERN_CHECK(id < logits.size());
    const float logit = logits[id];
    const float less = logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
    penalised_[id] = std::clamp(less, -kLargest, kLargest);  // extreme penalties must not make infinities
  }
  return penalised_;
}

void Sampler::collect_best(std::span<const float> logits, std::span<const uint64_t> allowed) {
  candidates_.clear();
  const auto add = [&](size_t id) { candidates_.push_back({logits[id], static_cast<TokenId>(id), 0}); };
  if (allowed.empty())
    for (size_t id = 0; id < logits.size(); ++id) add(id);
  else
    for_each_allowed(allowed, logits.size(), add);
  QUERN_CHECK(!candidates_.empty());
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  };
  const auto top_k = static_cast<size_t>(options_.top_k);
  const size_t n_all = candidates_.size();
  const size_t n_kept = top_k == 0 ? n_all : std::min(top_k, n_all);
  // A heap of n_kept: one comparison for nearly every other candidate.
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(n_kept),
                    candidates_.end(), better);
  candidates_.resize(n_kept);
}

void Sampler::cut_tail() {
  double total = 0;
  for (Candidate& candidate : candidates_) {
    candidate.weight = exp2d(double{candidate.logit - candidates_[0].logit} * kLog2E);
    total += candidate.weight;
  }
  size_t n_kept = candidates_.size();
  if (options_.top_p < 1) {
    double sum = 0;
    n_kept = 0;
    do {
      sum += candidates_[n_kept++].weight;
    } while (n_kept < candidates_.size() && sum < options_.top_p * total);
  }
  // Weights fall from 1, so that min-p keeps a prefix, and never an empty one.
  while (candidates_[n_kept - 1].weight < options_.min_p) --n_kept;
  candidates_.resize(n_kept);
}

}  // namespace quern
