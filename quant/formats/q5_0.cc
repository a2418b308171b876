// Q5_0: 32 weights in 22 bytes. weight = (code - 16) * d, code 0..31.
//
//   byte 0      2                      6                                          22
//        | d    | qh: bit 4 of code e  | qs[16]: code j (low), code j + 16 (high)  |
//          f16    is bit e of the u32    their low four bits
#include "quant/formats/super_block.h"

namespace quern::formats::q5_0 {
namespace {

constexpr size_t kD = 0, kQh = 2, kQs = 6;  // byte offsets

void encode_block(const float* x, uint8_t* block) {
  const float d = first_of_largest_magnitude<kWeights>(x) / -16.0f;
  store_f16(d, block + kD);
  uint8_t code[kWeights] = {};
  if (float inverse; inverse_scale(d, &inverse)) {
    for (size_t k = 0; k < kWeights; ++k) {
      const float shifted = x[k] * inverse + 16.5f;  // 0.5 .. 32.5
      code[k] = static_cast<uint8_t>(static_cast<int>(shifted > 31.0f ? 31.0f : shifted));
    }
  }
  store_fifth_bits(code, block + kQh);
  store_nibbles(code, block + kQs);
}

}  // namespace

void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  for (size_t b = 0; b < n_blocks; ++b) encode_block(x + b * kWeights, blocks + b * kBytes);
}

void encode_weighted(const float* x, const float* importance, float mean_square, size_t n_blocks,
                     uint8_t* blocks) noexcept {
  encode_symmetric_weighted<kBytes, 16>(x, importance, mean_square, n_blocks, blocks,
                                        [](float scale, const uint8_t* code, uint8_t* block) {
                                          store_f16(scale, block + kD);
                                          store_fifth_bits(code, block + kQh);
                                          store_nibbles(code, block + kQs);
                                        });
}

void pack(const BlockParts& parts, uint8_t* block) noexcept {
  store_f16(parts.d, block + kD);
  store_fifth_bits(parts.code, block + kQh);
  store_nibbles(parts.code, block + kQs);
}

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group * kBytes;
  uint8_t code[kGroup];
  load_nibbles(block + kQs, code);
  load_fifth_bits(block + kQh, code);
  subtract_offset(code, 16, out->code);
  set_plain(load_f16(block + kD), out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::q5_0
