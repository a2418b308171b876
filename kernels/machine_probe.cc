#include "kernels/machine_probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "quant/parallel.h"

namespace quern {

namespace {

using Clock = std::chrono::steady_clock;

// Read in a quarter of a millisecond, so that threads end together; the streams within are long enough for
// the prefetchers.
constexpr uint64_t kChunk = uint64_t{4} << 20;
constexpr uint64_t kMacsBetweenLooks = 1'000'000;  // some ten microseconds

// Runs step() again and again on every thread for about `seconds`. Returns what the steps add up to, per
// second.
template <class Step>
double rate_of(int n_threads, double seconds, Step&& step) {
  std::atomic<uint64_t> total{0};
  const auto start = Clock::now();
  const auto deadline = start + std::chrono::duration<double>(seconds);
  parallel_region(n_threads, [&](int) noexcept {
    uint64_t done = 0;
    do {
      done += step();
    } while (Clock::now() < deadline);
    total += done;
  });
  return static_cast<double>(total) / std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

ReadProbe::ReadProbe(int n_threads, uint64_t n_bytes)
    : memory_((std::max<uint64_t>(n_bytes, 1) + kChunk - 1) / kChunk * kChunk, "the read probe") {
  parallel_for(n_threads, memory_.size(), kChunk, [&](size_t begin, size_t end) noexcept {
    // Written, not read: pages that nobody wrote to are all one page of zeros.
    for (size_t i = begin; i < end; i += 4096) memory_.data()[i] = 1;
  });
}

double ReadProbe::rate(const KernelSet& kernels, int n_threads, double seconds) {
  const uint64_t n_chunks = memory_.size() / kChunk;
  std::atomic<uint64_t> next{next_};
  const double rate = rate_of(n_threads, seconds, [&]() noexcept {
    const uint64_t sum = kernels.probe->read(memory_.data() + next++ % n_chunks * kChunk, kChunk);
    asm volatile("" ::"r"(sum));  // wanted: the read is not optimised away
    return kChunk;
  });
  next_ = next % n_chunks;
  return rate;
}

double multiply_rate(const KernelSet& kernels, int n_threads, double seconds) {
  return rate_of(n_threads, seconds, [&]() noexcept { return kernels.probe->multiply(kMacsBetweenLooks); });
}

}  // namespace quern
