#include "convert/tensor_transforms.h"

#include "quant/error.h"

namespace quern {

std::vector<uint64_t> interleaved_row_map(uint32_t n_heads, uint32_t head_dim) {
  QUERN_CHECK(head_dim % 2 == 0);
  const uint64_t half = head_dim / 2;
  std::vector<uint64_t> map;
  map.reserve(uint64_t{n_heads} * head_dim);
  for (uint64_t head = 0; head < n_heads; ++head) {
    const uint64_t first = head * head_dim;
    for (uint64_t pair = 0; pair < half; ++pair) {
      map.push_back(first + pair);
      map.push_back(first + half + pair);
    }
  }
  return map;
}

}  // namespace quern
