// Q4_0: 32 weights in 18 bytes. weight = (code - 8) * d, code 0..15.
//
//   byte 0      2                                          18
//        | d    | qs[16]: code j (low), code j + 16 (high)  |
//          f16
#include "quant/formats/super_block.h"

namespace quern::formats::q4_0 {
namespace {

constexpr size_t kD = 0, kQs = 2;  // byte offsets

void encode_block(const float* x, uint8_t* block) {
  // The largest weight gets code 0, the one end of the range that reaches 8 steps: hence -8.
  const float d = first_of_largest_magnitude<kWeights>(x) / -8.0f;
  store_f16(d, block + kD);
  Int4 codes[4] = {};  // low nibble: weight j, high nibble: weight j + 16
  if (float inverse; inverse_scale(d, &inverse)) {
    const auto code = [&](size_t k) {
      const Float4 shifted = load4(x + k) * inverse + 8.5f;  // 0.5 .. 16.5
      return truncate4(min4(shifted, Float4{} + 15.0f));
    };
    for (size_t i = 0; i < 4; ++i) codes[i] = code(4 * i) | code(4 * i + 16) << 4;
  }
  store_low_bytes(codes, block + kQs);
}

}  // namespace

void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  for (size_t b = 0; b < n_blocks; ++b) encode_block(x + b * kWeights, blocks + b * kBytes);
}

void encode_weighted(const float* x, const float* importance, float mean_square, size_t n_blocks,
                     uint8_t* blocks) noexcept {
  encode_symmetric_weighted<kBytes, 8>(x, importance, mean_square, n_blocks, blocks,
                                       [](float scale, const uint8_t* code, uint8_t* block) {
                                         store_f16(scale, block + kD);
                                         store_nibbles(code, block + kQs);
                                       });
}

void pack(const BlockParts& parts, uint8_t* block) noexcept {
  store_f16(parts.d, block + kD);
  store_nibbles(parts.code, block + kQs);
}

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group * kBytes;
  uint8_t code[kGroup];
  load_nibbles(block + kQs, code);
  subtract_offset(code, 8, out->code);
  set_plain(load_f16(block + kD), out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::q4_0
