#include "quant/parallel.h"

#include <omp.h>

#include <exception>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "quant/error.h"

namespace quern {
namespace {

// About 100 microseconds: longer than what one thread does alone between two jobs of a forward pass, short
// against the milliseconds for which the system hands a core to another process.
constexpr int kSpins = 4000;

// How long a thread that holds the last chunk is waited for when nothing says how long chunks take.
constexpr std::chrono::milliseconds kUnknownPatience(1);

using Clock = std::chrono::steady_clock;

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

void ThreadTeam::Bell::ring() {
  if (n_asleep_.load() == 0) return;
  { const std::lock_guard lock(mutex_); }  // who has found that the condition does not hold is asleep now
  rung_.notify_all();
}

ThreadTeam::ThreadTeam(int n_threads, int n_cpus)
    : size_(n_threads),
      // With more threads than cores whoever spins keeps another from working.
      spins_(n_threads <= (n_cpus > 0 ? n_cpus : omp_get_num_procs()) ? kSpins : 0),
      parts_(std::make_unique<Part[]>(static_cast<size_t>(n_threads))),
      places_(std::make_unique<ThreadPlace[]>(static_cast<size_t>(n_threads))),
      cpus_(std::make_unique<std::atomic<int>[]>(static_cast<size_t>(n_threads))) {
  QUERN_CHECK(n_threads >= 1);
}

void ThreadTeam::assemble(const std::function<void()>& body) {
  if (assembled_ || size_ == 1) {
    body();
    return;
  }
  assembled_ = true;
  dismissed_.store(false);
  for (int thread = 0; thread < size_; ++thread) cpus_[static_cast<size_t>(thread)].store(-1);
  std::exception_ptr failure;
  const uint32_t news = news_.load();
#pragma omp parallel num_threads(size_)
  {
    const int thread = omp_get_thread_num();
    if (thread == 0) {
      try {
        body();
      } catch (...) {
        failure = std::current_exception();
      }
      dismissed_.store(true);
      news_.fetch_add(2);
      news_bell_.ring();
    } else {
      serve(thread, news);
    }
  }
  assembled_ = false;
  if (failure) std::rethrow_exception(failure);
}

void ThreadTeam::run_job(const Job& job) {
  if (!assembled_) {
    assemble([&] { run_job(job); });
    return;
  }
  job_ = job;
  for (int thread = 0; thread < size_; ++thread) {
    const IndexRange range = split_range(job.n, job.grain, thread, size_);
    parts_[static_cast<size_t>(thread)].next.store(range.begin, std::memory_order_relaxed);
    parts_[static_cast<size_t>(thread)].end = range.end;
  }
  note_cpu(0);
  news_.fetch_add(1);  // opens
  news_bell_.ring();
  const Clock::time_point start = Clock::now();
  const int n_chunks = work(0);
  news_.fetch_add(1);  // closes
  await_others(n_chunks == 0 ? kUnknownPatience : 3 * (Clock::now() - start) / n_chunks);
}

int ThreadTeam::work(int thread) {
  int n_chunks = 0;
  for (int i = 0; i < size_; ++i) {
    Part& part = parts_[static_cast<size_t>((thread + i) % size_)];
    for (size_t begin; (begin = part.next.fetch_add(job_.grain, std::memory_order_relaxed)) < part.end;) {
      job_.run(job_.context, thread, begin, std::min(begin + job_.grain, part.end));
      ++n_chunks;
    }
  }
  return n_chunks;
}

void ThreadTeam::note_cpu(int thread) {
  const int cpu = this_cpu();
  std::atomic<int>& noted = cpus_[static_cast<size_t>(thread)];
  if (noted.load(std::memory_order_relaxed) != cpu) noted.store(cpu, std::memory_order_relaxed);
}

void ThreadTeam::keep_off_others(int thread) {
  cpu_set_t taken;
  CPU_ZERO(&taken);
  for (int other = 0; other < size_; ++other) {
    const int cpu = cpus_[static_cast<size_t>(other)].load(std::memory_order_relaxed);
    if (other != thread && cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &taken);
  }
  places_[static_cast<size_t>(thread)].keep_off(taken);
}

void ThreadTeam::await_others(std::chrono::nanoseconds patience) {
  for (int spins = spins_; spins > 0 && active_.load() != 0; --spins) pause_briefly();
  const auto all_rest = [this] { return active_.load() == 0; };
  if (all_rest()) return;
  // Another process may have the core of one that holds a chunk; this core has nothing else to do. One after
  // the other: most of those that are late just have more to do.
  if (spins_ > 0)
    for (int thread = 1; thread < size_ && !rest_bell_.await(all_rest, patience);)
      while (thread < size_ && !places_[static_cast<size_t>(thread++)].bring_here()) {
      }
  rest_bell_.await(all_rest);
}

uint32_t ThreadTeam::await_news(uint32_t seen) {
  for (int spins = spins_; spins > 0; --spins) {
    const uint32_t news = news_.load();
    if (news != seen) return news;
    pause_briefly();
  }
  news_bell_.await([&] { return news_.load() != seen; });
  return news_.load();
}

void ThreadTeam::serve(int thread, uint32_t seen) {
  ThreadPlace& place = places_[static_cast<size_t>(thread)];
  place.enter();
  for (;;) {
    seen = await_news(seen);
    if (dismissed_.load()) break;
    if (seen % 2 == 0) continue;
    place.end_keep_off_in_time();
    note_cpu(thread);
    place.begin_work();
    active_.fetch_add(1);
    if (news_.load() == seen) work(thread);
    const bool was_brought = place.end_work();
    if (active_.fetch_sub(1) == 1) rest_bell_.ring();
    // Thread 0, which brought this one, goes on here. Not before it waits no more: the way may be long.
    if (was_brought) keep_off_others(thread);
  }
  place.leave();
}

}  // namespace quern
