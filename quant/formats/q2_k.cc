// Q2_K: 256 weights in 84 bytes, 16 sub-blocks of 16. weight = d * scale * code - dmin * min, code 0..3.
//
//   byte 0                                 16                             80     82      84
//        | scales[16], one a sub-block:    | qs[64]: group g of 32 has    | d    | dmin  |
//          scale (low), min (high nibble)    bits 2*(g%4), +1 of the        f16    f16
//                                            bytes 32*(g/4) .. + 31
#include "quant/formats/formats.h"

namespace quern::formats::q2_k {
namespace {

constexpr size_t kScales = 0, kQs = 16, kD = 80, kDmin = 82;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  const uint8_t* qs = block + kQs + 32 * (g / 4);
  for (size_t k = 0; k < kGroup; ++k) out->code[k] = static_cast<int8_t>((qs[k] >> (2 * (g % 4))) & 3);
  for (size_t half = 0; half < 2; ++half) {
    const uint8_t packed = block[kScales + 2 * g + half];
    out->scale[half] = packed & 15;
    out->min[half] = packed >> 4;
  }
  out->d = load_f16(block + kD);
  out->has_min = true;
  out->mu = -load_f16(block + kDmin);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD, kDmin>(blocks, n_blocks);
}

}  // namespace quern::formats::q2_k
