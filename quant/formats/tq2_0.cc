// TQ2_0: 256 weights in 66 bytes. weight = d * (code - 1), code 0..3.
//
//   byte 0                                       64     66
//        | qs[64]: group g of 32 has bits        | d    |
//          2*(g%4), +1 of bytes 32*(g/4) .. + 31   f16
#include "quant/formats/formats.h"

namespace quern::formats::tq2_0 {
namespace {

constexpr size_t kQs = 0, kD = 64;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  const uint8_t* qs = block + kQs + 32 * (g / 4);
  for (size_t k = 0; k < kGroup; ++k) out->code[k] = static_cast<int8_t>((qs[k] >> 2 * (g % 4) & 3) - 1);
  set_plain(load_f16(block + kD), out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::tq2_0
