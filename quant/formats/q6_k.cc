// Q6_K: 256 weights in 210 bytes, 16 sub-blocks of 16. weight = d * scale * (code - 32), code 0..63.
//
//   byte 0                            128                          192               208    210
//        | ql[128]: low four bits     | qh[64]: high two bits      | int8 scale[16]  | d    |
//          of a code                    of a code                                      f16
//
// The two halves n of 128 weights are alike; weight 32k + l of half n (k 0..3, l 0..31):
//   ql byte 64n + 32*(k%2) + l, its low nibble for k < 2, else the high one
//   qh byte 32n + l, its bits 2k and 2k + 1
#include "quant/formats/super_block.h"

namespace quern::formats::q6_k {
namespace {

constexpr size_t kQl = 0, kQh = 128, kScales = 192, kD = 208;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;
constexpr size_t kSub = 16;  // weights in a sub-block
constexpr size_t kSubs = kWeights / kSub;

void store_codes(const uint8_t* code /* [256] */, uint8_t* block) {
  for (size_t n = 0; n < 2; ++n) {
    uint8_t* ql = block + kQl + 64 * n;
    uint8_t* qh = block + kQh + 32 * n;
    const uint8_t* q = code + 128 * n;
    for (size_t l = 0; l < 64; ++l) ql[l] = static_cast<uint8_t>((q[l] & 15) | (q[l + 64] & 15) << 4);
    for (size_t l = 0; l < 32; ++l) {
      qh[l] = static_cast<uint8_t>(q[l] >> 4 | (q[l + 32] >> 4) << 2 | (q[l + 64] >> 4) << 4 |
                                   (q[l + 96] >> 4) << 6);
    }
  }
}

void encode_block(const float* x, const float* importance, uint8_t* block) {
  std::memset(block, 0, kBytes);
  float square[kWeights];
  if (importance == nullptr) weigh_by_square(x, kWeights, square);
  const float* weight = importance != nullptr ? importance : square;
  SymmetricFit fit[2];
  float scale[kSubs], largest = 0;
  for (size_t i = 0; i < 2; ++i) {
    searches().symmetric(kSub, 32, x + kWeights / 2 * i, weight + kWeights / 2 * i, &fit[i]);
    std::copy_n(fit[i].scale, kSearchLanes, scale + kSearchLanes * i);
  }
  for (const float s : scale)
    if (std::fabs(s) > std::fabs(largest)) largest = s;
  if (!all_finite(scale, kSubs)) {
    // Squares of weights beyond 1e12 overflow. The reference would go on, and may write zeros; a scale that
    // is not a number makes the caller report the block.
    store_f16(NAN, block + kD);
    return;
  }
  if (std::fabs(largest) < kTinyWeight) return;

  const float inverse = -128.0f / largest;
  store_f16(1.0f / inverse, block + kD);
  const float d = load_f16(block + kD);
  if (!std::isfinite(d)) return;

  uint8_t code[kWeights] = {};
  for (size_t j = 0; j < kSubs; ++j) {
    const auto rounded = static_cast<int8_t>(std::min(127, nearest_int(inverse * scale[j])));
    block[kScales + j] = static_cast<uint8_t>(rounded);
    const float step = d * static_cast<float>(rounded);
    const SymmetricFit& half = fit[j / kSearchLanes];
    const size_t s = j % kSearchLanes;
    // Where the step was too small to store, the codes of the search stay; code byte 0 for no scale at all.
    if (step != 0)
      searches().code_by_step(x + kSub * j, kSub, step, 0, -32, 31, code + kSub * j);
    else if (!half.zero[s])
      searches().code_by_inverse(x + kSub * j, kSub, half.inverse[s], 0, -32, 31, code + kSub * j);
  }
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
  for (size_t j = 0; j < kSubs; ++j) block[kScales + j] = static_cast<uint8_t>(parts.scale[j]);
  store_codes(parts.code, block);
}

void unpack_group(const uint8_t* row, size_t group, WeightGroup* out) noexcept {
  const uint8_t* block = row + group / kGroups * kBytes;
  const size_t g = group % kGroups, n = g / 4, k = g % 4;
  const uint8_t* ql = block + kQl + 64 * n + 32 * (k % 2);
  const uint8_t* qh = block + kQh + 32 * n;
  const size_t nibble_shift = k < 2 ? 0 : 4;
  for (size_t l = 0; l < kGroup; ++l) {
    const int low = (ql[l] >> nibble_shift) & 15;
    const int high = (qh[l] >> (2 * k)) & 3;
    out->code[l] = static_cast<int8_t>((low | high << 4) - 32);
  }
  set_plain(load_f16(block + kD), out);
  for (size_t half = 0; half < 2; ++half) {
    out->scale[half] = static_cast<int8_t>(block[kScales + 2 * g + half]);
  }
}

void decode(const uint8_t* blocks, size_t n_blocks, float* out) noexcept {
  decode_groups<unpack_group>(blocks, n_blocks * kGroups, out);
}

size_t first_non_finite(const uint8_t* blocks, size_t n_blocks) noexcept {
  return first_non_finite_f16<kBytes, kD>(blocks, n_blocks);
}

}  // namespace quern::formats::q6_k
