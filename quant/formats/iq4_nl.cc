// IQ4_NL: 32 weights in 18 bytes. weight = d * kIq4Values[code], code 0..15: steps that are not equal.
//
//   byte 0      2                                          18
//        | d    | qs[16]: code j (low), code j + 16 (high)  |
//          f16
#include "quant/formats/super_block.h"

namespace quern::formats::iq4_nl {
namespace {

constexpr size_t kD = 0, kQs = 2;  // byte offsets

// Sub-blocks of 32: weights of the error, without importance the squares.
void encode_eight(const float* x, const float* importance, size_t n, uint8_t* blocks) {
  float weight[kSearchLanes * kWeights], scale[kSearchLanes];
  if (importance == nullptr) {
    weigh_by_square(x, kSearchLanes * kWeights, weight);
  } else {
    for (size_t s = 0; s < kSearchLanes; ++s) {
      const float* sub = x + kWeights * s;
      weigh_by_importance(sub, importance + kWeights * s, sum_of_squares(sub, kWeights) * (2.0f / 32.0f),
                          kWeights, weight + kWeights * s);
    }
  }
  searches().iq4(x, weight, scale);
  for (size_t s = 0; s < n; ++s) {
    uint8_t code[kWeights];
    searches().code_iq4(x + kWeights * s, kWeights, scale[s] != 0 ? 1 / scale[s] : 0.0f, code);
    store_f16(scale[s], blocks + kBytes * s + kD);
    store_nibbles(code, blocks + kBytes * s + kQs);
  }
}

}  // namespace

void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  encode_by_eight<kBytes>(x, nullptr, n_blocks, blocks, encode_eight);
}

void encode_weighted(const float* x, const float* importance, float, size_t n_blocks,
                     uint8_t* blocks) noexcept {
  encode_by_eight<kBytes>(x, importance, n_blocks, blocks, encode_eight);
}

void pack(const BlockParts& parts, uint8_t* block) noexcept {
  store_f16(parts.d, block + kD);
  store_nibbles(parts.code, block + kQs);
}

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group * kBytes;
  uint8_t code[kGroup];
  load_nibbles(block + kQs, code);
  for (size_t k = 0; k < kGroup; ++k) out->code[k] = kIq4Values[code[k]];
  set_plain(load_f16(block + kD), out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::iq4_nl
