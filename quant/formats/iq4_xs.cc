// IQ4_XS: 256 weights in 136 bytes, 8 sub-blocks of 32. weight = d * (scale - 32) * kIq4Values[code].
//
//   byte 0      2                       4                           8                                    136
//        | d    | scales_h: bits 4, 5   | scales_l[4]: low four     | qs[128], 16 bytes a sub-block:      |
//          f16    of scale i are bits     bits, scale 2i in the       code j (low), code j + 16 (high)
//                 2i, 2i + 1 of the u16   low, 2i + 1 in the high
//                                         nibble of byte i
#include "quant/formats/formats.h"

namespace quern::formats::iq4_xs {
namespace {

constexpr size_t kD = 0, kScalesHigh = 2, kScalesLow = 4, kQs = 8;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

int load_scale(const uint8_t* block, size_t i) {
  const int low = (block[kScalesLow + i / 2] >> (4 * (i % 2))) & 15;
  const int high = (load_u16(block + kScalesHigh) >> (2 * i)) & 3;
  return (low | high << 4) - 32;
}

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  uint8_t code[kGroup];
  load_nibbles(block + kQs + 16 * g, code);
  for (size_t k = 0; k < kGroup; ++k) out->code[k] = kIq4Values[code[k]];
  set_plain(load_f16(block + kD) * static_cast<float>(load_scale(block, g)), out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::iq4_xs
