// What the machine gives at most: how fast threads read memory and multiply int8 numbers. Measured again and
// again in short runs, beside what is compared with it, as the answer changes with whatever else runs.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/kernel_set.h"
#include "quant/machine/host_memory.h"

namespace quern {

// Bytes per second of a plain streaming read. Not thread-safe.
class ReadProbe {
 public:
  static constexpr uint64_t kBytes = uint64_t{1} << 30;  // far more than any cache

  // Of memory in huge pages: takes n_bytes (rounded up to 4 MiB) and touches them with n_threads threads.
  // Throws kResource when the memory is refused.
  explicit ReadProbe(int n_threads, uint64_t n_bytes = kBytes);
  // Of bytes that are there and outlive the probe: a mapping, say. At least 8 MiB.
  explicit ReadProbe(std::span<const uint8_t> bytes);

  uint64_t bytes() const { return bytes_.size(); }

  // With n_threads threads and the loop of `kernels`, measured for about `seconds`. Goes on where the last
  // call ended, so that nothing is still in a cache.
  double rate(const KernelSet& kernels, int n_threads, double seconds);

 private:
  HostMemory memory_;               // empty where the bytes are another's
  std::span<const uint8_t> bytes_;  // whole chunks
  uint64_t next_ = 0;               // the chunk where the next call begins
};

// Multiply-adds of int8 numbers per second, likewise.
double multiply_rate(const KernelSet& kernels, int n_threads, double seconds);

}  // namespace quern
