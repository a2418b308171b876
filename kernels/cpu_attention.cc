#include "kernels/cpu_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "quant/parallel.h"

namespace quern {

namespace {

constexpr double kLog2e = 0x1.71547652b82fep0;

// Query rows that one pass over the cache serves: heads of a KV head x tokens. Their queries and sums stay in
// an L2 cache; converting a tile for all of them costs some percent of the work; a multiple of the rows that
// kernels take at once.
constexpr size_t kBlockRows = 96;
// A job with fewer items per thread is cut by segments too, so that threads end together.
constexpr size_t kItemsPerThread = 16;
// What parts of segments may take until they are merged. Jobs with more rows have work enough without.
constexpr uint64_t kMaxPartBytes = uint64_t{16} << 20;
// Tokens whose keys one thread stores: neighbours share cache lines.
constexpr size_t kStoreTokens = 16;

constexpr size_t whole_lines(size_t n_floats) { return (n_floats + 15) / 16 * 16; }

size_t group_heads(const AttentionShape& shape) { return shape.n_heads / shape.n_kv_heads; }

size_t rows_of_block(const AttentionShape& shape, size_t n_tokens) {
  const size_t heads = group_heads(shape);
  return std::min(n_tokens, std::max<size_t>(kBlockRows / heads, 1)) * heads;
}

// Scratch of one thread, in floats.
struct ThreadScratch {
  ThreadScratch(size_t n_rows, size_t head_dim)
      : kernel(whole_lines(attention_scratch_floats(n_rows, head_dim))),
        part(whole_lines(attention_part_floats(n_rows, head_dim))) {}
  size_t kernel, part;
  size_t total() const { return kernel + 2 * part; }
};

// How a job is cut: items are (KV head, block of tokens), or (KV head, block of tokens, segment).
struct Cut {
  Cut(const AttentionShape& shape, size_t position, size_t n, int n_threads)
      : n_rows(rows_of_block(shape, n)),
        block_tokens(n_rows / group_heads(shape)),
        n_blocks((n + block_tokens - 1) / block_tokens),
        n_groups(shape.n_kv_heads * n_blocks),
        first_segment(first_visible_key(position, shape.window) / kAttentionSegment),
        n_segments((position + n - 1) / kAttentionSegment - first_segment + 1),
        part_floats(whole_lines(attention_part_floats(n_rows, shape.head_dim))),
        by_segment(n_segments > 1 && n_groups < kItemsPerThread * static_cast<size_t>(n_threads) &&
                   n_groups * n_segments * part_floats * sizeof(float) <= kMaxPartBytes) {}

