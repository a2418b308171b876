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

}  // namespace quern
