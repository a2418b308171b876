// IQ4_NL: 32 weights in 18 bytes. weight = d * kIq4Values[code], code 0..15: steps that are not equal.
//
//   byte 0      2                                          18
//        | d    | qs[16]: code j (low), code j + 16 (high)  |
//          f16
#include "quant/formats/formats.h"

namespace quern::formats::iq4_nl {
namespace {

constexpr size_t kD = 0, kQs = 2;  // byte offsets

}  // namespace

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
