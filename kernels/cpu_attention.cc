#include "kernels/cpu_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

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

// Neighbouring rows of one sequence whose queries go over the cache together.
struct Block {
  const SequenceRows* sequence;
  size_t t, n;           // rows of the sequence
  size_t first_segment;  // that some row sees
  size_t n_segments;
};

// How a job is cut: items are groups, of (KV head, block), or a group's segments.
struct Cut {
  Cut(const AttentionShape& shape, std::span<const SequenceRows> sequences, int n_threads) {
    size_t n_block_segments = 0;
    for (const SequenceRows& sequence : sequences) {
      const size_t rows = rows_of_block(shape, sequence.n), tokens = rows / group_heads(shape);
      n_rows = std::max(n_rows, rows);
      // The last tokens first: they see the most keys.
      for (size_t left = (sequence.n + tokens - 1) / tokens; left-- > 0;) {
        Block block{&sequence, left * tokens, std::min(tokens, sequence.n - left * tokens), 0, 0};
        const size_t position = sequence.position + block.t;
        block.first_segment = first_visible_key(position, shape.window) / kAttentionSegment;
        block.n_segments = (position + block.n - 1) / kAttentionSegment - block.first_segment + 1;
        most_segments = std::max(most_segments, block.n_segments);
        n_block_segments += block.n_segments;
        blocks.push_back(block);
      }
    }
    n_groups = shape.n_kv_heads * blocks.size();
    n_parts = shape.n_kv_heads * n_block_segments;
    part_floats = whole_lines(attention_part_floats(n_rows, shape.head_dim));
    by_segment = most_segments > 1 && n_groups < kItemsPerThread * static_cast<size_t>(n_threads) &&
                 n_parts * part_floats * sizeof(float) <= kMaxPartBytes;
  }

  std::vector<Block> blocks;
  size_t n_rows = 0;  // of the largest block
  size_t n_groups, n_parts, part_floats;
  size_t most_segments = 0;  // of a block
  bool by_segment;
};

// A segment of a group, and the place of its part.
struct SegmentItem {
  size_t group, index, part;
};

// Neighbouring groups take the same segment: by index, then by group.
std::vector<SegmentItem> segment_items(const Cut& cut) {
  std::vector<size_t> first_part(cut.n_groups);
  for (size_t group = 1; group < cut.n_groups; ++group)
    first_part[group] = first_part[group - 1] + cut.blocks[(group - 1) % cut.blocks.size()].n_segments;
  std::vector<SegmentItem> items;
  items.reserve(cut.n_parts);
  for (size_t index = 0; index < cut.most_segments; ++index)
    for (size_t group = 0; group < cut.n_groups; ++group)
      if (index < cut.blocks[group % cut.blocks.size()].n_segments)
        items.push_back({group, index, first_part[group] + index});
  return items;
}

const CpuKvCache& cache_of(const SequenceRows& sequence) {
  return static_cast<const CpuKvCache&>(*sequence.cache);
}

size_t count_rows(std::span<const SequenceRows> sequences) {
  size_t n = 0;
  for (const SequenceRows& sequence : sequences) {
    QUERN_CHECK(sequence.row_begin == n && sequence.n > 0 &&
                sequence.position + sequence.n <= cache_of(sequence).shape().capacity);
    n += sequence.n;
  }
  return n;
}

}  // namespace

CpuKvCache::CpuKvCache(const KvShape& shape) : shape_(shape), memory_(shape.bytes(), "the KV cache") {
  uint64_t all_layers = 0, begin = 0;  // bytes of a segment of those that keep everything
  const auto is_ring = [&](const KvLayer& layer) { return shape.is_ring(layer); };
  for (const KvLayer& layer : shape.layers)
    if (!is_ring(layer)) all_layers += shape.segment_bytes(layer);
  uint64_t ring_begin = all_layers * ((shape.capacity + shape.segment_keys() - 1) / shape.segment_keys());
  for (const KvLayer& layer : shape.layers) {
    Place place{0, 0, 0, 0, shape.segments_of(layer)};
    if (layer.n_kv_heads != 0) {
      QUERN_CHECK(layer.head_dim >= 1 && layer.head_dim <= kMaxHeadDim);
      QUERN_CHECK(shape.type != KvType::kQ8_0 || layer.head_dim % kKvGroup == 0);
      const uint64_t bytes = shape.segment_bytes(layer);
      uint64_t& next = is_ring(layer) ? ring_begin : begin;
      place.begin = next;
      place.head_bytes = bytes / layer.n_kv_heads;
      place.segment_stride = is_ring(layer) ? bytes : all_layers;
      next += is_ring(layer) ? bytes * place.n_segments : bytes;
    }
    places_.push_back(place);
  }
  for (size_t i = 0; i < places_.size(); ++i) {  // behind all rings
    places_[i].state_begin = ring_begin;
    ring_begin += shape.layers[i].state_floats * sizeof(float);
  }
  // All heads' first segments lie together, and a short context writes a few lines of each: huge pages would
  // be cleared whole before the first token comes, 64 MB for Mistral-7B.
  memory_.use_small_pages(all_layers);
}

