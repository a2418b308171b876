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

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadTeam::ThreadTeam(int n_threads, int n_cpus)
    : size_(n_threads),
      // With more threads than cores whoever spins keeps another from working.
      spins_(n_threads <= (n_cpus > 0 ? n_cpus : omp_get_num_procs()) ? kSpins : 0),
      parts_(std::make_unique<Part[]>(static_cast<size_t>(n_threads))) {
  QUERN_CHECK(n_threads >= 1);
}

void ThreadTeam::assemble(const std::function<void()>& body) {
  if (assembled_ || size_ == 1) {
    body();
    return;
  }
  assembled_ = true;
  dismissed_.store(false);
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
      news_.notify_all();
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
  news_.fetch_add(1);  // opens
  news_.notify_all();
  work(0);
  news_.fetch_add(1);  // closes
  for (int spins = spins_; spins > 0 && active_.load() != 0; --spins) pause_briefly();
  for (uint32_t n; (n = active_.load()) != 0;) active_.wait(n);
}

void ThreadTeam::work(int thread) {
  for (int i = 0; i < size_; ++i) {
    Part& part = parts_[static_cast<size_t>((thread + i) % size_)];
    for (size_t begin; (begin = part.next.fetch_add(job_.grain, std::memory_order_relaxed)) < part.end;)
      job_.run(job_.context, thread, begin, std::min(begin + job_.grain, part.end));
  }
}

uint32_t ThreadTeam::await_news(uint32_t seen) const {
  for (int spins = spins_; spins > 0; --spins) {
    const uint32_t news = news_.load();
    if (news != seen) return news;
    pause_briefly();
  }
  news_.wait(seen);
  return news_.load();
}

void ThreadTeam::serve(int thread, uint32_t seen) {
  for (;;) {
    seen = await_news(seen);
    if (dismissed_.load()) return;
    if (seen % 2 == 0) continue;
    active_.fetch_add(1);
    if (news_.load() == seen) work(thread);
    if (active_.fetch_sub(1) == 1) active_.notify_one();
  }
}

}  // namespace quern
