// Q4_K: 256 weights in 144 bytes, 8 sub-blocks of 32. weight = d * scale * code - dmin * min, code 0..15.
//
//   byte 0      2       4                            16                                   144
//        | d    | dmin  | S[12]: six bits a scale    | qs[128]: sub-blocks 2i (low nibbles)  |
//          f16    f16     and a min (formats.h)        and 2i + 1 (high): bytes 32i .. + 31
#include "quant/formats/super_block.h"

namespace quern::formats::q4_k {
namespace {

constexpr size_t kD = 0, kDmin = 2, kScales = 4, kQs = 16;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

constexpr auto kNumerators = make_numerators<21>(-1.0f, 0.1f, 15.0f);
constexpr MinimumRule kPlain = {kGroup, 15, kNumerators.data(), kNumerators.size(), false};

void store_codes(const uint8_t* code /* [256] */, uint8_t* block) {
  for (size_t i = 0; i < kGroups / 2; ++i)
    for (size_t k = 0; k < kGroup; ++k)
      block[kQs + 32 * i + k] = static_cast<uint8_t>(code[64 * i + k] | code[64 * i + 32 + k] << 4);
}

void encode_block(const float* x, const float* importance, uint8_t* block) {
  uint8_t code[kWeights];
  const ScaleMinBlock found = encode_scale_min(x, importance, kPlain, weighted_rule<15>(kGroup), false, code);
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
  for (size_t k = 0; k < kGroup; ++k) out->code[k] = static_cast<int8_t>((qs[k] >> (4 * (g % 2))) & 15);
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

}  // namespace quern::formats::q4_k
