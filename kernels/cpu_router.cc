#include "kernels/cpu_router.h"

#include <algorithm>
#include <cmath>

#include "kernels/scalar/exp2q.h"

namespace quern {
namespace {

constexpr float kLog2e = 0x1.715476p0f;

// What the choice goes by: a NaN counts as the largest, so that it comes through.
bool is_better(float a, float b) { return a > b || (a != a && b == b); }

// Marks the groups whose experts may be chosen. Ties go to the lower group.
template <class Rank>
void choose_groups(const RouterRule& rule, size_t of_group, const Rank& rank, bool* counts) {
  float values[RouterRule::kMaxGroups];
  for (size_t g = 0; g < rule.n_groups; ++g) {
    float best = rank(g * of_group), second = -INFINITY;
    for (size_t i = g * of_group + 1; i < (g + 1) * of_group; ++i) {
      const float r = rank(i);
      second = is_better(r, best) ? best : is_better(r, second) ? r : second;
      if (is_better(r, best)) best = r;
    }
    values[g] = rule.score == RouterScore::kSigmoid && rule.n_groups > 1 ? best + second : best;
    counts[g] = false;
  }
  for (size_t n = 0; n < rule.n_groups_used; ++n) {
    size_t best = rule.n_groups;
    for (size_t g = 0; g < rule.n_groups; ++g)
      if (!counts[g] && (best == rule.n_groups || is_better(values[g], values[best]))) best = g;
    counts[best] = true;
  }
}

}  // namespace

void choose_experts(const RouterRule& rule, const float* logits, const float* bias, const float* factors,
                    size_t n_experts, size_t n_used, uint32_t* experts, float* weights) noexcept {
  const bool is_sigmoid = rule.score == RouterScore::kSigmoid;
  const auto sigmoid = [&](size_t i) { return 1 / (1 + scalar::exp2q(logits[i] * -kLog2e)); };
  // Insertion into the best so far: ties go to the lower id, which came first.
  const auto rank = [&](size_t i) {
    if (!is_sigmoid) return logits[i];
    return bias == nullptr ? sigmoid(i) : sigmoid(i) + bias[i];
  };
  const size_t of_group = n_experts / rule.n_groups;
  bool counts[RouterRule::kMaxGroups];
  choose_groups(rule, of_group, rank, counts);
  size_t n = 0;
  for (size_t i = 0; i < n_experts; ++i) {
    if (!counts[i / of_group]) continue;
    const float r = rank(i);  // weights hold the ranks until the choice is made
    if (n == n_used && !is_better(r, weights[n - 1])) continue;
    size_t at = n < n_used ? n++ : n - 1;
    for (; at > 0 && is_better(r, weights[at - 1]); --at) {
      weights[at] = weights[at - 1];
      experts[at] = experts[at - 1];
    }
    weights[at] = r;
    experts[at] = static_cast<uint32_t>(i);
  }

  if (is_sigmoid) {
    for (size_t s = 0; s < n_used; ++s) weights[s] = sigmoid(experts[s]);
  } else {
    const float top = logits[experts[0]];
    for (size_t s = 0; s < n_used; ++s) weights[s] = scalar::exp2q((logits[experts[s]] - top) * kLog2e);
    if (rule.score == RouterScore::kSoftmax) {
      float sum = 0;
      for (size_t i = 0; i < n_experts; ++i) sum = sum + scalar::exp2q((logits[i] - top) * kLog2e);
      for (size_t s = 0; s < n_used; ++s) weights[s] = weights[s] / sum;
    }
  }
  if (rule.normalise) {
    float sum = 0;
    for (size_t s = 0; s < n_used; ++s) sum = sum + weights[s];
    for (size_t s = 0; s < n_used; ++s) weights[s] = weights[s] / sum;
  }
  if (factors != nullptr)
    for (size_t s = 0; s < n_used; ++s) weights[s] = weights[s] * factors[experts[s]];
  for (size_t s = 0; s < n_used; ++s) weights[s] = weights[s] * rule.scale;
}

void sort_by_expert(size_t n, CpuRouting* r) {
  r->n = n;
  const size_t n_choices = n * r->n_used;
  std::fill(r->begin.begin(), r->begin.end(), 0u);
  for (size_t i = 0; i < n_choices; ++i) ++r->begin[r->expert[i] + 1];
  for (size_t e = 0; e < r->n_experts; ++e) r->begin[e + 1] += r->begin[e];
  std::vector<uint32_t> next(r->begin.begin(), r->begin.end() - 1);
  for (size_t i = 0; i < n_choices; ++i) {
    const uint32_t at = next[r->expert[i]]++;
    r->place[i] = at;
    r->row[at] = static_cast<uint32_t>(i / r->n_used);
  }
}

}  // namespace quern
