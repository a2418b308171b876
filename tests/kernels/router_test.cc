// The router of a mixture of experts: who is chosen, in which order, with which weight.
#include "kernels/cpu_router.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace quern {
namespace {

struct Choice {
  std::vector<uint32_t> experts;
  std::vector<float> weights;
};

Choice choose(const RouterRule& rule, const std::vector<float>& logits, size_t n_used,
              const std::vector<float>& bias = {}, const std::vector<float>& factors = {}) {
  Choice choice{std::vector<uint32_t>(n_used), std::vector<float>(n_used)};
  choose_experts(rule, logits.data(), bias.empty() ? nullptr : bias.data(),
                 factors.empty() ? nullptr : factors.data(), logits.size(), n_used, choice.experts.data(),
                 choice.weights.data());
  return choice;
}

TEST(Router, TakesTheBestFirstAndTheLowerIdOnTies) {
  EXPECT_EQ(choose({}, {1, 3, 2, 3, -1}, 3).experts, (std::vector<uint32_t>{1, 3, 2}));
  EXPECT_EQ(choose({}, {0, 0, 0}, 2).experts, (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(choose({}, {5}, 1).experts, std::vector<uint32_t>{0});
}

TEST(Router, WeighsByASoftmaxOfAllOrOfTheChosen) {
  const std::vector<float> logits = {1, 3, 2};
  const double sum = std::exp(1.0) + std::exp(2.0) + std::exp(3.0), chosen = std::exp(2.0) + std::exp(3.0);
  const Choice all = choose({.score = RouterScore::kSoftmax}, logits, 2);
  EXPECT_NEAR(all.weights[0], std::exp(3.0) / sum, 1e-6);
  EXPECT_NEAR(all.weights[1], std::exp(2.0) / sum, 1e-6);
  const Choice normal = choose({.score = RouterScore::kSoftmax, .normalise = true, .scale = 3}, logits, 2);
  EXPECT_NEAR(normal.weights[0], 3 * std::exp(3.0) / chosen, 1e-6);
  const Choice own = choose({.score = RouterScore::kSoftmaxOfChosen, .normalise = true}, logits, 2);
  EXPECT_NEAR(own.weights[1], std::exp(2.0) / chosen, 1e-6);
}

// Behind the normalisation, so that they need not sum to one.
TEST(Router, ExpertsHaveFactorsOfTheirOwn) {
  const RouterRule rule{.score = RouterScore::kSoftmax, .normalise = true, .scale = 2};
  const std::vector<float> logits = {1, 3, 2};
  const Choice plain = choose(rule, logits, 2), scaled = choose(rule, logits, 2, {}, {9, 0.5f, -4});
  EXPECT_EQ(scaled.experts, plain.experts);
  EXPECT_EQ(scaled.weights, (std::vector<float>{plain.weights[0] * 0.5f, plain.weights[1] * -4}));
}

TEST(Router, BiasMovesTheChoiceOfSigmoidsAndNotTheirWeights) {
  const RouterRule rule{.score = RouterScore::kSigmoid};
  const Choice moved = choose(rule, {2, 0, 1}, 2, {0, 1, 0});
  EXPECT_EQ(moved.experts, (std::vector<uint32_t>{1, 0}));
  EXPECT_NEAR(moved.weights[0], 0.5, 1e-6);
  EXPECT_NEAR(moved.weights[1], 1 / (1 + std::exp(-2.0)), 1e-6);
}

// Two of three groups of two: by their best, and by the sum of their best two.
TEST(Router, ChoosesAmongTheBestGroups) {
  const std::vector<float> logits = {5, -9, 3, 4, -1, 4.5};
  const RouterRule best{.n_groups = 3, .n_groups_used = 2};
  EXPECT_EQ(choose(best, logits, 3).experts, (std::vector<uint32_t>{0, 5, 4}));
  const RouterRule sums{.score = RouterScore::kSigmoid, .n_groups = 3, .n_groups_used = 2};
  EXPECT_EQ(choose(sums, logits, 3).experts, (std::vector<uint32_t>{5, 3, 2}));
  // The sum of a softmax goes over all experts.
  double all = 0;
  for (const float z : logits) all += std::exp(static_cast<double>(z));
  EXPECT_NEAR(choose(best, logits, 1).weights[0], std::exp(5.0) / all, 1e-6);
  const std::vector<float> ties = {1, 0, 0, 1, 1, 0};
  EXPECT_EQ(choose(best, ties, 4).experts, (std::vector<uint32_t>{0, 3, 1, 2}));
}

TEST(Router, NanComesThrough) {
  const Choice choice = choose({.normalise = true}, {1, NAN, 2}, 2);
  EXPECT_TRUE(std::isnan(choice.weights[0]));
}

TEST(Router, SortsRowsByExpertAndKnowsTheirPlaces) {
  CpuRouting routing(3, 4, 2);
  routing.expert = {2, 0, 2, 3, 0, 2};
  sort_by_expert(3, &routing);
  EXPECT_EQ(routing.begin, (std::vector<uint32_t>{0, 2, 2, 5, 6}));
  EXPECT_EQ(routing.row, (std::vector<uint32_t>{0, 2, 0, 1, 2, 1}));
  EXPECT_EQ(routing.place, (std::vector<uint32_t>{2, 0, 3, 5, 1, 4}));
}

}  // namespace
}  // namespace quern
