// Threads: the only OpenMP pragmas of the project are here and in parallel.cc.
//
// Nothing may throw inside a parallel region: bodies are noexcept and report failures through what they
// write. Which thread computes what never changes a result (arithmetic.md), so callers split as they like.
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

#include "quant/thread_place.h"

namespace quern {

// Calls body(thread) once for every thread in [0, n_threads), all at the same time; returns when all are
// done. A region inside a region runs on one thread per call: do not nest.
template <class Body>
void parallel_region(int n_threads, Body&& body) {
  if (n_threads <= 1) {
    body(0);
    return;
  }
#pragma omp parallel for num_threads(n_threads) schedule(static, 1)
  for (int thread = 0; thread < n_threads; ++thread) body(thread);
}

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

// Calls body(begin, end) for a static split of [0, n) (see split_range) on n_threads threads.
template <class Body>
void parallel_for(int n_threads, size_t n, size_t grain, Body&& body) {
  parallel_region(n_threads, [&](int thread) {
    const IndexRange r = split_range(n, grain, thread, n_threads);
    if (!r.empty()) body(r.begin, r.end);
  });
}

// Threads that stay together for many short jobs: a forward pass has some two hundred, most of them shorter
// than a millisecond, so that starting a parallel region for each would cost more than small models take.
//
// Chunks of a job are taken, not assigned: each thread begins with its own contiguous part, in ascending
// order, and then takes what others have left. One that has not woken up yet delays a job by nothing. One
// that holds a chunk when another process takes its core is brought to the core of the thread that waits for
// it, and afterwards keeps off the cores of the others for a time (thread_place.h). Waiting threads spin for
// a moment, then sleep, so that more threads than cores cost little. Between two calls of assemble() the
// threads are OpenMP's, which sleep after a few milliseconds, and their affinity masks are as they were.
//
// One thread at a time uses a team. Not copyable.
class ThreadTeam {
 public:
  // n_threads >= 1. n_cpus: those that the process may use; 0: those of its affinity mask. Threads of a
  // larger team do not spin.
  explicit ThreadTeam(int n_threads, int n_cpus = 0);
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return size_; }

  // Calls body() on this thread while the others wait for its share() calls. What body throws is thrown on,
  // after the others have gone. Within assemble(): just calls body().
  void assemble(const std::function<void()>& body);

  // Calls body(thread, begin, end), noexcept, for chunks of at most `grain` items that together are [0, n);
  // begin is a multiple of grain. thread: 0..size()-1, at most one call for a thread at a time. Returns when
  // all are done. May be called outside assemble(), which then assembles for this job alone.
  template <class Body>
  void share(size_t n, size_t grain, Body&& body) {
    if (n == 0) return;
    if (size_ == 1 || n <= grain) {
      for (size_t begin = 0; begin < n; begin += grain) body(0, begin, std::min(n, begin + grain));
      return;
    }
    run_job({[](void* context, int thread, size_t begin, size_t end) {
               (*static_cast<std::remove_reference_t<Body>*>(context))(thread, begin, end);
             },
             &body, n, grain});
  }

 private:
  struct Job {
    void (*run)(void* context, int thread, size_t begin, size_t end);
    void* context;
    size_t n, grain;
  };
  // What is left of a thread's part. A line of its own: its owner writes it for each chunk.
  struct alignas(64) Part {
    std::atomic<size_t> next{0};
    size_t end = 0;
  };

  // Where threads sleep until a condition holds. Not std::atomic's wait: libstdc++'s yields its core four
  // times before it sleeps, and beside a busy process each time costs the turn (it left a thread with a
  // quarter of the core instead of half).
  class Bell {
   public:
    // Returns once holds(), which reads atomics; whoever changes them rings.
    template <class Condition>
    void await(const Condition& holds) {
      std::unique_lock lock(mutex_);
      ++n_asleep_;
      rung_.wait(lock, holds);
      --n_asleep_;
    }
    // Not longer than `patience`; returns holds().
    template <class Condition>
    bool await(const Condition& holds, std::chrono::nanoseconds patience) {
      std::unique_lock lock(mutex_);
      ++n_asleep_;
      const bool held = rung_.wait_for(lock, patience, holds);
      --n_asleep_;
      return held;
    }
    void ring();

   private:
    std::mutex mutex_;
    std::condition_variable rung_;
    std::atomic<int> n_asleep_{0};
  };

  void run_job(const Job& job);
  // The life of a waiting thread. seen: news_ when the team assembled; a thread may arrive when all is over.
  void serve(int thread, uint32_t seen);
  int work(int thread);  // takes chunks of job_ until none is left; returns how many
  // patience: how long a chunk may take before the thread that holds it counts as held up.
  void await_others(std::chrono::nanoseconds patience);
  void note_cpu(int thread);
  void keep_off_others(int thread);
  uint32_t await_news(uint32_t seen);  // returns what news_ is once it is not `seen`

  const int size_;
  const int spins_;  // before a wait becomes a sleep
  bool assembled_ = false;
  std::unique_ptr<Part[]> parts_;             // [size_]
  std::unique_ptr<ThreadPlace[]> places_;     // [size_]; thread 0 is never moved
  std::unique_ptr<std::atomic<int>[]> cpus_;  // [size_] where each began its last job; -1: none yet
  Job job_{};
  // Odd while a job is open, that is, may have chunks left. A thread that wants to work says so in active_
  // first and then looks again whether the job is still open; the caller closes the job first and then waits
  // until nobody is active. So no thread touches a job that has returned.
  std::atomic<uint32_t> news_{0};
  std::atomic<uint32_t> active_{0};
  std::atomic<bool> dismissed_{false};
  Bell news_bell_, rest_bell_;  // of news_ and of active_
};

}  // namespace quern
