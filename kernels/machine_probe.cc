#include "kernels/machine_probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <span>
#include <thread>
#include <vector>

#include "quant/error.h"
#include "quant/parallel.h"

namespace quern {

namespace {

using Clock = std::chrono::steady_clock;

// Read in a quarter of a millisecond, so that threads end together; the streams within are long enough for
// the prefetchers.
constexpr uint64_t kChunk = uint64_t{4} << 20;
constexpr uint64_t kAlignment = 64;                // of what loops read
constexpr double kPatience = 0.1;                  // seconds to wait for other threads
constexpr uint64_t kMacsBetweenLooks = 1'000'000;  // some ten microseconds

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

// Runs step() again and again for about `seconds`, on all threads from the moment when the last of them is
// there: on a busy machine that takes a while. Returns what the steps add up to, per second.
template <class Step>
double rate_of(int n_threads, double seconds, Step&& step) {
  std::atomic<int> arrived{0};
  struct Part {
    Clock::time_point start, end;
    uint64_t done;
  };
  std::vector<Part> parts(static_cast<size_t>(n_threads));
  ThreadPool(n_threads).broadcast([&](int thread) noexcept {
    ++arrived;
    const auto entered = Clock::now();
    // Not for ever: a system that gives fewer threads runs the bodies one after the other.
    while (arrived < n_threads && seconds_between(entered, Clock::now()) < kPatience)
      std::this_thread::yield();
    Part part{Clock::now(), {}, 0};
    do {
      part.done += step();
      part.end = Clock::now();
    } while (seconds_between(part.start, part.end) < seconds);
    parts[static_cast<size_t>(thread)] = part;
  });
  Part all = parts.front();
  for (const Part& part : std::span(parts).subspan(1))
    all = {std::min(all.start, part.start), std::max(all.end, part.end), all.done + part.done};
  return static_cast<double>(all.done) / seconds_between(all.start, all.end);
}

}  // namespace

ReadProbe::ReadProbe(int n_threads, uint64_t n_bytes)
    : memory_((std::max<uint64_t>(n_bytes, 1) + kChunk - 1) / kChunk * kChunk, "the read probe") {
  ThreadPool(n_threads).parallel_for(memory_.size(), kChunk, [&](int, size_t begin, size_t end) noexcept {
    // Written, not read: pages that nobody wrote to are all one page of zeros.
    for (size_t i = begin; i < end; i += 4096) memory_.data()[i] = 1;
  });
  bytes_ = {memory_.data(), memory_.size()};
}

ReadProbe::ReadProbe(std::span<const uint8_t> bytes) {
  QUERN_CHECK(bytes.size() >= 2 * kChunk);
  const uint64_t skipped = (kAlignment - reinterpret_cast<uintptr_t>(bytes.data()) % kAlignment) % kAlignment;
  bytes_ = bytes.subspan(skipped, (bytes.size() - skipped) / kChunk * kChunk);
}

double ReadProbe::rate(const KernelSet& kernels, int n_threads, double seconds) {
  const uint64_t n_chunks = bytes_.size() / kChunk;
  std::atomic<uint64_t> next{next_};
  const double rate = rate_of(n_threads, seconds, [&]() noexcept {
    const uint64_t sum = kernels.probe->read(bytes_.data() + next++ % n_chunks * kChunk, kChunk);
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
