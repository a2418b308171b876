#include "runtime/tokenizer/byte_pair_merger.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <queue>
#include <random>
#include <set>

#include "quant/error.h"
#include "runtime/tokenizer/merge_queue.h"

namespace quern::test {
namespace {

using Ids = std::vector<TokenId>;

Ids merged(const BytePairMerger& merger, Ids symbols) {
  merger.merge(&symbols);
  return symbols;
}

// The definition, read aloud: the leftmost neighbours of the lowest rank, until there are none.
Ids merged_slowly(std::span<const PairMerge> merges, Ids symbols) {
  for (;;) {
    const PairMerge* best = nullptr;
    size_t best_at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      for (const PairMerge& merge : merges) {
        if (merge.left != symbols[i] || merge.right != symbols[i + 1]) continue;
        if (best == nullptr || merge.rank < best->rank) {
          best = &merge;
          best_at = i;
        }
        break;
      }
    }
    if (best == nullptr) return symbols;
    symbols[best_at] = best->merged;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best_at) + 1);
  }
}

TEST(BytePairMerger, MergesTheLowestRankFirstAndTheLeftmostOfEqualOnes) {
  const std::vector<PairMerge> merges = {{1, 1, 11, 5}, {1, 2, 12, 3}, {11, 2, 112, 4}, {3, 12, 312, 9}};
  const BytePairMerger merger(merges);
  EXPECT_EQ(merged(merger, {1, 1, 1}), (Ids{11, 1}));
  EXPECT_EQ(merged(merger, {1, 1, 2}), (Ids{1, 12}));
  EXPECT_EQ(merged(merger, {3, 1, 2}), (Ids{312}));
  EXPECT_EQ(merged(merger, {2, 3}), (Ids{2, 3}));
  EXPECT_EQ(merged(merger, {}), (Ids{}));
}

TEST(BytePairMerger, LeavesUnknownSymbolsAlone) {
  const std::vector<PairMerge> merges = {{1, 1, 2, 0}};
  EXPECT_EQ(merged(BytePairMerger(merges), {1, kNoToken, kNoToken, 1, 1}), (Ids{1, kNoToken, kNoToken, 2}));
  EXPECT_EQ(merged(BytePairMerger({}), {1, kNoToken, 1}), (Ids{1, kNoToken, 1}));
}

TEST(BytePairMerger, CountsTheFirstMergeOfAPair) {
  const std::vector<PairMerge> merges = {{1, 2, 3, 0}, {1, 2, 4, 1}};
  EXPECT_EQ(merged(BytePairMerger(merges), {1, 2}), (Ids{3}));
}

// Numbers as merges bring them: most above what was taken, some below, some twice, from few to as many as are
// moved from bucket to bucket.
TEST(MergeQueue, GivesTheLowestFirst) {
  std::mt19937_64 random(5);
  for (const size_t n : {10, 5'000, 60'000}) {
    for (const uint64_t range : {uint64_t{50}, uint64_t{1} << 20, uint64_t{1} << 50, UINT64_MAX}) {
      MergeQueue queue(n);
      std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> reference;
      const auto push = [&](uint64_t number) {
        queue.push(number);
        reference.push(number);
      };
      push(UINT64_MAX);
      for (size_t i = 0; i < n; ++i) push(random() % range);
      for (uint64_t number; queue.pop(&number);) {
        ASSERT_FALSE(reference.empty());
        ASSERT_EQ(number, reference.top());
        reference.pop();
        if (random() % 2 == 0) push(number + random() % (range / 4 + 1));
        if (random() % 5 == 0) push(number);
        if (random() % 50 == 0) push(number - random() % (number / 2 + 1));
      }
      EXPECT_TRUE(reference.empty());
    }
  }
}

// Words on both sides of the length at which the heap takes over; few symbols, so that chains of merges are
// long.
TEST(BytePairMerger, EqualsItsDefinitionForWordsOfAnyLength) {
  std::mt19937 random(3);
  const auto below = [&random](int n) { return std::uniform_int_distribution<int>(0, n - 1)(random); };
  for (int round = 0; round < 300; ++round) {
    std::vector<PairMerge> merges;
    std::set<std::pair<TokenId, TokenId>> pairs;
    const int n_merges = 1 + below(60), n_symbols = 2 + below(3);
    for (int i = 0; i < n_merges; ++i) {
      const TokenId merged_id = n_symbols + i;
      const PairMerge merge{below(merged_id), below(merged_id), merged_id, static_cast<uint32_t>(i / 2)};
      if (pairs.emplace(merge.left, merge.right).second) merges.push_back(merge);
    }
    const BytePairMerger merger(merges);
    Ids symbols;
    for (int n = 1 + below(120); n > 0; --n) symbols.push_back(below(n_symbols));
    EXPECT_EQ(merged(merger, symbols), merged_slowly(merges, symbols));
  }
}

TEST(BytePairMerger, RefusesAWordThatWouldTakeGigabytes) {
  const std::vector<PairMerge> merges = {{1, 1, 2, 0}};
  std::vector<TokenId> symbols((size_t{1} << 26) + 1, 0);
  try {
    BytePairMerger(merges).merge(&symbols);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResource);
  }
}

}  // namespace
}  // namespace quern::test
