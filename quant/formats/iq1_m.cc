// IQ1_M: 256 weights in 56 bytes, 16 sub-blocks of 16. weight = d * (2 * scale + 1) * (grid value + shift).
//
//   byte 0               32                                  48                            56
//        | qs[32]: low   | qh[16]: a nibble an index, three  | 4 x u16: three bits a     |
//          eight bits      bits above it; the fourth: shift    sub-block's scale; their
//          of an index     is -1/8, not 1/8                    highest nibbles are d
#include "quant/formats/codebooks.h"
#include "quant/formats/formats.h"
#include "quant/formats/grid_iq1.h"

namespace quern::formats::iq1_m {
namespace {

constexpr size_t kQs = 0, kQh = 32, kScales = 48;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

uint16_t d_bits(const uint8_t* block) {
  uint32_t bits = 0;
  for (size_t i = 0; i < 4; ++i)
    bits |= static_cast<uint32_t>(load_u16(block + kScales + 2 * i) >> 12) << 4 * i;
  return static_cast<uint16_t>(bits);
}

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  for (size_t i = 0; i < 4; ++i) {
    const uint32_t high = static_cast<uint32_t>(block[kQh + 2 * g + i / 2]) >> 4 * (i % 2) & 15;
    expand_shifted(kIq1Grid[block[kQs + 4 * g + i] | (high & 7) << 8], (high & 8) != 0 ? -1 : 1,
                   out->code + 8 * i);
  }
  set_plain(f32_from_f16(d_bits(block)) * 0.125f, out);
  for (size_t half = 0; half < 2; ++half) {
    const size_t sub = 2 * g + half;
    out->scale[half] = 2 * (load_u16(block + kScales + 2 * (sub / 4)) >> 3 * (sub % 4) & 7) + 1;
  }
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  for (size_t b = 0; b < n_blocks; ++b)
    if ((d_bits(blocks + b * kBytes) & 0x7c00) == 0x7c00) return b;
  return n_blocks;
}

}  // namespace quern::formats::iq1_m
