// IQ2_XS: 256 weights in 74 bytes, 16 sub-blocks of 16. weight = d / 8 * (2 * scale + 1) * sign * grid value.
//
//   byte 0      2                                                66             74
//        | d    | 32 x u16, 8 weights each: nine bits of index,   | scales[8]:   |
//          f16    seven bits of signs                               a nibble a
//                                                                   sub-block
#include "quant/formats/codebooks.h"
#include "quant/formats/formats.h"
#include "quant/formats/grid_iq2_xs.h"

namespace quern::formats::iq2_xs {
namespace {

constexpr size_t kD = 0, kQs = 2, kScales = 66;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  for (size_t i = 0; i < 4; ++i) {
    const uint16_t q = load_u16(block + kQs + 8 * g + 2 * i);
    expand_pairs(kIq2XsGrid[q & 511], kIq2Values, out->code + 8 * i);
    apply_signs(even_signs(q >> 9), out->code + 8 * i);
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

}  // namespace quern::formats::iq2_xs
