// IQ3_XXS: 256 weights in 98 bytes. weight = d * (2 * scale + 1) / 4 * sign * grid value.
//
//   byte 0      2                            66                                            98
//        | d    | qs[64]: an index into the  | a u32 a group of 32: four times seven      |
//          f16    grid, of four weights        bits of signs, scale in the highest four
#include "quant/formats/codebooks.h"
#include "quant/formats/formats.h"
#include "quant/formats/grid_iq3_xxs.h"

namespace quern::formats::iq3_xxs {
namespace {

constexpr size_t kD = 0, kQs = 2, kSigns = 66;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  const uint32_t rest = load_u32(block + kSigns + 4 * g);
  for (size_t i = 0; i < 8; ++i)
    expand_nibbles(kIq3XxsGrid[block[kQs + 8 * g + i]], kIq3XxsValues, out->code + 4 * i);
  for (size_t i = 0; i < 4; ++i) apply_signs(even_signs(rest >> 7 * i & 127), out->code + 8 * i);
  set_plain(load_f16(block + kD) * static_cast<float>(2 * (rest >> 28) + 1) * 0.25f, out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::iq3_xxs
