#include "kernels/device.h"

#include <algorithm>
#include <limits>

#include "quant/checked_math.h"

namespace quern {

// A shape that overflows asks for more than any machine has: the largest number says so.
static constexpr uint64_t kTooMany = std::numeric_limits<uint64_t>::max();

uint64_t KvShape::segment_keys() const {
  const uint64_t keys = std::min<uint64_t>(capacity, kAttentionSegment);
  return (keys + kAttentionTile - 1) / kAttentionTile * kAttentionTile;
}

uint64_t KvShape::segments_of(const KvLayer& layer) const {
  if (capacity == 0 || layer.n_kv_heads == 0) return 0;
  const uint64_t all = (capacity - 1) / segment_keys() + 1;
  if (layer.kept == 0) return all;
  // So many positions, wherever they end, lie in no more segments than these.
  return std::min<uint64_t>(all, (layer.kept + kAttentionSegment - 2) / kAttentionSegment + 1);
}

uint64_t KvShape::segment_bytes(const KvLayer& layer) const {
  uint64_t bytes = 2 * segment_keys();
  for (const uint64_t factor : {kv_row_bytes(type, layer.head_dim), uint64_t{layer.n_kv_heads}})
    if (!checked_mul(bytes, factor, &bytes)) return kTooMany;
  return bytes;
}

uint64_t KvShape::state_bytes() const {
  uint64_t floats = 0;
  for (const KvLayer& layer : layers)
    if (!checked_add(floats, layer.state_floats, &floats)) return kTooMany;
  return checked_mul(floats, sizeof(float), &floats) ? floats : kTooMany;
}

uint64_t KvShape::bytes() const {
  uint64_t sum = state_bytes();
  if (!checked_mul(sum, state_slots, &sum)) return kTooMany;
  for (const KvLayer& layer : layers) {
    uint64_t bytes = 0;
    if (!checked_mul(segment_bytes(layer), segments_of(layer), &bytes) || !checked_add(sum, bytes, &sum))
      return kTooMany;
  }
  return sum;
}

uint64_t KvShape::block_bytes() const {
  uint64_t sum = state_bytes();
  for (const KvLayer& layer : layers)
    if (layer.n_kv_heads != 0 && !checked_add(sum, segment_bytes(layer), &sum)) return kTooMany;
  return sum;
}

void DeviceTimes::count_attention(const AttentionShape& shape, KvType type, size_t position,
                                  size_t n) noexcept {
  if (n == 0) return;
  const uint64_t key_bytes = 2 * shape.n_kv_heads * kv_row_bytes(type, shape.head_dim);  // K and V
  attention_kv_bytes += (position + n - first_visible_key(position, shape.window)) * key_bytes;
  uint64_t pairs = 0;  // of a query and a key, per head
  for (size_t p = position; p < position + n; ++p) pairs += p + 1 - first_visible_key(p, shape.window);
  attention_macs += pairs * shape.n_heads * 2 * shape.head_dim;
}

}  // namespace quern