  size_t n_rows, block_tokens, n_blocks, n_groups;
  size_t first_segment, n_segments, part_floats;
  bool by_segment;
};

}  // namespace

CpuKvCache::CpuKvCache(const KvShape& shape) : shape_(shape), memory_(shape.bytes(), "the KV cache") {
  QUERN_CHECK(shape.head_dim >= 1 && shape.head_dim <= kMaxHeadDim);
  QUERN_CHECK(shape.type != KvType::kQ8_0 || shape.head_dim % kKvGroup == 0);
  // All heads' first segments lie together, and a short context writes a few lines of each: huge pages would
  // be cleared whole before the first token comes, 64 MB for Mistral-7B.
  memory_.use_small_pages(head(0, 0).segment_stride);
}

KvHead CpuKvCache::head(size_t layer, size_t kv_head) const {
  const uint64_t segment_keys = shape_.segment_keys();
  const uint64_t head_bytes = 2 * segment_keys * kv_row_bytes(shape_.type, shape_.head_dim);
  return {memory_.data() + (layer * shape_.n_kv_heads + kv_head) * head_bytes,
          shape_.n_layers * shape_.n_kv_heads * head_bytes};
}

size_t CpuAttention::rope_and_store(const AttentionShape& shape, size_t layer, size_t position, size_t n,
                                    std::span<const float> cos_sin, float* q, float* k, const float* v,
                                    const CpuKvCache& cache) {
  QUERN_CHECK(position + n <= cache.shape().capacity && cos_sin.size() >= n * shape.rotary_dim);
  const size_t q_dim = shape.n_heads * shape.head_dim, kv_dim = shape.n_kv_heads * shape.head_dim;
  std::atomic<size_t> first_bad{n};
  team_.share(n, kStoreTokens, [&](int, size_t begin, size_t end) noexcept {
    for (size_t t = begin; t < end; ++t) {
      const float* angles = cos_sin.data() + t * shape.rotary_dim;
      kernels_.rope(q + t * q_dim, shape.n_heads, shape.head_dim, shape.rotary_dim, angles);
      kernels_.rope(k + t * kv_dim, shape.n_kv_heads, shape.head_dim, shape.rotary_dim, angles);
      bool good = true;
      for (size_t h = 0; h < shape.n_kv_heads; ++h) {
        const size_t at = t * kv_dim + h * shape.head_dim;
        good &= kernels_.store_kv(
            {k + at, v + at, shape.head_dim, position + t, cache.shape().type, cache.head(layer, h)});
      }
      if (good) continue;
      // The smallest t wins, whatever the order of the threads.
      size_t seen = first_bad.load();
      while (t < seen && !first_bad.compare_exchange_weak(seen, t)) {
      }
      break;
    }
  });
  return first_bad.load();
}

void CpuAttention::attend(const AttentionShape& shape, size_t layer, size_t position, size_t n,
                          const float* q, const CpuKvCache& cache, float* out) {
  QUERN_CHECK(position + n <= cache.shape().capacity && shape.n_heads % shape.n_kv_heads == 0);
  if (n == 0) return;
  const Cut cut(shape, position, n, team_.size());
  const ThreadScratch sizes(cut.n_rows, shape.head_dim);
  float* const scratch = scratch_.at_least(sizes.total() * static_cast<size_t>(team_.size()));
  const size_t q_dim = shape.n_heads * shape.head_dim;

  AttentionArgs shared{};
  shared.q_stride = shared.out_stride = q_dim;
  shared.n_heads = group_heads(shape);
  shared.head_dim = shape.head_dim;
  shared.type = cache.shape().type;
  shared.window = shape.window;
  shared.kappa = static_cast<float>(kLog2e / std::sqrt(static_cast<double>(shape.head_dim)));

  // Groups of rows: (KV head, block of tokens), blocks fastest, so that threads stay with one head's cache.
  // The last tokens first: they see the most keys.
  const auto args_of = [&](size_t group, int thread) {
    const size_t head = group / cut.n_blocks, block = cut.n_blocks - 1 - group % cut.n_blocks;
    const size_t t = block * cut.block_tokens, at = t * q_dim + head * shared.n_heads * shape.head_dim;
    AttentionArgs args = shared;
    args.n_tokens = std::min(cut.block_tokens, n - t);
    args.cache = cache.head(layer, head);
    args.position = position + t;
    args.q = q + at;
    args.out = out + at;
    args.scratch = scratch + sizes.total() * static_cast<size_t>(thread);
    return args;
  };

  if (!cut.by_segment) {
    team_.share(cut.n_groups, 1, [&](int thread, size_t begin, size_t end) noexcept {
      for (size_t group = begin; group < end; ++group) {
        const AttentionArgs args = args_of(group, thread);
        float *const part = args.scratch + sizes.kernel, *const total = part + sizes.part;
        const size_t first = first_visible_key(args.position, args.window) / kAttentionSegment;
        const size_t last = (args.position + args.n_tokens - 1) / kAttentionSegment;
        for (size_t segment = first; segment <= last; ++segment) {
          kernels_.attend_segment(args, segment, part);
          kernels_.merge_segment(args, segment, part, total);
        }
      }
    });
    return;
  }

  // Few rows: segments on their own, each into a part of its own. Who finishes a group's last one merges
  // them.
  float* const parts = parts_.at_least(cut.n_groups * cut.n_segments * cut.part_floats);
  uint32_t* const left = left_.at_least(cut.n_groups);
  std::fill(left, left + cut.n_groups, static_cast<uint32_t>(cut.n_segments));
  team_.share(cut.n_groups * cut.n_segments, 1, [&](int thread, size_t begin, size_t end) noexcept {
    for (size_t item = begin; item < end; ++item) {
      const size_t index = item / cut.n_groups, group = item % cut.n_groups;
      const AttentionArgs args = args_of(group, thread);
      float* const group_parts = parts + group * cut.n_segments * cut.part_floats;
      const size_t segment = cut.first_segment + index;
      // Later tokens of a job may begin or end in other segments than the first.
      if (segment * kAttentionSegment < args.position + args.n_tokens &&
          (segment + 1) * kAttentionSegment > first_visible_key(args.position, args.window))
        kernels_.attend_segment(args, segment, group_parts + index * cut.part_floats);
      if (std::atomic_ref(left[group]).fetch_sub(1, std::memory_order_acq_rel) != 1) continue;
      float* const total = args.scratch + sizes.kernel + sizes.part;
      for (size_t i = 0; i < cut.n_segments; ++i)
        kernels_.merge_segment(args, cut.first_segment + i, group_parts + i * cut.part_floats, total);
    }
  });
}

uint64_t CpuAttention::scratch_bytes(const AttentionShape& shape, size_t capacity, size_t max_tokens,
                                     int n_threads) {
  const size_t n_rows = rows_of_block(shape, max_tokens);
  const uint64_t threads = static_cast<uint64_t>(n_threads) * ThreadScratch(n_rows, shape.head_dim).total();
  const uint64_t n_segments = (capacity + kAttentionSegment - 1) / kAttentionSegment;
  const uint64_t parts = kItemsPerThread * static_cast<uint64_t>(n_threads) * n_segments *
                         whole_lines(attention_part_floats(n_rows, shape.head_dim)) * sizeof(float);
  return threads * sizeof(float) + (n_segments > 1 ? std::min(parts, kMaxPartBytes) : 0);
}

}  // namespace quern
