#include "quant/parallel.h"

#include <gtest/gtest.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/support/cpus.h"

namespace quern {
namespace {

// How often each item of a job was done, counted by a pool.
std::vector<int> count_items(ThreadPool& pool, size_t n, size_t grain) {
  std::vector<std::atomic<int>> counts(n);
  pool.parallel_for(n, grain, [&](int thread, size_t begin, size_t end) noexcept {
    const bool good = thread >= 0 && thread < pool.size() && begin % grain == 0 && end - begin <= grain;
    for (size_t i = begin; i < end; ++i) counts[i] += good ? 1 : 1000;
  });
  return {counts.begin(), counts.end()};
}

class ThreadPoolOf : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, ThreadPoolOf, testing::Values(1, 2, 3, 4, 9));

TEST_P(ThreadPoolOf, DoesEveryItemOnceForAnyNumberAndGrain) {
  ThreadPool pool(GetParam());
  pool.parallel_region([&] {
    for (const size_t n : {0, 1, 2, 3, 7, 8, 9, 100, 1000})
      for (const size_t grain : {1, 2, 5, 8, 1000})
        EXPECT_EQ(count_items(pool, n, grain), std::vector<int>(n, 1)) << n << " by " << grain;
  });
}

TEST_P(ThreadPoolOf, OpensARegionForALoopOfItsOwn) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(count_items(pool, 77, 3), std::vector<int>(77, 1));
  EXPECT_EQ(count_items(pool, 5, 1), std::vector<int>(5, 1));
}

TEST_P(ThreadPoolOf, FinishesEachLoopBeforeTheNextBegins) {
  ThreadPool pool(GetParam());
  constexpr size_t kItems = 64;
  std::vector<int> values(kItems, 0);
  pool.parallel_region([&] {
    for (int job = 0; job < 2000; ++job) {
      const size_t shift = static_cast<size_t>(job) % kItems;
      std::vector<int> next(kItems);
      pool.parallel_for(kItems, 1 + shift % 4, [&](int, size_t begin, size_t end) noexcept {
        for (size_t i = begin; i < end; ++i) next[i] = values[(i + shift) % kItems] + 1;
      });
      values.swap(next);
    }
  });
  EXPECT_EQ(values, std::vector<int>(kItems, 2000));
}

// The other thread is in the middle of its item when the caller has none left.
TEST(ThreadPool, WaitsForTheItemThatAnotherThreadIsIn) {
  ThreadPool pool(2);
  std::atomic<bool> begun = false, done = false;
  pool.parallel_region([&] {
    pool.parallel_for(2, 1, [&](int thread, size_t, size_t) noexcept {
      if (thread == 0) {
        while (!begun) std::this_thread::yield();
      } else if (!begun.exchange(true)) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        done = true;
      }
    });
    EXPECT_TRUE(done);
  });
}

TEST_P(ThreadPoolOf, PassesOnWhatTheBodyThrowsAndWorksAgain) {
  ThreadPool pool(GetParam());
  EXPECT_THROW(pool.parallel_region([&] {
    count_items(pool, 10, 1);
    throw std::runtime_error("stop");
  }),
               std::runtime_error);
  pool.parallel_region([&] { EXPECT_EQ(count_items(pool, 10, 1), std::vector<int>(10, 1)); });
}

TEST_P(ThreadPoolOf, RegionsMayBeNested) {
  ThreadPool pool(GetParam());
  bool called = false;
  pool.parallel_region([&] {
    pool.parallel_region([&] {
      called = true;
      EXPECT_EQ(count_items(pool, 10, 1), std::vector<int>(10, 1));
    });
    EXPECT_EQ(count_items(pool, 20, 3), std::vector<int>(20, 1));
  });
  EXPECT_TRUE(called);
}

TEST_P(ThreadPoolOf, BroadcastsToEveryThreadOnceAndReturnsWhenAllAreDone) {
  ThreadPool pool(GetParam());
  std::vector<std::atomic<int>> calls(static_cast<size_t>(pool.size()));
  for (int round = 1; round <= 3; ++round) {
    pool.broadcast([&](int thread) noexcept {
      std::this_thread::sleep_for(std::chrono::milliseconds(thread));
      ++calls[static_cast<size_t>(thread)];
    });
    for (const auto& n : calls) EXPECT_EQ(n, round);
  }
}

