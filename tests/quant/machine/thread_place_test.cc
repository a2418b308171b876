#include "quant/machine/thread_place.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "tests/support/cpus.h"

namespace quern {
namespace {

using std::chrono::milliseconds;
using Cpus = std::vector<int>;

CpuSet set_of(const Cpus& cpus) {
  CpuSet set;
  for (const int cpu : cpus) set.set(static_cast<size_t>(cpu));
  return set;
}

// Tests move threads between two CPUs; each runs in a thread of its own, whose mask ends with it.
class ThreadPlaceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (affinity_cpus().size() < 2) GTEST_SKIP() << "needs two CPUs";
    first = affinity_cpus()[0];
    second = affinity_cpus()[1];
  }

  static void in_thread(const std::function<void()>& body) { std::thread(body).join(); }

  // Waits, computing, until condition() or for 10 s.
  template <class Condition>
  static bool comes_to_be(const Condition& condition) {
    const auto start = std::chrono::steady_clock::now();
    while (!condition())
      if (std::chrono::steady_clock::now() - start > std::chrono::seconds(10)) return false;
    return true;
  }

  // Runs `worker` in a thread that starts on `first` with the mask `mask`, and when it says so `caller` in
  // one that is bound to `second`.
  void work_and_call(const Cpus& mask, const std::function<void(std::atomic<bool>& ready)>& worker,
                     const std::function<void()>& caller) {
    std::atomic<bool> ready{false};
    std::thread thread([&] {
      bind_to({first});
      bind_to(mask);
      worker(ready);
      ready = true;
    });
    in_thread([&] {
      bind_to({second});
      while (!ready) std::this_thread::yield();
      caller();
    });
    thread.join();
  }

  int first = 0, second = 0;
  ThreadPlace place;
};

TEST_F(ThreadPlaceTest, BringsAThreadAtWorkToTheCaller) {
  std::atomic<bool> brought{false};
  work_and_call(
      {first, second},
      [&](std::atomic<bool>& ready) {
        place.enter();
        place.begin_work();
        ready = true;
        EXPECT_TRUE(comes_to_be([&] { return brought.load(); }));
        EXPECT_EQ(this_cpu(), second);
        EXPECT_EQ(affinity_cpus(), Cpus{second});
        EXPECT_TRUE(place.end_work());
        EXPECT_EQ(affinity_cpus(), (Cpus{first, second}));
        place.begin_work();
        EXPECT_FALSE(place.end_work()) << "that was the work before";
      },
      [&] {
        EXPECT_TRUE(place.bring_here());
        EXPECT_FALSE(place.bring_here()) << "a second time";
        brought = true;
      });
}

TEST_F(ThreadPlaceTest, BringsNoThreadThatIsNotAtWork) {
  std::atomic<bool> asked{false};
  work_and_call(
      {first, second},
      [&](std::atomic<bool>& ready) {
        place.enter();
        place.begin_work();
        EXPECT_FALSE(place.end_work());
        ready = true;
        EXPECT_TRUE(comes_to_be([&] { return asked.load(); }));
        EXPECT_EQ(affinity_cpus(), (Cpus{first, second}));
      },
      [&] {
        EXPECT_FALSE(place.bring_here());
        asked = true;
      });
}

TEST_F(ThreadPlaceTest, BringsNoThreadToACpuThatItMayNotUse) {
  std::atomic<bool> asked{false};
  work_and_call(
      {first},
      [&](std::atomic<bool>& ready) {
        place.enter();
        place.begin_work();
        ready = true;
        EXPECT_TRUE(comes_to_be([&] { return asked.load(); }));
        EXPECT_EQ(this_cpu(), first);
        EXPECT_EQ(affinity_cpus(), Cpus{first});
        EXPECT_FALSE(place.end_work());
      },
      [&] {
        EXPECT_FALSE(place.bring_here());
        asked = true;
      });
}

TEST_F(ThreadPlaceTest, KeepsOffForATimeAndThenMayGoAnywhere) {
  in_thread([&] {
    bind_to({first, second});
    place.enter();
    const auto start = std::chrono::steady_clock::now();
    place.keep_off(set_of({first}));
    EXPECT_EQ(this_cpu(), second);
    place.end_keep_off_in_time();
    const Cpus soon = affinity_cpus();
    if (std::chrono::steady_clock::now() - start < milliseconds(90)) {  // else held up
      EXPECT_EQ(soon, Cpus{second});
    }
    EXPECT_TRUE(comes_to_be([&] {
      place.end_keep_off_in_time();
      return affinity_cpus().size() == 2;
    }));
    EXPECT_GT(std::chrono::steady_clock::now() - start, milliseconds(90));
    EXPECT_EQ(affinity_cpus(), (Cpus{first, second}));
  });
}

TEST_F(ThreadPlaceTest, StaysWhereItIsWhenThereIsNoOtherCpu) {
  in_thread([&] {
    bind_to({first});
    place.enter();
    place.keep_off(set_of({first}));
    EXPECT_EQ(affinity_cpus(), Cpus{first});
    place.leave();
    EXPECT_EQ(affinity_cpus(), Cpus{first});
  });
}

TEST_F(ThreadPlaceTest, LeavesTheMaskAsItWasAndTakesItUpAgain) {
  in_thread([&] {
    bind_to({first, second});
    place.enter();
    place.keep_off(set_of({first}));
    place.leave();
    EXPECT_EQ(affinity_cpus(), (Cpus{first, second}));
    const auto start = std::chrono::steady_clock::now();
    place.keep_off(set_of({second}));
    place.leave();
    place.enter();
    const Cpus again = affinity_cpus();
    if (std::chrono::steady_clock::now() - start < milliseconds(90)) {
      EXPECT_EQ(again, Cpus{first});
    }
    place.leave();
    EXPECT_EQ(affinity_cpus(), (Cpus{first, second}));
    std::this_thread::sleep_for(milliseconds(110));
    place.enter();
    EXPECT_EQ(affinity_cpus(), (Cpus{first, second})) << "when the time is over";
    place.leave();
  });
}

TEST_F(ThreadPlaceTest, LeavesAMaskAloneThatSomebodyElseHasSet) {
  in_thread([&] {
    bind_to({first, second});
    place.enter();
    place.keep_off(set_of({first}));
    bind_to({first});
    place.leave();
    EXPECT_EQ(affinity_cpus(), Cpus{first});
  });
}

TEST_F(ThreadPlaceTest, TakesAMaskThatSomebodyElseHasSetForTheOneBefore) {
  std::atomic<bool> asked{false};
  work_and_call(
      {first, second},
      [&](std::atomic<bool>& ready) {
        place.enter();
        place.keep_off(set_of({second}));
        bind_to({second});
        place.begin_work();
        ready = true;
        EXPECT_TRUE(comes_to_be([&] { return asked.load(); }));
        EXPECT_TRUE(place.end_work());
        EXPECT_EQ(affinity_cpus(), Cpus{second});
      },
      [&] {
        EXPECT_TRUE(place.bring_here());
        asked = true;
      });
}

}  // namespace
}  // namespace quern
