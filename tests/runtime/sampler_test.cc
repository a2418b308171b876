// The sampler against its definition (arithmetic.md "Sampler"), written down once more without its shortcuts.
#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "kernels/math_f64.h"
#include "quant/error.h"

namespace quern {
namespace {

using Logits = std::vector<float>;
using Ids = std::vector<TokenId>;

SamplerOptions everything() {
  SamplerOptions options;
  options.temperature = 1;
  options.top_k = 0;
  options.top_p = 1;
  options.min_p = 0;
  return options;
}

TokenId pick(const SamplerOptions& options, const Logits& logits, const Ids& history = {},
             uint64_t position = 0) {
  return Sampler(options).pick(logits, history, position);
}

// Every id that `n` draws give.
std::set<TokenId> drawn(const SamplerOptions& options, const Logits& logits, const Ids& history = {},
                        uint64_t n = 2000) {
  Sampler sampler(options);
  std::set<TokenId> ids;
  for (uint64_t position = 0; position < n; ++position) ids.insert(sampler.pick(logits, history, position));
  return ids;
}

Logits random_logits(std::mt19937* random, size_t n, float spread) {
  // Few distinct values, so that there are ties.
  Logits logits(n);
  for (float& logit : logits) logit = spread * static_cast<float>((*random)() % 64) / 64.0f;
  return logits;
}

// arithmetic.md, literally: everything sorted, nothing selected.
TokenId defined_pick(const SamplerOptions& options, Logits z, const Ids& history, uint64_t position) {
  const size_t first =
      history.size() > size_t(options.repeat_last_n) ? history.size() - options.repeat_last_n : 0;
  for (const TokenId id : std::set<TokenId>(history.begin() + first, history.end())) {
    z[id] = z[id] > 0 ? z[id] / options.repeat_penalty : z[id] * options.repeat_penalty;
  }
  Ids order(z.size());
  for (size_t id = 0; id < z.size(); ++id) order[id] = static_cast<TokenId>(id);
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) { return z[a] > z[b]; });
  if (options.temperature == 0) return order[0];
  if (options.top_k > 0 && size_t(options.top_k) < order.size()) order.resize(options.top_k);
  const float best = z[order[0]];
  const auto weight = [&](TokenId id, double t) {
    return exp2d(static_cast<double>(z[id] - best) * 0x1.71547652b82fep0 / t);
  };
  double total = 0;
  for (const TokenId id : order) total += weight(id, 1);
  if (options.top_p < 1) {
    double sum = 0;
    for (size_t n = 1; n <= order.size(); ++n) {
      sum += weight(order[n - 1], 1);
      if (sum >= options.top_p * total) order.resize(n);
    }
  }
  std::erase_if(order, [&](TokenId id) { return weight(id, 1) < options.min_p; });
  total = 0;
  for (const TokenId id : order) total += weight(id, options.temperature);
  uint64_t s = options.seed + (position + 1) * 0x9e3779b97f4a7c15;
  s = (s ^ (s >> 30)) * 0xbf58476d1ce4e5b9;
  s = (s ^ (s >> 27)) * 0x94d049bb133111eb;
  s ^= s >> 31;
  const double u = static_cast<double>(s >> 11) / 9007199254740992.0;
  double sum = 0;
  for (const TokenId id : order) {
    sum += weight(id, options.temperature);
    if (sum > u * total) return id;
  }
  return order.back();
}

TEST(Sampler, EqualsItsDefinition) {
  std::mt19937 random(1);
  const float temperatures[] = {0, 1e-38f, 0.3f, 0.8f, 1, 2.5f, 1e30f};
  const int top_ks[] = {0, 1, 2, 40, 1000};
  const double top_ps[] = {0, 0.3, 0.95, 1};
  const double min_ps[] = {0, 0.05, 0.5, 1};
  const float penalties[] = {1, 1.1f, 2, 0.5f};
  for (int i = 0; i < 5000; ++i) {
    SamplerOptions options;
    options.temperature = temperatures[random() % 7];
    options.top_k = top_ks[random() % 5];
    options.top_p = top_ps[random() % 4];
    options.min_p = min_ps[random() % 4];
    options.repeat_penalty = penalties[random() % 4];
    options.repeat_last_n = static_cast<int>(random() % 8);
    options.seed = random();
    Logits logits = random_logits(&random, 1 + random() % 300, 8);
    for (float& logit : logits) logit -= 4;
    Ids history(random() % 12);
    for (TokenId& id : history) id = static_cast<TokenId>(random() % logits.size());
    const uint64_t position = random() % 5000;
    ASSERT_EQ(pick(options, logits, history, position), defined_pick(options, logits, history, position))
        << i;
  }
}

