// IQ4_XS: 256 weights in 136 bytes, 8 sub-blocks of 32. weight = d * (scale - 32) * kIq4Values[code].
//
//   byte 0      2                       4                           8                                    136
//        | d    | scales_h: bits 4, 5   | scales_l[4]: low four     | qs[128], 16 bytes a sub-block:      |
//          f16    of scale i are bits     bits, scale 2i in the       code j (low), code j + 16 (high)
//                 2i, 2i + 1 of the u16   low, 2i + 1 in the high
//                                         nibble of byte i
#include "quant/formats/super_block.h"

namespace quern::formats::iq4_xs {
namespace {

constexpr size_t kD = 0, kScalesHigh = 2, kScalesLow = 4, kQs = 8;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

int load_scale(const uint8_t* block, size_t i) {
  const int low = (block[kScalesLow + i / 2] >> (4 * (i % 2))) & 15;
  const int high = (load_u16(block + kScalesHigh) >> (2 * i)) & 3;
  return (low | high << 4) - 32;
}

void encode_block(const float* x, const float* importance, uint8_t* block) {
  float weight[kWeights], scale[kGroups], largest = 0;
  if (importance != nullptr)
    weigh_by_importance(x, importance, sum_of_squares(x, kWeights) * (2.0f / 256.0f), kWeights, weight);
  else
    weigh_by_square(x, kWeights, weight);
  searches().iq4(x, weight, scale);
  for (const float s : scale)
    if (std::fabs(s) > std::fabs(largest)) largest = s;

  const float d = -largest / 32.0f, inverse = d != 0 ? 1 / d : 0.0f;
  // Squares of weights beyond 1e12 overflow: see Q6_K.
  store_f16(all_finite(scale, kGroups) ? d : NAN, block + kD);
  std::memset(block + kScalesLow, 0, 4);
  uint32_t high = 0;
  for (size_t i = 0; i < kGroups; ++i) {
    const int l = std::clamp(nearest_int(inverse * scale[i]), -32, 31);
    const auto stored = static_cast<uint32_t>(l + 32);
    const float step = d * static_cast<float>(l);
    uint8_t code[kGroup];
    searches().code_iq4(x + kGroup * i, kGroup, step != 0 ? 1 / step : 0.0f, code);
    store_nibbles(code, block + kQs + 16 * i);
    uint8_t& low = block[kScalesLow + i / 2];
    low = static_cast<uint8_t>(low | (stored & 15) << (4 * (i % 2)));
    high |= (stored >> 4) << (2 * i);
  }
  const auto high_bits = static_cast<uint16_t>(high);
  std::memcpy(block + kScalesHigh, &high_bits, sizeof high_bits);
}

}  // namespace

void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  encode_blocks<kWeights, kBytes>(x, nullptr, n_blocks, blocks, encode_block);
}

void encode_weighted(const float* x, const float* importance, float, size_t n_blocks,
                     uint8_t* blocks) noexcept {
  encode_blocks<kWeights, kBytes>(x, importance, n_blocks, blocks, encode_block);
}

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
