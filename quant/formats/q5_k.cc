// Q5_K: 256 weights in 176 bytes, 8 sub-blocks of 32. weight = d * scale * code - dmin * min, code 0..31.
//
//   byte 0      2       4                16                       48                             176
//        | d    | dmin  | S[12]: six     | qh[32]: bit g of byte  | qs[128]: sub-blocks 2i (low  |
//          f16    f16     bits a scale     k is bit 4 of code k     nibbles) and 2i + 1 (high):
//                         and a min        of sub-block g           bytes 32i .. + 31
//                         (formats.h)
#include "quant/formats/super_block.h"

namespace quern::formats::q5_k {
namespace {

constexpr size_t kD = 0, kDmin = 2, kScales = 4, kQh = 16, kQs = 48;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

constexpr auto kNumerators = make_numerators<16>(-0.5f, 0.1f, 31.0f);
constexpr MinimumRule kPlain = {kGroup, 31, kNumerators.data(), kNumerators.size(), false};

void store_codes(const uint8_t* code /* [256] */, uint8_t* block) {
  std::memset(block + kQh, 0, kGroup);
  for (size_t g = 0; g < kGroups; ++g)
    for (size_t k = 0; k < kGroup; ++k)
      block[kQh + k] = static_cast<uint8_t>(block[kQh + k] | (code[32 * g + k] >> 4) << g);
  for (size_t i = 0; i < kGroups / 2; ++i)
    for (size_t k = 0; k < kGroup; ++k)
      block[kQs + 32 * i + k] =
          static_cast<uint8_t>((code[64 * i + k] & 15) | (code[64 * i + 32 + k] & 15) << 4);
}

void encode_block(const float* x, const float* importance, uint8_t* block) {
  uint8_t code[kWeights];
  const ScaleMinBlock found = encode_scale_min(x, importance, kPlain, weighted_rule<31>(kGroup), true, code);
  store_f16(found.d, block + kD);
  store_f16(found.dmin, block + kDmin);
  std::memcpy(block + kScales, found.packed, sizeof found.packed);
  store_codes(code, block);
}

}  // namespace

void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  encode_blocks<kWeights, kBytes>(x, nullptr, n_blocks, blocks, encode_block);
}

void encode_weighted(const float* x, const float* importance, float, size_t n_blocks,
                     uint8_t* blocks) noexcept {
  encode_blocks<kWeights, kBytes>(x, importance, n_blocks, blocks, encode_block);
}

void pack(const BlockParts& parts, uint8_t* block) noexcept {
  store_f16(parts.d, block + kD);
  store_f16(parts.dmin, block + kDmin);
  pack_scale_min(parts.scale, parts.min, block + kScales);
  store_codes(parts.code, block);
}

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups;
  const uint8_t* qs = block + kQs + 32 * (g / 2);
  const uint8_t* qh = block + kQh;
  for (size_t k = 0; k < kGroup; ++k) {
    const int low = (qs[k] >> (4 * (g % 2))) & 15;
    const int high = (qh[k] >> g) & 1;
    out->code[k] = static_cast<int8_t>(low | high << 4);
  }
  const auto [scale, min] = load_scale_min(block + kScales, g);
  set_plain(load_f16(block + kD) * static_cast<float>(scale), out);
  set_min(-(load_f16(block + kDmin) * static_cast<float>(min)), out);
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD, kDmin>(blocks, n_blocks);
}

}  // namespace quern::formats::q5_k