TEST(Sampler, PicksTheLargestLogitAtTemperatureZeroAndTheLowestIdOnTies) {
  SamplerOptions options;
  options.temperature = 0;
  EXPECT_EQ(pick(options, {1, 3, 2}), 1);
  EXPECT_EQ(pick(options, {1, 3, 3, 3}), 1);
  EXPECT_EQ(pick(options, {-5, -5}), 0);
  EXPECT_EQ(pick(options, {-0.0f, 0.0f}), 0);
  EXPECT_EQ(pick(options, {7}), 0);
}

TEST(Sampler, DrawsByPositionAndSeedAlone) {
  std::mt19937 random(2);
  const Logits logits = random_logits(&random, 100, 1);
  SamplerOptions options = everything();
  options.seed = 42;
  Sampler forward(options), backward(options);
  Ids ids;
  for (uint64_t position = 0; position < 200; ++position) ids.push_back(forward.pick(logits, {}, position));
  for (uint64_t position = 200; position-- > 0;) {
    ASSERT_EQ(backward.pick(logits, {}, position), ids[position]) << position;
  }
  options.seed = 43;
  Sampler other(options);
  size_t n_equal = 0;
  for (uint64_t position = 0; position < 200; ++position)
    n_equal += other.pick(logits, {}, position) == ids[position];
  EXPECT_LT(n_equal, 40u);
}

// The numbers of Vigna's splitmix64.c from state 0: 0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4,
// 0x06c45d188009454f.
TEST(Sampler, DrawsTheNumbersOfSplitMix64) {
  const size_t n = 1 << 16;  // equal weights: the id is the draw's first 16 bits
  const Logits logits(n, 0.5f);
  EXPECT_EQ(pick(everything(), logits, {}, 0), 0xe220);
  EXPECT_EQ(pick(everything(), logits, {}, 1), 0x6e78);
  EXPECT_EQ(pick(everything(), logits, {}, 2), 0x06c4);
}

TEST(Sampler, DrawsEachTokenAsOftenAsItsProbabilitySays) {
  const std::vector<double> probabilities = {0.4, 0.25, 0.15, 0.1, 0.06, 0.03, 0.01};
  for (const float temperature : {1.0f, 0.5f, 2.0f}) {
    Logits logits;
    std::vector<double> expected;
    double total = 0;
    for (const double p : probabilities) {
      logits.push_back(static_cast<float>(std::log(p)));
      expected.push_back(std::pow(p, 1 / static_cast<double>(temperature)));
      total += expected.back();
    }
    SamplerOptions options = everything();
    options.temperature = temperature;
    options.seed = 7;
    Sampler sampler(options);
    const double n = 100'000;
    std::vector<double> counts(probabilities.size());
    for (uint64_t position = 0; position < static_cast<uint64_t>(n); ++position) {
      ++counts[sampler.pick(logits, {}, position)];
    }
    double chi_square = 0;
    for (size_t id = 0; id < counts.size(); ++id) {
      const double wanted = n * expected[id] / total;
      chi_square += (counts[id] - wanted) * (counts[id] - wanted) / wanted;
    }
    EXPECT_LT(chi_square, 22.46) << temperature;  // the 99.9% quantile with 6 degrees of freedom
  }
}

TEST(Sampler, CutsToTheTopK) {
  const Logits logits = {1, 2, 2, 2, 0};
  SamplerOptions options = everything();
  options.top_k = 2;
  EXPECT_EQ(drawn(options, logits), (std::set<TokenId>{1, 2}));  // ties: the lowest ids stay
  options.top_k = 1;
  EXPECT_EQ(drawn(options, logits), (std::set<TokenId>{1}));
  options.top_k = 100;
  EXPECT_EQ(drawn(options, logits).size(), logits.size());
}

TEST(Sampler, CutsToTheTopP) {
  // Probabilities 1/2, 1/4, 1/8, 1/16, 1/16.
  const float ln2 = std::log(2.0f);
  const Logits logits = {-4 * ln2, -1 * ln2, -2 * ln2, -3 * ln2, -4 * ln2};
  SamplerOptions options = everything();
  const auto kept = [&](double top_p) {
    options.top_p = top_p;
    return drawn(options, logits);
  };
  EXPECT_EQ(kept(0), (std::set<TokenId>{1}));
  EXPECT_EQ(kept(0.49), (std::set<TokenId>{1}));
  EXPECT_EQ(kept(0.51), (std::set<TokenId>{1, 2}));
  EXPECT_EQ(kept(0.76), (std::set<TokenId>{1, 2, 3}));
  EXPECT_EQ(kept(0.93), (std::set<TokenId>{0, 1, 2, 3}));
  EXPECT_EQ(kept(1), (std::set<TokenId>{0, 1, 2, 3, 4}));
}

