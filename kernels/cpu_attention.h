// Attention on the CPU: the KV cache, and how attention's work is cut for threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device.h"
#include "kernels/kernel_set.h"
#include "quant/machine/host_memory.h"
#include "quant/parallel.h"

namespace quern {

// Keys and values of all layers and KV heads, by segments: [segment][layer][KV head][tile][keys, values], so
// that a conversation touches the segments that it has reached and no other memory. Layers that keep less
// than all stand behind the others, each a ring: [segment][KV head][tile][keys, values]; behind these the
// states: [slot][layer].
class CpuKvCache final : public DeviceKvCache {
 public:
  // head_dim: 1..kMaxHeadDim, for Q8_0 a multiple of 32. Throws kResource when memory cannot be had.
  explicit CpuKvCache(const KvShape& shape);
  const KvShape& shape() const { return shape_; }
  KvHead head(size_t layer, size_t kv_head) const;
  float* state(size_t layer, size_t slot) const;  // [state_floats]
  // Device::save_kv and load_kv.
  void save(size_t segment, size_t state_slot, std::span<uint8_t> block) const;
  void load(size_t segment, KvBlockParts parts, std::span<const uint8_t> block);

 private:
  struct Place {
    uint64_t begin, segment_stride, head_bytes, state_begin;
    size_t n_segments;
  };
  // Calls part(memory, n_bytes, kind) for what a block holds, in order.
  template <class Part>
  void for_block(size_t segment, size_t state_slot, Part&& part) const;

  KvShape shape_;
  std::vector<Place> places_;  // of each layer
  HostMemory memory_;
};

// HeadSteps on the host.
struct CpuHeadSteps {
  const float *q_norm = nullptr, *k_norm = nullptr;  // [head_dim]; null: none
  float eps = 0;
  const float* rope = nullptr;  // [rows, rotary_dim]; null: none
  size_t rotary_dim = 0;
  RopePairs pairs = RopePairs::kNeighbours;
  const float* q_scale = nullptr;  // [rows]; null: none
  bool normalise_v = false;
};

// A softcap of values, or of scores in units of log2(e).
Softcap softcap_of(double cap, bool log2_units);

// Device::store_heads and Device::attention on rows of floats without gaps: q, out: [rows, n_heads,
// head_dim]; k, v: [rows, n_kv_heads, head_dim]. Caches are CpuKvCaches; the rows of `sequences` follow one
// another from row 0. Not thread-safe: it keeps scratch from call to call.
class CpuAttention {
 public:
  // kernels and pool must outlive it.
  CpuAttention(const KernelSet& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Returns the first row with a NaN in K or V; the number of rows: none.
  size_t store_heads(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                     const CpuHeadSteps& steps, float* q, float* k, float* v);
  void attend(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
              const float* q, float* out, const float* sinks = nullptr);

  // Bytes of scratch that calls with up to max_rows rows in contexts of `capacity` positions can take.
  static uint64_t scratch_bytes(const AttentionShape& shape, size_t capacity, size_t max_rows, int n_threads);

 private:
  const KernelSet& kernels_;
  ThreadPool& pool_;
  const std::vector<float> ones_ = std::vector<float>(kMaxHeadDim, 1.0f);
  Scratch<float> scratch_{"attention scratch"};  // per thread: the kernel's, a part, a total
  Scratch<float> parts_{"attention scratch"};
  Scratch<uint32_t> left_{"attention scratch"};
};

}  // namespace quern
