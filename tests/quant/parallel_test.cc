#include "quant/parallel.h"

#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace quern {
namespace {

// How often each item of a job was done, counted by a team.
std::vector<int> count_items(ThreadTeam& team, size_t n, size_t grain) {
  std::vector<std::atomic<int>> counts(n);
  team.share(n, grain, [&](int thread, size_t begin, size_t end) noexcept {
    const bool good = thread >= 0 && thread < team.size() && begin % grain == 0 && end - begin <= grain;
    for (size_t i = begin; i < end; ++i) counts[i] += good ? 1 : 1000;
  });
  return {counts.begin(), counts.end()};
}

class ThreadTeamOf : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, ThreadTeamOf, testing::Values(1, 2, 3, 4, 9));

TEST_P(ThreadTeamOf, DoesEveryItemOnceForAnyNumberAndGrain) {
  ThreadTeam team(GetParam());
  team.assemble([&] {
    for (const size_t n : {0, 1, 2, 3, 7, 8, 9, 100, 1000})
      for (const size_t grain : {1, 2, 5, 8, 1000})
        EXPECT_EQ(count_items(team, n, grain), std::vector<int>(n, 1)) << n << " by " << grain;
  });
}

TEST_P(ThreadTeamOf, WorksWithoutBeingAssembled) {
  ThreadTeam team(GetParam());
  EXPECT_EQ(count_items(team, 77, 3), std::vector<int>(77, 1));
  EXPECT_EQ(count_items(team, 5, 1), std::vector<int>(5, 1));
}

TEST_P(ThreadTeamOf, FinishesEachJobBeforeTheNextBegins) {
  ThreadTeam team(GetParam());
  constexpr size_t kItems = 64;
  std::vector<int> values(kItems, 0);
  team.assemble([&] {
    for (int job = 0; job < 2000; ++job) {
      const size_t shift = static_cast<size_t>(job) % kItems;
      std::vector<int> next(kItems);
      team.share(kItems, 1 + shift % 4, [&](int, size_t begin, size_t end) noexcept {
        for (size_t i = begin; i < end; ++i) next[i] = values[(i + shift) % kItems] + 1;
      });
      values.swap(next);
    }
  });
  EXPECT_EQ(values, std::vector<int>(kItems, 2000));
}

TEST_P(ThreadTeamOf, PassesOnWhatTheBodyThrowsAndWorksAgain) {
  ThreadTeam team(GetParam());
  EXPECT_THROW(team.assemble([&] {
    count_items(team, 10, 1);
    throw std::runtime_error("stop");
  }),
               std::runtime_error);
  team.assemble([&] { EXPECT_EQ(count_items(team, 10, 1), std::vector<int>(10, 1)); });
}

TEST_P(ThreadTeamOf, MayBeAssembledWithinItself) {
  ThreadTeam team(GetParam());
  bool called = false;
  team.assemble([&] {
    team.assemble([&] {
      called = true;
      EXPECT_EQ(count_items(team, 10, 1), std::vector<int>(10, 1));
    });
    EXPECT_EQ(count_items(team, 20, 3), std::vector<int>(20, 1));
  });
  EXPECT_TRUE(called);
}

// The chunk that begins first takes until all others are done: so whoever has it does none of them.
TEST(ThreadTeam, TakesOverTheChunksOfAThreadThatIsHeldUp) {
  ThreadTeam team(2);
  std::vector<std::atomic<int>> done_by(16);
  for (auto& thread : done_by) thread = -1;
  std::atomic<bool> held{false}, others_done{false};
  std::atomic<int> holder{-1};
  team.assemble([&] {
    team.share(16, 1, [&](int thread, size_t begin, size_t) noexcept {
      const bool holds = !held.exchange(true);
      if (holds) {
        holder = thread;
        for (int i = 0; i < 10000 && !others_done; ++i)
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      done_by[begin] = holds ? -1 : thread;
      int n = 0;
      for (const auto& done : done_by) n += done >= 0;
      if (n == 15) others_done = true;
    });
  });
  EXPECT_TRUE(others_done);
  for (const auto& done : done_by) EXPECT_NE(done, holder);
}

TEST(SplitRange, CoversTheRangeInOrderWithPartsThatDifferByAGrain) {
  for (const size_t n : {0, 1, 5, 16, 97})
    for (const size_t grain : {1, 4, 16})
      for (const int threads : {1, 2, 3, 8}) {
        size_t at = 0;
        for (int t = 0; t < threads; ++t) {
          const IndexRange part = split_range(n, grain, t, threads);
          EXPECT_EQ(part.begin, at);
          EXPECT_TRUE(part.begin % grain == 0 || part.begin == n);
          at = part.end;
        }
        EXPECT_EQ(at, n);
      }
}

}  // namespace
}  // namespace quern