// Each waits for the other.
TEST(ThreadPool, BroadcastRunsAllThreadsAtTheSameTime) {
  std::atomic<int> n_here{0};
  ThreadPool(2).broadcast([&](int) noexcept {
    ++n_here;
    for (int i = 0; i < 10000 && n_here < 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  EXPECT_EQ(n_here, 2);
}

// The chunk that begins first takes until all others are done: so whoever has it does none of them.
TEST(ThreadPool, TakesOverTheChunksOfAThreadThatIsHeldUp) {
  ThreadPool pool(2);
  std::vector<std::atomic<int>> done_by(16);
  for (auto& thread : done_by) thread = -1;
  std::atomic<bool> held{false}, others_done{false};
  std::atomic<int> holder{-1};
  pool.parallel_region([&] {
    pool.parallel_for(16, 1, [&](int thread, size_t begin, size_t) noexcept {
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

// Processor time of all threads of this process. Other processes do not count, so that a busy machine changes
// little.
double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Some ten microseconds of work with a result of its own.
uint64_t churn(uint64_t x) {
  for (int i = 0; i < 10000; ++i) x = x * 6364136223846793005 + 1442695040888963407;
  return x;
}

struct Effort {
  double cpu, wall;  // seconds
};

// A pass in small: jobs of 16 items, each made of the job before. Checks every number.
Effort do_jobs(int n_threads, int n_jobs) {
  constexpr size_t kItems = 16;
  ThreadPool pool(n_threads);
  std::vector<uint64_t> values(kItems, 1), next(kItems), expected(kItems, 1);
  const double cpu = cpu_seconds(), wall = wall_seconds();
  pool.parallel_region([&] {
    for (int job = 0; job < n_jobs; ++job) {
      pool.parallel_for(kItems, 1, [&](int, size_t begin, size_t end) noexcept {
        for (size_t i = begin; i < end; ++i) next[i] = churn(values[i] + values[(i + 1) % kItems] + i);
      });
      values.swap(next);
    }
  });
  const Effort effort{cpu_seconds() - cpu, wall_seconds() - wall};
  for (int job = 0; job < n_jobs; ++job) {
    for (size_t i = 0; i < kItems; ++i) next[i] = churn(expected[i] + expected[(i + 1) % kItems] + i);
    expected.swap(next);
  }
  EXPECT_EQ(values, expected);
  return effort;
}

// A thread that spun until its turn comes would keep the one that works from working: four threads would take
// four times the processor time of one.
TEST(ThreadPool, ManyThreadsOnOneCpuDoAllWorkWithoutStandingInEachOthersWay) {
  constexpr int kJobs = 1000;
  std::thread([] {
    bind_to({affinity_cpus().front()});
    const Effort one = do_jobs(1, kJobs), four = do_jobs(4, kJobs);
    EXPECT_LT(four.cpu, 2.5 * one.cpu + 0.1) << "one thread: " << one.cpu;
    EXPECT_LT(four.wall, 30) << "one thread: " << one.wall;
  }).join();
}

TEST(ThreadPool, GetsOnBesideABusyThread) {
  constexpr int kJobs = 300;
  for (const bool all_cpus : {false, true}) {
    std::thread([all_cpus] {
      const int cpu = affinity_cpus().front();  // the pool's only one or one of several
      const BusyCpu busy(cpu);
      if (!all_cpus) bind_to({cpu});
      for (const int n_threads : {2, 3}) EXPECT_LT(do_jobs(n_threads, kJobs).wall, 10);
    }).join();
  }
}

// To the system two threads on one CPU and a busy one on the other look as good as any. Other processes only
// make the busy thread's part of its CPU smaller.
TEST(ThreadPool, SharesTheCpuOfABusyThreadInsteadOfCrowdingOnAnother) {
  if (affinity_cpus().size() < 2) GTEST_SKIP() << "needs two CPUs";
  const int first = affinity_cpus()[0], second = affinity_cpus()[1];
  std::thread([=] {
    bind_to({first, second});
    BusyCpu busy(first);
    ThreadPool pool(2);
    bind_to({second});
    int threads[2];
    pool.parallel_region([&] {
      // Both threads begin on one CPU.
      std::atomic<int> n_here{0};
      pool.parallel_for(2, 1, [&](int thread, size_t, size_t) noexcept {
        bind_to({second});
        bind_to({first, second});
        threads[thread] = this_thread_id();
        ++n_here;
        while (n_here < 2) std::this_thread::yield();
      });
      const double wall = wall_seconds(), cpu = busy.cpu_seconds();
      std::vector<uint64_t> values(16, 1);
      while (wall_seconds() - wall < 1)
        pool.parallel_for(values.size(), 1, [&](int, size_t begin, size_t) noexcept {
          for (int i = 0; i < 10; ++i) values[begin] = churn(values[begin]);
        });
      EXPECT_LT((busy.cpu_seconds() - cpu) / (wall_seconds() - wall), 0.8);
    });
    for (const int thread : threads) {
      const std::optional<CpuSet> mask = thread_affinity(thread);
      ASSERT_TRUE(mask);
      EXPECT_TRUE(mask->test(first) && mask->test(second)) << "not as it was";
    }
  }).join();
}

// Within a region the others wait for the next loop; outside of it they are OpenMP's, some of whose runtimes
// spin for a fifth of a second before they sleep.
TEST(ThreadPool, TakesNoProcessorTimeWhileItIsIdle) {
  const char* policy = std::getenv("OMP_WAIT_POLICY");
  if (policy != nullptr && std::string_view(policy) != "passive") GTEST_SKIP() << "OpenMP is told to spin";
  const auto cpu_while_idle = [] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    const double before = cpu_seconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    return cpu_seconds() - before;
  };
  for (const int n_threads : {2, 4}) {
    ThreadPool pool(n_threads, n_threads);  // even where there are fewer CPUs it may spin for its moment
    pool.parallel_region([&] {
      count_items(pool, 100, 1);
      EXPECT_LT(cpu_while_idle(), 0.1) << "in a region, threads " << n_threads;
    });
    EXPECT_LT(cpu_while_idle(), 0.1) << "threads " << n_threads;
  }
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
