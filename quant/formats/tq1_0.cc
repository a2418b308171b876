// TQ1_0: 256 weights in 54 bytes. weight = d * (digit - 1), digits of base 3.
//
//   byte 0                                      48                              52     54
//        | qs[48]: five digits a byte:          | qh[4]: four digits a byte:    | d    |
//          digit n of byte m is weight 32n + m,   digit n of byte m is weight     f16
//          the last 16 bytes' 160 + 16n + m       240 + 4n + m
//
// A byte is a fraction of 256ths of the number whose digits stand behind the point, rounded up: times 3^n,
// modulo 256, times 3 gives digit n above the point.
#include "quant/formats/formats.h"

namespace quern::formats::tq1_0 {
namespace {

constexpr size_t kQs = 0, kQh = 48, kD = 52;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

int digit(uint8_t byte, size_t n) {
  constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  const auto rest = static_cast<uint8_t>(byte * kPowers[n]);
  return rest * 3 >> 8;
}

int weight_digit(const uint8_t* block, size_t e) {
  if (e < 160) return digit(block[kQs + e % 32], e / 32);
  if (e < 240) return digit(block[kQs + 32 + e % 16], (e - 160) / 16);
  return digit(block[kQh + e % 4], (e - 240) / 4);
}

}  // namespace

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  for (size_t k = 0; k < kGroup; ++k)
    out->code[k] = static_cast<int8_t>(weight_digit(block, kGroup * g + k) - 1);
  set_plain(load_f16(block + kD), out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::tq1_0