KvHead CpuKvCache::head(size_t layer, size_t kv_head) const {
  const Place& place = places_[layer];
  return {memory_.data() + place.begin + kv_head * place.head_bytes, place.segment_stride,
          std::max<size_t>(place.n_segments, 1)};
}

Softcap softcap_of(double cap, bool log2_units) {
  if (log2_units) return {static_cast<float>(2 / cap), static_cast<float>(cap * kLog2e)};
  return {static_cast<float>(2 * kLog2e / cap), static_cast<float>(cap)};
}

float* CpuKvCache::state(size_t layer, size_t slot) const {
  QUERN_CHECK(slot < shape_.state_slots);
  return reinterpret_cast<float*>(memory_.data() + places_[layer].state_begin + slot * shape_.state_bytes());
}

template <class Part>
void CpuKvCache::for_block(size_t segment, size_t state_slot, Part&& part) const {
  QUERN_CHECK(segment * shape_.segment_keys() < shape_.capacity);
  for (size_t i = 0; i < places_.size(); ++i) {
    const KvLayer& layer = shape_.layers[i];
    if (layer.n_kv_heads == 0) continue;
    const Place& place = places_[i];
    part(memory_.data() + place.begin + segment % place.n_segments * place.segment_stride,
         shape_.segment_bytes(layer), shape_.is_ring(layer) ? &KvBlockParts::rings : &KvBlockParts::whole);
  }
  for (size_t i = 0; i < places_.size(); ++i)
    if (shape_.layers[i].state_floats != 0)
      part(reinterpret_cast<uint8_t*>(state(i, state_slot)), shape_.layers[i].state_floats * sizeof(float),
           &KvBlockParts::states);
}

void CpuKvCache::save(size_t segment, size_t state_slot, std::span<uint8_t> block) const {
  QUERN_CHECK(block.size() == shape_.block_bytes());
  uint8_t* to = block.data();
  for_block(segment, state_slot, [&](const uint8_t* from, uint64_t n_bytes, bool KvBlockParts::*) {
    std::memcpy(to, from, n_bytes);
    to += n_bytes;
  });
}

void CpuKvCache::load(size_t segment, KvBlockParts parts, std::span<const uint8_t> block) {
  QUERN_CHECK(block.size() == shape_.block_bytes());
  const uint8_t* from = block.data();
  for_block(segment, 0, [&](uint8_t* to, uint64_t n_bytes, bool KvBlockParts::*kind) {
    if (parts.*kind) std::memcpy(to, from, n_bytes);
    from += n_bytes;
  });
}

size_t CpuAttention::store_heads(const AttentionShape& shape, size_t layer,
                                 std::span<const SequenceRows> sequences, const CpuHeadSteps& steps, float* q,
                                 float* k, float* v) {
  const size_t n = count_rows(sequences), head_dim = shape.head_dim;
  const size_t q_dim = shape.n_heads * head_dim, kv_dim = shape.n_kv_heads * head_dim;
  const auto rotate = steps.pairs == RopePairs::kHalves ? kernels_.rope_halves : kernels_.rope;
  const auto prepare = [&](float* x, size_t n_heads, const float* norm, size_t row) noexcept {
    for (size_t h = 0; norm != nullptr && h < n_heads; ++h)
      kernels_.rms_norm(x + h * head_dim, norm, head_dim, steps.eps, x + h * head_dim);
    if (steps.rope != nullptr)
      rotate(x, n_heads, head_dim, steps.rotary_dim, steps.rope + row * steps.rotary_dim);
  };
  std::atomic<size_t> first_bad{n};
  pool_.parallel_for(n, kStoreTokens, [&](int, size_t begin, size_t end) noexcept {
    const SequenceRows* sequence = sequences.data();
    for (size_t row = begin; row < end; ++row) {
      while (row >= sequence->row_begin + sequence->n) ++sequence;
      const CpuKvCache& cache = cache_of(*sequence);
      prepare(q + row * q_dim, shape.n_heads, steps.q_norm, row);
      for (size_t i = 0; steps.q_scale != nullptr && i < q_dim; ++i)
        q[row * q_dim + i] = q[row * q_dim + i] * steps.q_scale[row];
      prepare(k + row * kv_dim, shape.n_kv_heads, steps.k_norm, row);
      bool good = true;
      for (size_t h = 0; h < shape.n_kv_heads; ++h) {
        const size_t at = row * kv_dim + h * head_dim;
        if (steps.normalise_v) kernels_.rms_norm(v + at, ones_.data(), head_dim, steps.eps, v + at);
        good &= kernels_.store_kv({k + at, v + at, head_dim, sequence->position + row - sequence->row_begin,
                                   cache.shape().type, cache.head(layer, h)});
      }
      if (good) continue;
      // The smallest row wins, whatever the order of the threads.
      size_t seen = first_bad.load();
      while (row < seen && !first_bad.compare_exchange_weak(seen, row)) {
      }
    }
  });
  return first_bad.load();
}

