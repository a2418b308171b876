// IQ2_XXS: 256 weights in 66 bytes. weight = d * (2 * scale + 1) / 8 * sign * grid value.
//
//   byte 0      2                                                                    66
//        | d    | 8 bytes a group of 32: four indices into the grid, of 8 weights   |
//          f16    each, then a u32: four times seven bits of signs, scale in the
//                 highest four
#include "quant/formats/codebooks.h"
#include "quant/formats/formats.h"
#include "quant/formats/grid_iq2_xxs.h"

namespace quern::formats::iq2_xxs {
namespace {

constexpr size_t kD = 0, kGroupsAt = 2;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  const uint8_t* at = block + kGroupsAt + 8 * g;
  const uint32_t rest = load_u32(at + 4);
  for (size_t i = 0; i < 4; ++i) {
    expand_pairs(kIq2XxsGrid[at[i]], kIq2Values, out->code + 8 * i);
    apply_signs(even_signs(rest >> 7 * i & 127), out->code + 8 * i);
  }
  set_plain(load_f16(block + kD) * static_cast<float>(2 * (rest >> 28) + 1) * 0.125f, out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::iq2_xxs
