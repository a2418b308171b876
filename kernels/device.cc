#include "kernels/device.h"

#include <limits>

#include "quant/checked_math.h"

namespace quern {

uint64_t KvShape::bytes() const {
  // A shape that overflows asks for more than any machine has: the largest number says so.
  constexpr uint64_t kTooMany = std::numeric_limits<uint64_t>::max();
  uint64_t bytes;
  if (!checked_align(capacity, kAttentionTile, &bytes)) return kTooMany;
  const uint64_t element_bytes = type == KvType::kF16 ? 2 : 4;
  for (const uint64_t factor :
       {uint64_t{2}, element_bytes, uint64_t{head_dim}, uint64_t{n_kv_heads}, uint64_t{n_layers}})
    if (!checked_mul(bytes, factor, &bytes)) return kTooMany;
  return bytes;
}

void DeviceTimes::count_attention(const AttentionShape& shape, KvType type, size_t position,
                                  size_t n) noexcept {
  if (n == 0) return;
  const auto first_key = [&](size_t p) {
    return shape.window != 0 && p >= shape.window ? p - shape.window + 1 : size_t{0};
  };
  // A whole tile has no rounding.
  const uint64_t tile_bytes = KvShape{1, shape.n_kv_heads, shape.head_dim, kAttentionTile, type}.bytes();
  attention_kv_bytes += (position + n - first_key(position)) * tile_bytes / kAttentionTile;
  uint64_t pairs = 0;  // of a query and a key, per head
  for (size_t p = position; p < position + n; ++p) pairs += p + 1 - first_key(p);
  attention_macs += pairs * shape.n_heads * 2 * shape.head_dim;
}

}  // namespace quern
