// MXFP4: 32 weights in 17 bytes. weight = d * kMxfp4Values[code], code 0..15.
//
//   byte 0      1                                          17
//        | e    | qs[16]: code j (low), code j + 16 (high)  |
//          u8
//
// e is a power of two (OCP E8M0) for E2M1 values; the table holds twice those, so d = 2^(e - 128). e = 255 is
// NaN.
#include <algorithm>
#include <limits>

#include "quant/formats/formats.h"

namespace quern::formats::mxfp4 {
namespace {

constexpr size_t kE = 0, kQs = 1;  // byte offsets

float power(uint8_t e) {
  if (e == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1u) << 23);
}

// The exponent that makes the largest weight at least 4 units and less than 8, of which E2M1 holds 6.
uint8_t choose_power(const float* x) {
  float largest = 0;
  for (size_t k = 0; k < kWeights; ++k) largest = std::max(largest, std::fabs(x[k]));
  if (!(largest > 0)) return 0;
  return static_cast<uint8_t>(static_cast<int>(std::floor(std::log2(largest))) - 2 + 127);
}

Float4 magnitude4(Float4 x) { return std::bit_cast<Float4>(std::bit_cast<Int4>(x) & 0x7fffffff); }

void encode_block(const float* x, uint8_t* block) {
  block[kE] = choose_power(x);
  const float d = power(block[kE]);
  // The nearest value, of two equally near the smaller one. Weights that are not negative first: the values
  // of one sign grow with their codes.
  Float4 error[kWeights / 4];
  Int4 codes[kWeights / 4] = {};
  for (size_t i = 0; i < kWeights / 4; ++i) error[i] = magnitude4(load4(x + 4 * i));
  for (int c = 1; c < 8; ++c) {
    const Float4 value = Float4{} + static_cast<float>(kMxfp4Values[c]) * d;
    for (size_t i = 0; i < kWeights / 4; ++i) {
      const Float4 here = magnitude4(value - magnitude4(load4(x + 4 * i)));
      const Int4 nearer = here < error[i];
      error[i] = min4(here, error[i]);
      codes[i] = (codes[i] & ~nearer) | (nearer & c);
    }
  }
  uint8_t code[kWeights];
  for (size_t k = 0; k < kWeights; ++k) {
    const auto magnitude = static_cast<uint8_t>(codes[k / 4][k % 4]);
    code[k] = static_cast<uint8_t>(magnitude | (magnitude != 0 && x[k] < 0 ? 8 : 0));
  }
  store_nibbles(code, block + kQs);
}

}  // namespace

void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  for (size_t b = 0; b < n_blocks; ++b) encode_block(x + b * kWeights, blocks + b * kBytes);
}

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group * kBytes;
  uint8_t code[kGroup];
  load_nibbles(block + kQs, code);
  for (size_t k = 0; k < kGroup; ++k) out->code[k] = kMxfp4Values[code[k]];
  set_plain(power(block[kE]), out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  for (size_t b = 0; b < n_blocks; ++b, blocks += kBytes) {
    if (blocks[kE] < 253) continue;  // 12 * 2^124 is finite
    float weights[kGroup];
    decode(blocks, 1, weights);
    for (const float w : weights)
      if (!std::isfinite(w)) return b;
  }
  return n_blocks;
}

}  // namespace quern::formats::mxfp4