TEST(Sampler, CutsByMinP) {
  const float ln2 = std::log(2.0f);
  const Logits logits = {0, -1 * ln2, -2 * ln2, -3 * ln2};
  SamplerOptions options = everything();
  const auto kept = [&](double min_p) {
    options.min_p = min_p;
    return drawn(options, logits).size();
  };
  EXPECT_EQ(kept(0), 4u);
  EXPECT_EQ(kept(0.2), 3u);
  EXPECT_EQ(kept(0.3), 2u);
  EXPECT_EQ(kept(1), 1u);
}

TEST(Sampler, CutsBeforeTheTemperatureIsApplied) {
  SamplerOptions options = everything();
  options.temperature = 1e6f;
  options.min_p = 0.5;
  EXPECT_EQ(drawn(options, {0, -0.5f, -1}), (std::set<TokenId>{0, 1}));
}

TEST(Sampler, PenalisesEachRecentTokenOnce) {
  SamplerOptions options;
  options.temperature = 0;
  options.repeat_penalty = 2;
  options.repeat_last_n = 3;
  EXPECT_EQ(pick(options, {4, 3, 1}, {0}), 1);           // 4 / 2 < 3
  EXPECT_EQ(pick(options, {4, 1.5f, 1}, {0, 0, 0}), 0);  // once, not three times
  EXPECT_EQ(pick(options, {-1, -1.5f}, {0}), 1);         // -1 * 2 < -1.5
  EXPECT_EQ(pick(options, {4, 3, 1}, {0, 2, 2, 2}), 0);  // too long ago
  options.repeat_last_n = -1;
  EXPECT_EQ(pick(options, {4, 3, 1}, {0, 2, 2, 2}), 1);
  options.repeat_last_n = 0;
  EXPECT_EQ(pick(options, {4, 3, 1}, {0}), 0);
}

TEST(Sampler, SurvivesExtremes) {
  constexpr float kMax = std::numeric_limits<float>::max();
  SamplerOptions cold = everything();
  cold.temperature = 1e-38f;
  EXPECT_EQ(drawn(cold, {1, 1.0001f, 0}, {}, 100), (std::set<TokenId>{1}));
  EXPECT_EQ(drawn(cold, {3, 3}).size(), 2u);  // a tie stays a tie
  cold.temperature = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(drawn(cold, {-kMax, kMax}, {}, 100), (std::set<TokenId>{1}));
  SamplerOptions hot = everything();
  hot.temperature = kMax;
  EXPECT_EQ(drawn(hot, {-100, 0, 100}).size(), 3u);
  EXPECT_EQ(drawn(everything(), Logits(8, 0.0f)).size(), 8u);
  EXPECT_EQ(drawn(everything(), Logits(8, -kMax)).size(), 8u);
  SamplerOptions harsh = everything();
  harsh.repeat_penalty = 1e-38f;  // pushes 1e30 beyond the floats
  EXPECT_EQ(drawn(harsh, {1e30f, 0}, {0}, 100), (std::set<TokenId>{0}));
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), kInfinity, -kInfinity}) {
    for (const float temperature : {0.0f, 0.8f}) {
      SamplerOptions options;
      options.temperature = temperature;
      try {
        pick(options, {1, 2, bad}, {}, 17);
        FAIL() << bad;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kIntegrity);
        EXPECT_STREQ(error.what(), "non-finite logits at position 17");
      }
    }
  }
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  const auto refuses = [](auto change) {
    SamplerOptions options;
    change(&options);
    EXPECT_THROW(Sampler{options}, Error);
  };
  refuses([](SamplerOptions* o) { o->temperature = -1; });
  refuses([](SamplerOptions* o) { o->temperature = std::numeric_limits<float>::infinity(); });
  refuses([](SamplerOptions* o) { o->temperature = std::nanf(""); });
  refuses([](SamplerOptions* o) { o->top_k = -1; });
  refuses([](SamplerOptions* o) { o->top_p = 1.5; });
  refuses([](SamplerOptions* o) { o->top_p = std::nan(""); });
  refuses([](SamplerOptions* o) { o->min_p = -0.1; });
  refuses([](SamplerOptions* o) { o->repeat_penalty = 0; });
  refuses([](SamplerOptions* o) { o->repeat_last_n = -2; });
}

}  // namespace
}  // namespace quern
