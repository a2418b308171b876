// IQ2_S: 256 weights in 82 bytes, 16 sub-blocks of 16. weight = d / 8 * (2 * scale + 1) * sign * grid value.
//
//   byte 0      2             34               66              74             82
//        | d    | qs[32]:     | signs[32]: a   | qh[8]: two    | scales[8]:   |
//          f16    low eight     bit a weight     bits above      a nibble a
//                 bits of an                     each of a       sub-block
//                 index                          group's four
#include "quant/formats/codebooks.h"
#include "quant/formats/formats.h"
#include "quant/formats/grid_iq2_s.h"

namespace quern::formats::iq2_s {
namespace {

constexpr size_t kD = 0, kQs = 2, kSigns = 34, kQh = 66, kScales = 74;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  for (size_t i = 0; i < 4; ++i) {
    const size_t index = block[kQs + 4 * g + i] | (block[kQh + g] >> 2 * i & 3u) << 8;
    expand_pairs(kIq2SGrid[index], kIq2Values, out->code + 8 * i);
    apply_signs(block[kSigns + 4 * g + i], out->code + 8 * i);
  }
  set_plain(load_f16(block + kD) * 0.125f, out);
  out->scale[0] = 2 * (block[kScales + g] & 15) + 1;
  out->scale[1] = 2 * (block[kScales + g] >> 4) + 1;
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::iq2_s
