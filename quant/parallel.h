// Threads: the only OpenMP pragmas of the project are in parallel.cc.
//
// Nothing may throw inside a parallel loop: bodies are noexcept and report failures through what they write.
// Which thread computes what never changes a result (arithmetic.md), so loops are split as suits them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <type_traits>

#include "quant/machine/thread_place.h"

namespace quern {

struct IndexRange {
  size_t begin, end;
  bool empty() const { return begin >= end; }
};

// Part `thread` of [0, n) cut into n_threads contiguous parts whose inner borders are multiples of `grain`.
// Parts differ by at most one grain; some are empty when n is small.
inline IndexRange split_range(size_t n, size_t grain, int thread, int n_threads) {
  const size_t grains = (n + grain - 1) / grain;
  const size_t t = static_cast<size_t>(thread), nt = static_cast<size_t>(n_threads);
  const size_t base = grains / nt, extra = grains % nt;
  const size_t first = t * base + std::min(t, extra);
  const size_t count = base + (t < extra ? 1 : 0);
  return {std::min(n, first * grain), std::min(n, (first + count) * grain)};
}

// Threads for loops. The caller of a loop is thread 0 and works too; the others are OpenMP's.
//
// A forward pass has some two hundred loops, most of them shorter than a millisecond, so that starting
// OpenMP's threads for each would cost more than small models take: parallel_region() keeps them between
// loops. There they spin for a moment, then sleep, so that more threads than cores cost little. Outside of it
// they are OpenMP's, which sleep after a few milliseconds, and their affinity masks are as they were.
//
// Chunks of a loop are taken, not assigned (self-scheduling, with work stealing): each thread begins with its
// own contiguous part, in ascending order, and then takes what others have left. One that has not woken up
// yet delays a loop by nothing. One that holds a chunk when another process takes its core is brought to the
// core of the thread that waits for it, and afterwards keeps off the cores of the others for a time
// (thread_place.h).
//
// One thread at a time uses a pool. Making one starts no threads. Not copyable.
class ThreadPool {
 public:
  // n_threads >= 1. n_cpus: those that the process may use; 0: those of its affinity mask. Threads of a
  // larger pool do not spin.
  explicit ThreadPool(int n_threads, int n_cpus = 0);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Calls body() on this thread, with the others ready for its loops. What body throws is thrown on, after
  // the others have gone. Within a region: just calls body().
  void parallel_region(const std::function<void()>& body);

  // Calls body(thread, begin, end), noexcept, for chunks of at most `grain` items that together are [0, n);
  // begin is a multiple of grain. thread: 0..size()-1, at most one call for a thread at a time. Returns when
  // all are done. Outside of a region it opens one for itself.
  template <class Body>
  void parallel_for(size_t n, size_t grain, Body&& body) {
    if (n == 0) return;
    if (size_ == 1 || n <= grain) {
      for (size_t begin = 0; begin < n; begin += grain) body(0, begin, std::min(n, begin + grain));
      return;
    }
    run_loop({[](void* context, int thread, size_t begin, size_t end) {
                (*static_cast<std::remove_reference_t<Body>*>(context))(thread, begin, end);
              },
              &body, n, grain});
  }

  // Calls body(thread), noexcept, once for every thread in [0, size()), all at the same time where the system
  // gives as many threads; returns when all are done. Not within a region.
  template <class Body>
  void broadcast(Body&& body) {
    if (size_ == 1) return body(0);
    run_on_all(
        [](void* context, int thread) { (*static_cast<std::remove_reference_t<Body>*>(context))(thread); },
        &body);
  }

 private:
  struct Loop {
    void (*run)(void* context, int thread, size_t begin, size_t end);
    void* context;
    size_t n, grain;
  };
  // What is left of a thread's part. A line of its own: its owner writes it for each chunk.
  struct alignas(64) Part {
    std::atomic<size_t> next{0};
    size_t end = 0;
  };

  // Where threads sleep until a condition holds: a condition variable that costs nothing to notify while
  // nobody waits. Not std::atomic's wait: libstdc++'s yields its core four times before it sleeps, and beside
  // a busy process each time costs the turn (it left a thread with a quarter of the core instead of half).
  class WaitQueue {
   public:
    // Returns once holds(), which reads atomics; whoever changes them notifies.
    template <class Condition>
    void wait(const Condition& holds) {
      std::unique_lock lock(mutex_);
      ++n_waiting_;
      notified_.wait(lock, holds);
      --n_waiting_;
    }
    // Not longer than `timeout`; returns holds().
    template <class Condition>
    bool wait_for(std::chrono::nanoseconds timeout, const Condition& holds) {
      std::unique_lock lock(mutex_);
      ++n_waiting_;
      const bool held = notified_.wait_for(lock, timeout, holds);
      --n_waiting_;
      return held;
    }
    void notify_all();

   private:
    std::mutex mutex_;
    std::condition_variable notified_;
    std::atomic<int> n_waiting_{0};
  };

  void run_loop(const Loop& loop);
  void run_on_all(void (*run)(void* context, int thread), void* context);
  // The life of a worker in a region. epoch: epoch_ when the region began; a thread may arrive when all is
  // over.
  void work(int thread, uint32_t epoch);
  int run_chunks(int thread);  // takes chunks of loop_ until none is left; returns how many
  // Returns when no other thread works on the loop. patience: how long a chunk may take before the thread
  // that holds it counts as held up.
  void barrier(std::chrono::nanoseconds patience);
  void note_cpu(int thread);
  void keep_off_others(int thread);
  uint32_t wait_for_epoch_after(uint32_t epoch);  // returns what epoch_ then is

  const int size_;
  const int spins_;  // before a wait becomes a sleep
  bool in_region_ = false;
  std::unique_ptr<Part[]> parts_;             // [size_]
  std::unique_ptr<ThreadPlace[]> places_;     // [size_]; thread 0 is never moved
  std::unique_ptr<std::atomic<int>[]> cpus_;  // [size_] where each began its last loop; -1: none yet
  Loop loop_{};
  // Odd while a loop is open, that is, may have chunks left. A thread that wants to work says so in n_active_
  // first and then looks again whether the loop is still open; the caller closes the loop first and then
  // waits until nobody is active. So no thread touches a loop that has returned.
  std::atomic<uint32_t> epoch_{0};
  std::atomic<uint32_t> n_active_{0};
  std::atomic<bool> region_ends_{false};
  WaitQueue epoch_waiters_, barrier_waiters_;  // for epoch_ and for n_active_
};

}  // namespace quern
