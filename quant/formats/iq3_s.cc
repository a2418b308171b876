// IQ3_S: 256 weights in 110 bytes. weight = d * (2 * scale + 1) * sign * grid value.
//
//   byte 0      2              66                 74               106            110
//        | d    | qs[64]: low  | qh[8]: the ninth  | signs[32]: a  | scales[4]:   |
//          f16    eight bits     bit of each of a    bit a weight    a nibble a
//                 of an index    group's eight                       group
//                 (4 weights)
#include "quant/formats/codebooks.h"
#include "quant/formats/formats.h"
#include "quant/formats/grid_iq3_s.h"

namespace quern::formats::iq3_s {
namespace {

constexpr size_t kD = 0, kQs = 2, kQh = 66, kSigns = 74, kScales = 106;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  for (size_t i = 0; i < 8; ++i) {
    const size_t index = block[kQs + 8 * g + i] | (block[kQh + g] >> i & 1u) << 8;
    expand_nibbles(kIq3SGrid[index], kIq3SValues, out->code + 4 * i);
  }
  for (size_t i = 0; i < 4; ++i) apply_signs(block[kSigns + 4 * g + i], out->code + 8 * i);
  const int scale = block[kScales + g / 2] >> 4 * (g % 2) & 15;
  set_plain(load_f16(block + kD) * static_cast<float>(2 * scale + 1), out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::iq3_s