void CpuAttention::attend(const AttentionShape& shape, size_t layer, std::span<const SequenceRows> sequences,
                          const float* q, float* out, const float* sinks) {
  QUERN_CHECK(shape.n_heads % shape.n_kv_heads == 0);
  if (count_rows(sequences) == 0) return;
  const Cut cut(shape, sequences, pool_.size());
  const ThreadScratch sizes(cut.n_rows, shape.head_dim);
  float* const scratch = scratch_.at_least(sizes.total() * static_cast<size_t>(pool_.size()));
  const size_t q_dim = shape.n_heads * shape.head_dim;

  AttentionArgs shared{};
  shared.q_stride = shared.out_stride = q_dim;
  shared.n_heads = group_heads(shape);
  shared.head_dim = shape.head_dim;
  shared.window = shape.window;
  shared.kappa = static_cast<float>(
      shape.scale != 0 ? kLog2e * shape.scale : kLog2e / std::sqrt(static_cast<double>(shape.head_dim)));
  if (shape.softcap != 0) shared.softcap = softcap_of(shape.softcap, /*log2_units=*/true);

  // Groups of rows: (KV head, block), blocks fastest, so that threads stay with one head's cache.
  const auto block_of = [&](size_t group) -> const Block& { return cut.blocks[group % cut.blocks.size()]; };
  const auto args_of = [&](size_t group, int thread) {
    const Block& block = block_of(group);
    const CpuKvCache& cache = cache_of(*block.sequence);
    const size_t head = group / cut.blocks.size();
    const size_t at = (block.sequence->row_begin + block.t) * q_dim + head * shared.n_heads * shape.head_dim;
    AttentionArgs args = shared;
    args.n_tokens = block.n;
    args.type = cache.shape().type;
    args.cache = cache.head(layer, head);
    args.position = block.sequence->position + block.t;
    args.q = q + at;
    args.out = out + at;
    if (sinks != nullptr) args.sinks = sinks + head * shared.n_heads;
    args.scratch = scratch + sizes.total() * static_cast<size_t>(thread);
    return args;
  };

  if (!cut.by_segment) {
    pool_.parallel_for(cut.n_groups, 1, [&](int thread, size_t begin, size_t end) noexcept {
      for (size_t group = begin; group < end; ++group) {
        const AttentionArgs args = args_of(group, thread);
        const Block& block = block_of(group);
        float *const part = args.scratch + sizes.kernel, *const total = part + sizes.part;
        for (size_t i = 0; i < block.n_segments; ++i) {
          kernels_.attend_segment(args, block.first_segment + i, part);
          kernels_.merge_segment(args, block.first_segment + i, part, total);
        }
      }
    });
    return;
  }

  // Few rows: segments on their own, each into a part of its own. Who finishes a group's last one merges
  // them.
  const std::vector<SegmentItem> items = segment_items(cut);
  float* const parts = parts_.at_least(cut.n_parts * cut.part_floats);
  uint32_t* const left = left_.at_least(cut.n_groups);
  for (size_t group = 0; group < cut.n_groups; ++group)
    left[group] = static_cast<uint32_t>(block_of(group).n_segments);
  pool_.parallel_for(items.size(), 1, [&](int thread, size_t begin, size_t end) noexcept {
    for (size_t i = begin; i < end; ++i) {
      const SegmentItem& item = items[i];
      const AttentionArgs args = args_of(item.group, thread);
      const Block& block = block_of(item.group);
      kernels_.attend_segment(args, block.first_segment + item.index, parts + item.part * cut.part_floats);
      if (std::atomic_ref(left[item.group]).fetch_sub(1, std::memory_order_acq_rel) != 1) continue;
      float* const total = args.scratch + sizes.kernel + sizes.part;
      const float* const group_parts = parts + (item.part - item.index) * cut.part_floats;
      for (size_t index = 0; index < block.n_segments; ++index)
        kernels_.merge_segment(args, block.first_segment + index, group_parts + index * cut.part_floats,
                               total);
    }
  });
}

uint64_t CpuAttention::scratch_bytes(const AttentionShape& shape, size_t capacity, size_t max_rows,
                                     int n_threads) {
  const size_t n_rows = rows_of_block(shape, max_rows);
  const uint64_t threads = static_cast<uint64_t>(n_threads) * ThreadScratch(n_rows, shape.head_dim).total();
  const uint64_t n_segments = (capacity + kAttentionSegment - 1) / kAttentionSegment;
  const uint64_t parts = kItemsPerThread * static_cast<uint64_t>(n_threads) * n_segments *
                         whole_lines(attention_part_floats(n_rows, shape.head_dim)) * sizeof(float);
  return threads * sizeof(float) + (n_segments > 1 ? std::min(parts, kMaxPartBytes) : 0);
}

}  // namespace quern
