// Q2_K: 256 weights in 84 bytes, 16 sub-blocks of 16. weight = d * scale * code - dmin * min, code 0..3.
//
//   byte 0                                 16                             80     82      84
//        | scales[16], one a sub-block:    | qs[64]: group g of 32 has    | d    | dmin  |
//          scale (low), min (high nibble)    bits 2*(g%4), +1 of the        f16    f16
//                                            bytes 32*(g/4) .. + 31
#include "quant/formats/super_block.h"

namespace quern::formats::q2_k {
namespace {

constexpr size_t kScales = 0, kQs = 16, kD = 80, kDmin = 82;  // byte offsets
constexpr size_t kGroups = kWeights / kGroup;

constexpr size_t kSub = 16, kSubs = kWeights / kSub;
constexpr auto kNumerators = make_numerators<16>(-0.5f, 0.1f, 3.0f);
constexpr MinimumRule kPlain = {kSub, 3, kNumerators.data(), kNumerators.size(), true};

// Codes of 16 scales or minima without importance, and their scale.
float code_by_largest(const float* x, uint8_t* code) {
  float largest = 0;
  for (size_t j = 0; j < kSubs; ++j)
    if (x[j] > largest) largest = x[j];
  for (size_t j = 0; j < kSubs; ++j)
    code[j] = largest > 0 ? static_cast<uint8_t>(nearest_int(15.0f / largest * x[j])) : uint8_t{0};
  return largest > 0 ? largest / 15.0f : 0.0f;
}

void encode_block(const float* x, const float* importance, uint8_t* block) {
  float weight[kWeights], sums[kSubs];
  if (importance != nullptr) {
    weigh_by_importance(x, importance, sum_of_squares(x, kWeights) / 256.0f, kWeights, weight);
    sum_weights(weight, kSubs, kSub, sums);
  } else {
    for (size_t k = 0; k < kWeights; ++k) weight[k] = std::fabs(x[k]);
  }
  MinimumFit fit[2];
  float scale[kSubs], minimum[kSubs];
  for (size_t i = 0; i < 2; ++i) {
    constexpr size_t kHalf = kWeights / 2;
    searches().minimum(importance != nullptr ? weighted_rule<3>(kSub) : kPlain, x + kHalf * i,
                       weight + kHalf * i, &fit[i]);
    std::copy_n(fit[i].scale, kSearchLanes, scale + kSearchLanes * i);
    std::copy_n(fit[i].minimum, kSearchLanes, minimum + kSearchLanes * i);
  }
  uint8_t scale_code[kSubs], min_code[kSubs];
  float d = importance != nullptr ? fit_positive(scale, sums, kSubs, 15, scale_code)
                                  : code_by_largest(scale, scale_code);
  const float dmin = importance != nullptr ? fit_positive(minimum, sums, kSubs, 15, min_code)
                                           : code_by_largest(minimum, min_code);
  if (!all_finite(scale, kSubs) || !all_finite(minimum, kSubs)) d = NAN;
  store_f16(d, block + kD);
  store_f16(dmin, block + kDmin);

  uint8_t code[kWeights];
  for (size_t j = 0; j < kSubs; ++j) {
    const auto packed = static_cast<uint8_t>(scale_code[j] | min_code[j] << 4);
    block[kScales + j] = packed;
    const float step = load_f16(block + kD) * static_cast<float>(packed & 15);
    const float* sub = x + kSub * j;
    if (step != 0) {
      searches().code_by_step(sub, kSub, step, load_f16(block + kDmin) * static_cast<float>(packed >> 4), 0,
                              3, code + kSub * j);
    } else {  // too small to store: the codes of the search stay
      const MinimumFit& half = fit[j / kSearchLanes];
      const size_t s = j % kSearchLanes;
      searches().code_by_inverse(sub, kSub, half.inverse[s], half.base[s], 0, 3, code + kSub * j);
    }
  }
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
  for (size_t k = 0; k < kGroup; ++k) out->code[k] = static_cast<int8_t>((qs[k] >> (2 * (g % 4))) & 3);
  for (size_t half = 0; half < 2; ++half) {
    const uint8_t packed = block[kScales + 2 * g + half];
    out->scale[half] = packed & 15;
    out->min[half] = packed >> 4;
  }
  set_d(load_f16(block + kD), out);
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
