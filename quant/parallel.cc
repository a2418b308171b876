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

void ThreadPool::WaitQueue::notify_all() {
  if (n_waiting_.load() == 0) return;
  { const std::lock_guard lock(mutex_); }  // who has found that the condition does not hold is asleep now
  notified_.notify_all();
}

ThreadPool::ThreadPool(int n_threads, int n_cpus)
    : size_(n_threads),
      // With more threads than cores whoever spins keeps another from working.
      spins_(n_threads <= (n_cpus > 0 ? n_cpus : omp_get_num_procs()) ? kSpins : 0),
      parts_(std::make_unique<Part[]>(static_cast<size_t>(n_threads))),
      places_(std::make_unique<ThreadPlace[]>(static_cast<size_t>(n_threads))),
      cpus_(std::make_unique<std::atomic<int>[]>(static_cast<size_t>(n_threads))) {
  QUERN_CHECK(n_threads >= 1);
}

void ThreadPool::parallel_region(const std::function<void()>& body) {
  if (in_region_ || size_ == 1) {
    body();
    return;
  }
  in_region_ = true;
  region_ends_.store(false);
  for (int thread = 0; thread < size_; ++thread) cpus_[static_cast<size_t>(thread)].store(-1);
  std::exception_ptr failure;
  const uint32_t epoch = epoch_.load();
#pragma omp parallel num_threads(size_)
  {
    const int thread = omp_get_thread_num();
    if (thread == 0) {
      try {
        body();
      } catch (...) {
        failure = std::current_exception();
      }
      region_ends_.store(true);
      epoch_.fetch_add(2);
      epoch_waiters_.notify_all();
    } else {
      work(thread, epoch);
    }
  }
  in_region_ = false;
  if (failure) std::rethrow_exception(failure);
}

// Where the system gives fewer threads each runs several bodies, one after the other.
void ThreadPool::run_on_all(void (*run)(void* context, int thread), void* context) {
  QUERN_CHECK(!in_region_);
#pragma omp parallel for num_threads(size_) schedule(static, 1)
  for (int thread = 0; thread < size_; ++thread) run(context, thread);
}

void ThreadPool::run_loop(const Loop& loop) {
  if (!in_region_) {
    parallel_region([&] { run_loop(loop); });
    return;
  }
  loop_ = loop;
  for (int thread = 0; thread < size_; ++thread) {
    const IndexRange range = split_range(loop.n, loop.grain, thread, size_);
    parts_[static_cast<size_t>(thread)].next.store(range.begin, std::memory_order_relaxed);
    parts_[static_cast<size_t>(thread)].end = range.end;
  }
  note_cpu(0);
  epoch_.fetch_add(1);  // opens
  epoch_waiters_.notify_all();
  const Clock::time_point start = Clock::now();
  const int n_chunks = run_chunks(0);
  epoch_.fetch_add(1);  // closes
  barrier(n_chunks == 0 ? kUnknownPatience : 3 * (Clock::now() - start) / n_chunks);
}

int ThreadPool::run_chunks(int thread) {
  int n_chunks = 0;
  for (int i = 0; i < size_; ++i) {
    Part& part = parts_[static_cast<size_t>((thread + i) % size_)];
    for (size_t begin; (begin = part.next.fetch_add(loop_.grain, std::memory_order_relaxed)) < part.end;) {
      loop_.run(loop_.context, thread, begin, std::min(begin + loop_.grain, part.end));
      ++n_chunks;
    }
  }
  return n_chunks;
}

void ThreadPool::note_cpu(int thread) {
  const int cpu = this_cpu();
  std::atomic<int>& noted = cpus_[static_cast<size_t>(thread)];
  if (noted.load(std::memory_order_relaxed) != cpu) noted.store(cpu, std::memory_order_relaxed);
}

void ThreadPool::keep_off_others(int thread) {
  CpuSet taken;
  for (int other = 0; other < size_; ++other) {
    const int cpu = cpus_[static_cast<size_t>(other)].load(std::memory_order_relaxed);
    if (other != thread && cpu >= 0 && cpu < static_cast<int>(taken.size()))
      taken.set(static_cast<size_t>(cpu));
  }
  places_[static_cast<size_t>(thread)].keep_off(taken);
}

void ThreadPool::barrier(std::chrono::nanoseconds patience) {
  for (int spins = spins_; spins > 0 && n_active_.load() != 0; --spins) pause_briefly();
  const auto nobody_works = [this] { return n_active_.load() == 0; };
  if (nobody_works()) return;
  // Another process may have the core of one that holds a chunk; this core has nothing else to do. One after
  // the other: most of those that are late just have more to do.
  if (spins_ > 0)
    for (int thread = 1; thread < size_ && !barrier_waiters_.wait_for(patience, nobody_works);)
      while (thread < size_ && !places_[static_cast<size_t>(thread++)].bring_here()) {
      }
  barrier_waiters_.wait(nobody_works);
}

uint32_t ThreadPool::wait_for_epoch_after(uint32_t epoch) {
  for (int spins = spins_; spins > 0; --spins) {
    const uint32_t now = epoch_.load();
    if (now != epoch) return now;
    pause_briefly();
  }
  epoch_waiters_.wait([&] { return epoch_.load() != epoch; });
  return epoch_.load();
}

void ThreadPool::work(int thread, uint32_t epoch) {
  ThreadPlace& place = places_[static_cast<size_t>(thread)];
  place.enter();
  for (;;) {
    epoch = wait_for_epoch_after(epoch);
    if (region_ends_.load()) break;
    if (epoch % 2 == 0) continue;
    place.end_keep_off_in_time();
    note_cpu(thread);
    place.begin_work();
    n_active_.fetch_add(1);
    if (epoch_.load() == epoch) run_chunks(thread);
    const bool was_brought = place.end_work();
    if (n_active_.fetch_sub(1) == 1) barrier_waiters_.notify_all();
    // Thread 0, which brought this one, goes on here. Not before it waits no more: the way may be long.
    if (was_brought) keep_off_others(thread);
  }
  place.leave();
}

}  // namespace quern
