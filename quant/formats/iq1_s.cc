// IQ1_S: 256 weights in 50 bytes. weight = d * (2 * scale + 1) * (grid value + shift), grid values -1, 0, 1.
//
//   byte 0      2                          34                                           50
//        | d    | qs[32]: low eight bits   | a u16 a group of 32: four times three      |
//          f16    of an index (8 weights)    bits above them, three bits of scale; the
//                                            highest: shift is -1/8, not 1/8
#include "quant/formats/codebooks.h"
#include "quant/formats/formats.h"
#include "quant/formats/grid_iq1.h"

namespace quern::formats::iq1_s {
namespace {

constexpr size_t kD = 0, kQs = 2, kQh = 34;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  const uint32_t qh = load_u16(block + kQh + 2 * g);
  for (size_t i = 0; i < 4; ++i)
    expand_shifted(kIq1Grid[block[kQs + 4 * g + i] | (qh >> 3 * i & 7) << 8], (qh & 0x8000) != 0 ? -1 : 1,
                   out->code + 8 * i);
  set_plain(load_f16(block + kD) * static_cast<float>(2 * (qh >> 12 & 7) + 1) * 0.125f, out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::iq1_s
