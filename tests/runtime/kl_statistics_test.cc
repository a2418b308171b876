// Statistics of two models against an independent float64 computation (tests/data/golden/kl_statistics.json).
#include "runtime/kl_statistics.h"
#include "tests/support/json.h"
#include "tests/support/paths.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace quern {
namespace {

using test::Json;

const Json& golden() {
  static const Json document = Json::read(test::test_data("golden/kl_statistics.json"));
  return document;
}

std::vector<float> row_of(const char* model, size_t i) {
  std::vector<float> row;
  for (const int z : golden()[model][i]) row.push_back(static_cast<float>(z) / 64);
  return row;
}

KlSummary summary_of(bool stored) {
  KlStatistics statistics;
  for (size_t i = 0; i < golden()["targets"].size(); ++i) {
    const std::vector<float> base = row_of("base", i), logits = row_of("logits", i);
    const int32_t target = golden()["targets"][i];
    if (stored) {
      std::vector<uint16_t> row(stored_row_words(base.size()));
      store_row(base, row);
      statistics.add(compare_stored(row, logits, target));
    } else {
      statistics.add(compare_logits(base, logits, target));
    }
  }
  return statistics.summary(true);
}

void expect_ordered(const Json& expected, double max, double median, double min,
                    std::span<const double> percentiles, double tolerance) {
  std::vector<double> found{max, median, min};
  found.insert(found.end(), percentiles.begin(), percentiles.end());
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i], expected[i].get<double>(), tolerance) << "number " << i;
}

void expect_golden(const KlSummary& s, const Json& expected, double tolerance) {
  const auto near = [&](const char* name, const Estimate& e) {
    EXPECT_NEAR(e.value, expected[name][0].get<double>(), tolerance) << name;
    EXPECT_NEAR(e.error, expected[name][1].get<double>(), tolerance) << name;
  };
  near("perplexity", s.perplexity);
  near("perplexity_base", s.perplexity_base);
  EXPECT_NEAR(s.correlation, expected["correlation"].get<double>(), tolerance);
  near("log_ratio", s.log_ratio);
  near("ratio", s.ratio);
  near("difference", s.difference);
  near("kl", s.kl);
  near("p_diff", s.p_diff);
  near("p_diff_rms", s.p_diff_rms);
  near("same_top", s.same_top);
  expect_ordered(expected["kl_ordered"], s.kl_max, s.kl_median, s.kl_min, s.kl_percentiles, tolerance);
  expect_ordered(expected["p_diff_ordered"], s.p_diff_max, s.p_diff_median, s.p_diff_min,
                 s.p_diff_percentiles, tolerance);
}

TEST(KlStatistics, EqualAnIndependentComputation) {
  const KlSummary s = summary_of(false);
  EXPECT_EQ(s.count, 120u);
  // Perplexities of 500 are known to 13 digits.
  expect_golden(s, golden()["exact"], 1e-10);
}

// The storage rounds in f32: a code may come out one higher or lower, 2.4e-4 of a logarithm.
TEST(KlStatistics, OfAStoredBaseEqualAnIndependentComputation) {
  expect_golden(summary_of(true), golden()["stored"], 1e-4);
}

TEST(KlStatistics, OfTwoEqualRowsAreNothing) {
  const std::vector<float> row = row_of("base", 7);
  const TokenComparison token = compare_logits(row, row, 3);
  EXPECT_EQ(token.kl, 0);
  EXPECT_EQ(token.p_diff, 0);
  EXPECT_EQ(token.nll, token.nll_base);
  EXPECT_TRUE(token.same_top);
}

TEST(KlStatistics, WorkForRowsOfAnyLength) {
  for (size_t n = 1; n <= 19; ++n) {
    const auto base_of = [](size_t i) { return static_cast<double>(i % 5); };
    const auto logit_of = [](size_t i) { return static_cast<double>(i % 7) / 2; };
    std::vector<float> base(n), logits(n);
    for (size_t i = 0; i < n; ++i) {
      base[i] = static_cast<float>(base_of(i));
      logits[i] = static_cast<float>(logit_of(i));
    }
    double sum_base = 0, sum = 0, kl = 0;
    for (size_t i = 0; i < n; ++i) {
      sum_base += std::exp(base_of(i));
      sum += std::exp(logit_of(i));
    }
    for (size_t i = 0; i < n; ++i) {
      const double p = std::exp(base_of(i)) / sum_base;
      kl += p * std::log(p / (std::exp(logit_of(i)) / sum));
    }
    const TokenComparison token = compare_logits(base, logits, static_cast<int32_t>(n - 1));
    EXPECT_NEAR(token.kl, kl, 1e-14) << n;
    EXPECT_NEAR(token.nll, -std::log(std::exp(logit_of(n - 1)) / sum), 1e-14) << n;
  }
}

// A token that the base rules out counts nothing, whatever the model says of it; the other way round the
// divergence is infinite.
TEST(KlStatistics, TakeInfinitiesForWhatTheyAre) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const std::vector<float> all{1, 2, 3}, some{1, kNever, 3};
  EXPECT_TRUE(std::isfinite(compare_logits(some, all, 0).kl));
  EXPECT_NEAR(compare_logits(some, some, 0).kl, 0, 1e-15);
  EXPECT_EQ(compare_logits(all, some, 0).kl, std::numeric_limits<double>::infinity());
  const std::vector<float> broken{1, std::numeric_limits<float>::quiet_NaN(), 3};
  EXPECT_TRUE(std::isnan(compare_logits(broken, all, 0).nll_base));
  EXPECT_TRUE(std::isnan(compare_logits(all, broken, 0).nll));
}

// Scale, minimum, codes from 0 at 16 below the maximum to 65535, and padding: conventions.md 4.3.
TEST(StoredRow, HasTheFilesLayout) {
  const std::vector<float> logits{0, -20, -16, -8, 0};
  std::vector<uint16_t> row(stored_row_words(logits.size()), 7);
  ASSERT_EQ(row.size(), 10u);
  store_row(logits, row);
  float head[2];
  std::memcpy(head, row.data(), sizeof(head));
  EXPECT_FLOAT_EQ(head[0], 16.0f / 65535);
  EXPECT_FLOAT_EQ(head[1], static_cast<float>(-16 - std::log(2 + std::exp(-8) + std::exp(-16))));
  EXPECT_EQ(std::vector<uint16_t>(row.begin() + 4, row.end()),
            (std::vector<uint16_t>{65535, 0, 0, 32768, 65535, 0}));
}

TEST(Percentile, InterpolatesBetweenNeighbours) {
  const std::vector<double> values{1, 2, 4};
  EXPECT_EQ(percentile(values, 0), 1);
  EXPECT_EQ(percentile(values, 0.25), 1.5);
  EXPECT_EQ(percentile(values, 0.75), 3);
  EXPECT_EQ(percentile(values, 1), 4);
  EXPECT_EQ(percentile(std::span(values).first(1), 0.3), 1);
}

}  // namespace
}  // namespace quern
