// Q3_K: 256 weights in 110 bytes, 16 sub-blocks of 16. weight = d * (scale - 32) * code, code -4..3.
//
//   byte 0                           32                             96            108    110
//        | hmask[32]: bit g of       | qs[64]: group g of 32 has    | S[12]: six  | d    |
//          byte k belongs to weight    bits 2*(g%4), +1 of the        bits a        f16
//          k of group g                bytes 32*(g/4) .. + 31         scale
//
// code = low two bits - (mask bit ? 0 : 4). Scale j: its low four bits are a nibble of S[j%8] (low for
// j < 8), its high two are bits 2*(j/4), +1 of S[8 + j%4].
#include "quant/formats/formats.h"

namespace quern::formats::q3_k {
namespace {

constexpr size_t kHmask = 0, kQs = 32, kScales = 96, kD = 108;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

int load_scale(const uint8_t* s, size_t j) {
  const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
  const int high = (s[8 + j % 4] >> (2 * (j / 4))) & 3;
  return (low | high << 4) - 32;
}

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  const uint8_t* qs = block + kQs + 32 * (g / 4);
  const uint8_t* hmask = block + kHmask;
  for (size_t k = 0; k < kGroup; ++k) {
    const int low = (qs[k] >> (2 * (g % 4))) & 3;
    const int high = (hmask[k] >> g) & 1;
    out->code[k] = static_cast<int8_t>(low + 4 * high - 4);
  }
  set_plain(load_f16(block + kD), out);
  for (size_t half = 0; half < 2; ++half) out->scale[half] = load_scale(block + kScales, 2 * g + half);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::q3_k
