// What the encoders of several formats share: weights of the error, scales of sub-blocks, groups of blocks.
// The arithmetic is the reference's (formats.md 2.5), one operation after the other. Private to quant/
// (formats.h).
#pragma once

#include <algorithm>
#include <array>

#include "quant/formats/formats.h"
#include "quant/formats/searches.h"

namespace quern::formats {

// MinimumRule's numerators: largest + first, + first + step, ...
template <size_t kSteps>
constexpr std::array<float, kSteps> make_numerators(float first, float step, float largest) {
  std::array<float, kSteps> numerators{};
  for (size_t c = 0; c < kSteps; ++c) numerators[c] = (first + step * static_cast<float>(c)) + largest;
  return numerators;
}
// With importance all formats search alike.
template <int kLargest>
inline constexpr std::array<float, 37> kWeightedNumerators =
    make_numerators<37>(-0.9f, 0.05f, static_cast<float>(kLargest));
template <int kLargest>
constexpr MinimumRule weighted_rule(size_t n) {
  return {n, kLargest, kWeightedNumerators<kLargest>.data(), kWeightedNumerators<kLargest>.size(), false};
}

// The integer nearest to x as the reference finds it: half to even for |x| < 2^22, and beyond that what the
// bits of x + 1.5 * 2^23 happen to say. 0 for NaN.
inline int32_t nearest_int(float x) {
  return static_cast<int32_t>(std::bit_cast<uint32_t>(x + 12582912.0f) & 0x007fffffu) - 0x00400000;
}

float sum_of_squares(const float* x, size_t n);

// weight[k] = importance[k] * sqrt(variance + x[k]^2)
void weigh_by_importance(const float* x, const float* importance, float variance, size_t n, float* weight);
// weight[k] = x[k]^2
void weigh_by_square(const float* x, size_t n, float* weight);

// sums[j]: of n weights each.
void sum_weights(const float* weight, size_t n_subs, size_t n, float* sums);

// x[j] ~ scale * code[j], x >= 0, code 0..largest; returns the scale. Codes of the reference's 8 bits: values
// below 0, which no sound block has, wrap.
float fit_positive(const float* x, const float* weight, size_t n, int largest, uint8_t* code);

bool all_finite(const float* x, size_t n);

// Encodes blocks of 32 eight at a time: encode(x, importance, n, blocks) gets n <= 8 of them with eight
// blocks of numbers, zeros behind the last.
template <size_t kBytes, class EncodeEight>
void encode_by_eight(const float* x, const float* importance, size_t n_blocks, uint8_t* blocks,
                     EncodeEight encode) {
  constexpr size_t kEight = kSearchLanes * kGroup;
  for (size_t b = 0; b < n_blocks; b += kSearchLanes) {
    const size_t n = std::min(kSearchLanes, n_blocks - b);
    const float* here = x + b * kGroup;
    const float* weigher = importance != nullptr ? importance + b * kGroup : nullptr;
    float padded[2][kEight];
    if (n < kSearchLanes) {
      const auto pad = [&](const float* from, float* to) {
        std::copy_n(from, n * kGroup, to);
        std::fill(to + n * kGroup, to + kEight, 0.0f);
      };
      pad(here, padded[0]);
      here = padded[0];
      if (weigher != nullptr) {
        pad(weigher, padded[1]);
        weigher = padded[1];
      }
    }
    encode(here, weigher, n, blocks + b * kBytes);
  }
}

// Blocks of 32 with importance, without and with a minimum: store(scale, minimum, code, block).
template <size_t kBytes, int kLargest, class Store>
void encode_symmetric_weighted(const float* x, const float* importance, float mean_square, size_t n_blocks,
                               uint8_t* blocks, Store store) {
  encode_by_eight<kBytes>(x, importance, n_blocks, blocks,
                          [&](const float* eight, const float* weigher, size_t n, uint8_t* out) {
                            float weight[kSearchLanes * kGroup];
                            weigh_by_importance(eight, weigher, mean_square, kSearchLanes * kGroup, weight);
                            SymmetricFit fit;
                            searches().symmetric(kGroup, kLargest, eight, weight, &fit);
                            for (size_t s = 0; s < n; ++s) {
                              uint8_t code[kGroup] = {};
                              if (!fit.zero[s])
                                searches().code_by_inverse(eight + s * kGroup, kGroup, fit.inverse[s], 0,
                                                           -kLargest, kLargest - 1, code);
                              store(fit.scale[s], code, out + s * kBytes);
                            }
                          });
}
template <size_t kBytes, int kLargest, class Store>
void encode_minimum_weighted(const float* x, const float* importance, float mean_square, size_t n_blocks,
                             uint8_t* blocks, Store store) {
  encode_by_eight<kBytes>(x, importance, n_blocks, blocks,
                          [&](const float* eight, const float* weigher, size_t n, uint8_t* out) {
                            float weight[kSearchLanes * kGroup];
                            weigh_by_importance(eight, weigher, mean_square, kSearchLanes * kGroup, weight);
                            MinimumFit fit;
                            searches().minimum(weighted_rule<kLargest>(kGroup), eight, weight, &fit);
                            for (size_t s = 0; s < n; ++s) {
                              uint8_t code[kGroup];
                              searches().code_by_inverse(eight + s * kGroup, kGroup, fit.inverse[s],
                                                         fit.base[s], 0, kLargest, code);
                              store(fit.scale[s], -fit.minimum[s], code, out + s * kBytes);
                            }
                          });
}

// Super-blocks one by one: encode_block(x, importance, block). importance: null for none.
template <size_t kWeights, size_t kBytes, class EncodeBlock>
void encode_blocks(const float* x, const float* importance, size_t n_blocks, uint8_t* blocks,
                   EncodeBlock encode_block) {
  for (size_t b = 0; b < n_blocks; ++b)
    encode_block(x + b * kWeights, importance != nullptr ? importance + b * kWeights : nullptr,
                 blocks + b * kBytes);
}

// A super-block of Q4_K or Q5_K but for its codes, which are written to code.
//   plain: the rule without importance (importance null)
//   clamp: with importance, scale codes that wrapped (fit_positive) become the largest, as Q5_K's do
struct ScaleMinBlock {
  float d, dmin;
  uint8_t packed[12];  // as load_scale_min reads it
};
ScaleMinBlock encode_scale_min(const float* x, const float* importance, const MinimumRule& plain,
                               const MinimumRule& weighted, bool clamp, uint8_t* code /* [256] */);

// Eight scales and minima as load_scale_min reads them. What does not fit six bits wraps, as the reference's
// does.
void pack_scale_min(const int16_t* scale /* [8] */, const int16_t* minimum /* [8] */,
                    uint8_t* packed /* [12] */);

// Two bits of each of 256 codes: group g of 32 in bits 2*(g%4), +1 of the bytes 32*(g/4) .. + 31.
inline void store_pairs(const uint8_t* code /* [256] */, uint8_t* qs /* [64] */) {
  for (size_t half = 0; half < 2; ++half)
    for (size_t l = 0; l < 32; ++l) {
      const uint8_t* q = code + 128 * half + l;
      qs[32 * half + l] =
          static_cast<uint8_t>((q[0] & 3) | (q[32] & 3) << 2 | (q[64] & 3) << 4 | (q[96] & 3) << 6);
    }
}

}  // namespace quern::formats
