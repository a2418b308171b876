// Attention on the CPU: the KV cache, and how attention's work is cut for threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/device.h"
#include "kernels/host_memory.h"
#include "kernels/kernel_set.h"
#include "quant/parallel.h"

namespace quern {

// Keys and values of all layers and KV heads, by segments: [segment][layer][KV head][tile][keys, values].
// A conversation touches the segments that it has reached and no other memory.
class CpuKvCache final : public DeviceKvCache {
 public:
  // head_dim: 1..kMaxHeadDim, for Q8_0 a multiple of 32. Throws kResource when memory cannot be had.
  explicit CpuKvCache(const KvShape& shape);
  const KvShape& shape() const { return shape_; }
  KvHead head(size_t layer, size_t kv_head) const;

 private:
  KvShape shape_;
  HostMemory memory_;
};

// Device::rope_and_store and Device::attention on rows of floats without gaps: q, out: [n, n_heads,
// head_dim]; k, v: [n, n_kv_heads, head_dim]. Not thread-safe: it keeps scratch from call to call.
class CpuAttention {
 public:
  // kernels and team must outlive it.
  CpuAttention(const KernelSet& kernels, ThreadTeam& team) : kernels_(kernels), team_(team) {}

  size_t rope_and_store(const AttentionShape& shape, size_t layer, size_t position, size_t n,
                        std::span<const float> cos_sin, float* q, float* k, const float* v,
                        const CpuKvCache& cache);
  void attend(const AttentionShape& shape, size_t layer, size_t position, size_t n, const float* q,
              const CpuKvCache& cache, float* out);

  // Bytes of scratch that calls with up to max_tokens tokens in a context of `capacity` positions can take.
  static uint64_t scratch_bytes(const AttentionShape& shape, size_t capacity, size_t max_tokens,
                                int n_threads);

 private:
  const KernelSet& kernels_;
  ThreadTeam& team_;
  Scratch<float> scratch_{"attention scratch"};  // per thread: the kernel's, a part, a total
  Scratch<float> parts_{"attention scratch"};
  Scratch<uint32_t> left_{"attention scratch"};
};

}  // namespace quern
