// Q8_0: 32 weights in 34 bytes. weight = code * d, code -127..127.
//
//   byte 0      2                34
//        | d    | int8 code[32]   |
//          f16
#include "quant/formats/formats.h"

namespace quern::formats::q8_0 {
namespace {

constexpr size_t kD = 0, kQs = 2;  // byte offsets

// Nearest integer, ties away from zero, of |x| < 2^22. The addend is the float below 0.5: with 0.5 itself,
// 0.49999997 would round up to 1 in the addition. A tie still reaches the next integer, because x + addend
// then lies half a unit in the last place below it and rounds to it.
Int4 round_half_away(Float4 x) {
  const Int4 sign = reinterpret_cast<Int4>(x) & INT32_MIN;
  return truncate4(x + reinterpret_cast<Float4>(sign | reinterpret_cast<Int4>(Float4{} + 0x1.fffffep-2f)));
}

void encode_block(const float* x, uint8_t* block) {
  const float d = std::fabs(first_of_largest_magnitude<kWeights>(x)) / 127.0f;
  store_f16(d, block + kD);
  float inverse;
  const bool usable = inverse_scale(d, &inverse);
  for (size_t half = 0; half < kWeights; half += 16) {
    Int4 codes[4] = {};
    for (size_t i = 0; i < 4 && usable; ++i) codes[i] = round_half_away(load4(x + half + 4 * i) * inverse);
    store_low_bytes(codes, block + kQs + half);
  }
}

}  // namespace

void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  for (size_t b = 0; b < n_blocks; ++b) encode_block(x + b * kWeights, blocks + b * kBytes);
}

void pack(const BlockParts& parts, uint8_t* block) noexcept {
  store_f16(parts.d, block + kD);
  std::memcpy(block + kQs, parts.code, kWeights);
}

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group * kBytes;
  std::memcpy(out->code, block + kQs, sizeof out->code);
  set_plain(load_f16(block + kD), out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::q8_0
