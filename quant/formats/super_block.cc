#include "quant/formats/super_block.h"

namespace quern::formats {
namespace {

constexpr size_t kSuper = 256;

// Sub-blocks of 32 and their six-bit scales and minima.
constexpr size_t kSubs = kSuper / kGroup;
constexpr int kLargestScale = 63;

float largest_of(const float* x, size_t n) {
  float largest = 0;
  for (size_t j = 0; j < n; ++j)
    if (x[j] > largest) largest = x[j];
  return largest;
}

void code_by_largest(const float* x, float largest, uint8_t* code) {
  const float inverse = largest > 0 ? 63.0f / largest : 0.0f;
  for (size_t j = 0; j < kSubs; ++j)
    code[j] = std::min<uint8_t>(kLargestScale, static_cast<uint8_t>(nearest_int(inverse * x[j])));
}

}  // namespace

void pack_scale_min(const int16_t* scale, const int16_t* minimum, uint8_t* packed) {
  for (size_t j = 0; j < 4; ++j) {
    packed[j] = static_cast<uint8_t>(scale[j] | (scale[j + 4] >> 4) << 6);
    packed[j + 4] = static_cast<uint8_t>(minimum[j] | (minimum[j + 4] >> 4) << 6);
    packed[j + 8] = static_cast<uint8_t>((scale[j + 4] & 15) | (minimum[j + 4] & 15) << 4);
  }
}

float sum_of_squares(const float* x, size_t n) {
  float sum = 0;
  for (size_t k = 0; k < n; ++k) sum += x[k] * x[k];
  return sum;
}

void weigh_by_importance(const float* x, const float* importance, float variance, size_t n, float* weight) {
  for (size_t k = 0; k < n; ++k) weight[k] = importance[k] * std::sqrt(variance + x[k] * x[k]);
}

void weigh_by_square(const float* x, size_t n, float* weight) {
  for (size_t k = 0; k < n; ++k) weight[k] = x[k] * x[k];
}

void sum_weights(const float* weight, size_t n_subs, size_t n, float* sums) {
  for (size_t j = 0; j < n_subs; ++j) {
    sums[j] = 0;
    for (size_t k = 0; k < n; ++k) sums[j] += weight[j * n + k];
  }
}

float fit_positive(const float* x, const float* weight, size_t n, int largest, uint8_t* code) {
  constexpr int kPasses = 5;
  float max = 0;
  for (size_t j = 0; j < n; ++j) max = max > x[j] ? max : x[j];
  std::fill(code, code + n, uint8_t{0});
  if (max < kTinyWeight) return 0;

  const auto top = static_cast<float>(largest);
  float inverse = top / max, least = 0;
  const float exact = 1 / inverse;
  for (size_t j = 0; j < n; ++j) {
    const auto l = static_cast<uint8_t>(nearest_int(inverse * x[j]));
    const float difference = x[j] - exact * static_cast<float>(l);
    least += weight[j] * difference * difference;
  }
  for (int step = -4; step <= 4; ++step) {
    if (step == 0) continue;
    const float tried = (0.1f * static_cast<float>(step) + top) / max, scale = 1 / tried;
    float error = 0;
    for (size_t j = 0; j < n; ++j) {
      const int l = std::min(largest, nearest_int(tried * x[j]));
      const float difference = x[j] - scale * static_cast<float>(l);
      error += weight[j] * difference * difference;
    }
    if (error < least) {
      least = error;
      inverse = tried;
    }
  }

  float lx = 0, l2 = 0;
  for (size_t j = 0; j < n; ++j) {
    const int l = std::min(largest, nearest_int(inverse * x[j]));
    code[j] = static_cast<uint8_t>(l);
    lx += weight[j] * x[j] * static_cast<float>(l);
    l2 += weight[j] * static_cast<float>(l) * static_cast<float>(l);
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    bool changed = false;
    for (size_t j = 0; j < n; ++j) {
      const float w = weight[j], old = code[j];
      float others_lx = lx - w * x[j] * old, others_l2 = l2 - w * old * old;
      if (!(others_lx > 0 && others_l2 > 0)) continue;
      const int moved = std::min(largest, nearest_int(x[j] * others_l2 / others_lx));
      if (moved == code[j]) continue;
      const auto l = static_cast<float>(moved);
      others_lx += w * x[j] * l;
      others_l2 += w * l * l;
      if (others_lx * others_lx * l2 > lx * lx * others_l2) {
        code[j] = static_cast<uint8_t>(moved);
        lx = others_lx;
        l2 = others_l2;
        changed = true;
      }
    }
    if (!changed) break;
  }
  return l2 > 0 ? lx / l2 : 0.0f;
}

bool all_finite(const float* x, size_t n) {
  return std::all_of(x, x + n, [](float value) { return std::isfinite(value); });
}

ScaleMinBlock encode_scale_min(const float* x, const float* importance, const MinimumRule& plain,
                               const MinimumRule& weighted, bool clamp, uint8_t* code) {
  float weight[kSuper], sums[kSubs];
  if (importance != nullptr) {
    weigh_by_importance(x, importance, 2 * sum_of_squares(x, kSuper) / 256.0f, kSuper, weight);
    sum_weights(weight, kSubs, kGroup, sums);
  } else {
    for (size_t j = 0; j < kSubs; ++j) {
      const float* sub = x + j * kGroup;
      const float typical = std::sqrt(sum_of_squares(sub, kGroup) / 32.0f);
      for (size_t k = 0; k < kGroup; ++k) weight[j * kGroup + k] = typical + std::fabs(sub[k]);
    }
  }
  const MinimumRule& rule = importance != nullptr ? weighted : plain;
  MinimumFit fit;
  searches().minimum(rule, x, weight, &fit);

  ScaleMinBlock block;
  uint8_t scale[kSubs], minimum[kSubs];
  if (importance != nullptr) {
    block.d = fit_positive(fit.scale, sums, kSubs, kLargestScale, scale);
    block.dmin = fit_positive(fit.minimum, sums, kSubs, kLargestScale, minimum);
    if (clamp)
      for (size_t j = 0; j < kSubs; ++j) {
        scale[j] = std::min<uint8_t>(scale[j], kLargestScale);
        minimum[j] = std::min<uint8_t>(minimum[j], kLargestScale);
      }
  } else {
    const float largest = largest_of(fit.scale, kSubs), deepest = largest_of(fit.minimum, kSubs);
    code_by_largest(fit.scale, largest, scale);
    code_by_largest(fit.minimum, deepest, minimum);
    block.d = largest / 63.0f;
    block.dmin = deepest / 63.0f;
  }
  if (!all_finite(fit.scale, kSubs) || !all_finite(fit.minimum, kSubs)) block.d = NAN;
  int16_t wide_scale[kSubs], wide_minimum[kSubs];
  std::copy_n(scale, kSubs, wide_scale);
  std::copy_n(minimum, kSubs, wide_minimum);
  pack_scale_min(wide_scale, wide_minimum, block.packed);

  const float d = rounded_to_f16(block.d), dmin = rounded_to_f16(block.dmin);
  for (size_t j = 0; j < kSubs; ++j) {
    const float* sub = x + j * kGroup;
    const auto [stored_scale, stored_min] = load_scale_min(block.packed, j);
    const float step = d * static_cast<float>(stored_scale);
    if (step != 0)
      searches().code_by_step(sub, kGroup, step, dmin * static_cast<float>(stored_min), 0, rule.largest,
                              code + j * kGroup);
    else  // too small to store: the codes of the search stay
      searches().code_by_inverse(sub, kGroup, fit.inverse[j], fit.base[j], 0, rule.largest,
                                 code + j * kGroup);
  }
  return block;
}

}  // namespace quern::formats
