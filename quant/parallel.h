// Threads: the only OpenMP pragma of the project.
//
// Nothing may throw inside a parallel region: bodies are noexcept and report failures through what they
// write. Which thread computes what never changes a result (arithmetic.md), so callers split as they like.
#pragma once

#include <algorithm>
#include <cstddef>

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

}  // namespace quern
