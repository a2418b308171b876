// Q3_K: 256 weights in 110 bytes, 16 sub-blocks of 16. weight = d * (scale - 32) * code, code -4..3.
//
//   byte 0                           32                             96            108    110
//        | hmask[32]: bit g of       | qs[64]: group g of 32 has    | S[12]: six  | d    |
//          byte k belongs to weight    bits 2*(g%4), +1 of the        bits a        f16
//          k of group g                bytes 32*(g/4) .. + 31         scale
//
// code = low two bits - (mask bit ? 0 : 4). Scale j: its low four bits are a nibble of S[j%8] (low for
// j < 8), its high two are bits 2*(j/4), +1 of S[8 + j%4].
#include "quant/formats/super_block.h"

namespace quern::formats::q3_k {
namespace {

constexpr size_t kHmask = 0, kQs = 32, kScales = 96, kD = 108;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

int load_scale(const uint8_t* s, size_t j) {
  const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
  const int high = (s[8 + j % 4] >> (2 * (j / 4))) & 3;
  return (low | high << 4) - 32;
}

constexpr size_t kSub = 16, kSubs = kWeights / kSub;

// code: of scale j, 0..63.
void store_scales(const uint8_t* code, uint8_t* s /* [12] */) {
  std::memset(s, 0, 12);
  for (size_t j = 0; j < kSubs; ++j) {
    s[j % 8] = static_cast<uint8_t>(s[j % 8] | (code[j] & 15) << (j < 8 ? 0 : 4));
    s[8 + j % 4] = static_cast<uint8_t>(s[8 + j % 4] | (code[j] >> 4) << (2 * (j / 4)));
  }
}

struct Scales {
  float d = 0;
  uint8_t code[kSubs] = {};
  bool finite = true;
};

// Sub-scales without importance, and the codes of the weights as the search found them.
Scales find_scales(const float* x, uint8_t* code) {
  float scale[kSubs], largest = 0;
  for (size_t i = 0; i < 2; ++i)
    searches().refined(x + kWeights / 2 * i, scale + kSearchLanes * i, code + kWeights / 2 * i);
  for (const float s : scale)
    if (std::fabs(s) > std::fabs(largest)) largest = s;
  Scales found;
  found.finite = all_finite(scale, kSubs);
  if (largest == 0) return found;  // the codes of no scale at all
  const float inverse = -32.0f / largest;
  for (size_t j = 0; j < kSubs; ++j) {
    const auto nearest = static_cast<int8_t>(static_cast<uint8_t>(nearest_int(inverse * scale[j])));
    found.code[j] = static_cast<uint8_t>(std::clamp<int>(nearest, -32, 31) + 32);
  }
  found.d = 1 / inverse;
  return found;
}

Scales find_scales(const float* x, const float* importance, uint8_t* code) {
  float weight[kWeights], scale[kSearchLanes * kSub] = {}, sums[kSearchLanes * kSub] = {};
  weigh_by_importance(x, importance, 2 * sum_of_squares(x, kWeights) / 256.0f, kWeights, weight);
  sum_weights(weight, kSubs, kSub, sums);
  for (size_t i = 0; i < 2; ++i) {
    SymmetricFit fit;
    const float* half = x + kWeights / 2 * i;
    searches().symmetric(kSub, 4, half, weight + kWeights / 2 * i, &fit);
    std::copy_n(fit.scale, kSearchLanes, scale + kSearchLanes * i);
    for (size_t s = 0; s < kSearchLanes; ++s) {
      uint8_t* out = code + kWeights / 2 * i + kSub * s;
      std::fill_n(out, kSub, uint8_t{0});
      if (!fit.zero[s]) searches().code_by_inverse(half + kSub * s, kSub, fit.inverse[s], 0, -4, 3, out);
    }
  }
  // The scales are fitted in their turn, in the first lane.
  Scales found;
  found.finite = all_finite(scale, kSubs);
  SymmetricFit fit;
  searches().symmetric(kSub, 32, scale, sums, &fit);
  found.d = fit.scale[0];
  if (!fit.zero[0]) searches().code_by_inverse(scale, kSubs, fit.inverse[0], 0, -32, 31, found.code);
  return found;
}

void encode_block(const float* x, const float* importance, uint8_t* block) {
  uint8_t code[kWeights];
  const Scales scales = importance != nullptr ? find_scales(x, importance, code) : find_scales(x, code);
  store_scales(scales.code, block + kScales);
  // Squares of weights beyond 1e12 overflow: see Q6_K.
  store_f16(scales.finite ? scales.d : NAN, block + kD);
  const float d = load_f16(block + kD);
  for (size_t j = 0; j < kSubs; ++j) {
    const float step = d * static_cast<float>(load_scale(block + kScales, j));
    if (step != 0) searches().code_by_step(x + kSub * j, kSub, step, 0, -4, 3, code + kSub * j);
  }
  std::memset(block + kHmask, 0, kGroup);
  for (size_t g = 0; g < kGroups; ++g)
    for (size_t k = 0; k < kGroup; ++k)
      block[kHmask + k] = static_cast<uint8_t>(block[kHmask + k] | (code[32 * g + k] >> 2) << g);
  store_pairs(code, block + kQs);
}

}  // namespace

void encode(const float* x, size_t n_blocks, uint8_t* blocks) noexcept {
  encode_blocks<kWeights, kBytes>(x, nullptr, n_blocks, blocks, encode_block);
}

void encode_weighted(const float* x, const float* importance, float, size_t n_blocks,
                     uint8_t* blocks) noexcept {
  encode_blocks<kWeights, kBytes>(x, importance, n_blocks, blocks, encode_block);
}

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
