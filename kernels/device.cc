#include "kernels/device.h"

#include <algorithm>
#include <limits>

#include "quant/checked_math.h"

namespace quern {

uint64_t KvShape::segment_keys() const {
  const uint64_t keys = std::min<uint64_t>(capacity, kAttentionSegment);
  return (keys + kAttentionTile - 1) / kAttentionTile * kAttentionTile;
}

uint64_t KvShape::bytes() const {
  // A shape that overflows asks for more than any machine has: the largest number says so.
  constexpr uint64_t kTooMany = std::numeric_limits<uint64_t>::max();
  if (capacity == 0) return 0;
  uint64_t bytes = (capacity - 1) / segment_keys() + 1;
  for (const uint64_t factor :
       {segment_keys(), uint64_t{2}, kv_row_bytes(type, head_dim), uint64_t{n_kv_heads}, uint64_t{n_layers}})
    if (!checked_mul(bytes, factor, &bytes)) return kTooMany;
  return bytes;
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
