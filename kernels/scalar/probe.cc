// The yardstick of the reference: plain loops, as fast as a compiler makes them on any CPU.
#include <cstring>

#include "kernels/scalar/scalar_ops.h"

namespace quern::scalar {
namespace {

constexpr size_t kProducts = 4096;  // in the first-level cache

uint64_t multiply(uint64_t n_macs) noexcept {
  alignas(64) int8_t a[kProducts], b[kProducts];
  for (size_t i = 0; i < kProducts; ++i) {
    a[i] = static_cast<int8_t>(i % 251);
    b[i] = static_cast<int8_t>(i % 241);
  }
  uint64_t done = 0;
  for (; done < n_macs; done += kProducts) {
    asm volatile("" ::: "memory");  // the arrays may be others each time
    int32_t sum = 0;
    for (size_t i = 0; i < kProducts; ++i) sum += a[i] * b[i];
    asm volatile("" ::"r"(sum));
  }
  return done;
}

uint64_t read(const uint8_t* bytes, size_t n_bytes) noexcept {
  constexpr size_t kStreams = 4, kWords = 8;
  const size_t part = n_bytes / kStreams;
  uint64_t sums[kWords] = {};
  for (size_t i = 0; i < part; i += 64) {
    for (size_t s = 0; s < kStreams; ++s) {
      uint64_t words[kWords];
      std::memcpy(words, bytes + s * part + i, 64);
      for (size_t j = 0; j < kWords; ++j) sums[j] ^= words[j];
    }
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum ^= s;
  return sum;
}

}  // namespace

const ProbeLoops kProbeLoops = {"a plain loop", multiply, read};

}  // namespace quern::scalar
