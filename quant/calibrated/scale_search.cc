#include "quant/calibrated/scale_search.h"

#include <algorithm>
#include <cmath>

#include "quant/float16.h"
#include "quant/formats/super_block.h"

namespace quern::calibrated {
namespace {

namespace f = quern::formats;

// With four bits 0.66 to 1.14 is where scales that won lay (SmolLM2-135M, tiny-mistral); with more bits there
// is less to gain from cutting off, and a finer step is tried.
constexpr ScaleRule kRules[] = {
    {.dtype = DType::Q4_0,
     .pack = f::q4_0::pack,
     .lowest = -8,
     .highest = 7,
     .code_offset = 8,
     .lattice = true,
     .first_factor = 0.66f,
     .last_factor = 1.14f},
    {.dtype = DType::Q4_1,
     .pack = f::q4_1::pack,
     .lowest = 0,
     .highest = 15,
     .has_minimum = true,
     .lattice = true,
     .first_factor = 0.84f,
     .last_factor = 1.12f},
    {.dtype = DType::Q5_0,
     .pack = f::q5_0::pack,
     .lowest = -16,
     .highest = 15,
     .code_offset = 16,
     .lattice = true,
     .first_factor = 0.80f,
     .last_factor = 1.08f},
    {.dtype = DType::Q5_1,
     .pack = f::q5_1::pack,
     .lowest = 0,
     .highest = 31,
     .has_minimum = true,
     .lattice = true,
     .first_factor = 0.90f,
     .last_factor = 1.06f},
    {.dtype = DType::Q8_0,
     .pack = f::q8_0::pack,
     .lowest = -127,
     .highest = 127,
     .first_factor = 0.97f,
     .last_factor = 1.01f},
    {.dtype = DType::Q4_K,
     .pack = f::q4_k::pack,
     .lowest = 0,
     .highest = 15,
     .has_minimum = true,
     .highest_scale = 63,
     .highest_minimum = 63,
     .headroom_scale = 61,
     .dmin_offset = 2},
    {.dtype = DType::Q5_K,
     .pack = f::q5_k::pack,
     .lowest = 0,
     .highest = 31,
     .has_minimum = true,
     .highest_scale = 63,
     .highest_minimum = 63,
     .headroom_scale = 61,
     .dmin_offset = 2},
    {.dtype = DType::Q6_K,
     .pack = f::q6_k::pack,
     .group = 16,
     .lowest = -32,
     .highest = 31,
     .code_offset = 32,
     .first_factor = 0.86f,
     .last_factor = 1.06f,
     .lowest_scale = -128,
     .highest_scale = 127,
     .headroom_scale = 120,
     .d_offset = 208},
    {.dtype = DType::IQ4_NL,
     .pack = f::iq4_nl::pack,
     .lowest = -127,
     .highest = 113,
     .nonlinear = true,
     .first_factor = 0.66f,
     .last_factor = 1.14f},
};

float largest_magnitude(const ScaleRule& rule, const float* x) {
  return rule.group == 16 ? f::first_of_largest_magnitude<16>(x) : f::first_of_largest_magnitude<32>(x);
}

// The i-th of n factors.
float factor(const ScaleRule& rule, size_t i, size_t n) {
  return rule.first_factor +
         (rule.last_factor - rule.first_factor) * static_cast<float>(i) / static_cast<float>(n - 1);
}

// Sum of squares of what x loses on multiples of `step`, and the step that fits its codes best.
struct LatticeFit {
  float loss, step;
};
LatticeFit fit_lattice(const ScaleRule& rule, const float* x, float step) {
  float loss = 0, products = 0, squares = 0;
  const float inverse = 1 / step;
  for (size_t k = 0; k < rule.group; ++k) {
    const float q = std::min(std::max(std::nearbyint(x[k] * inverse), rule.lowest), rule.highest);
    const float off = x[k] - q * step;
    loss += off * off;
    products += x[k] * q;
    squares += q * q;
  }
  return {loss, squares > 0 ? products / squares : step};
}

// Weights that lie on a lattice already, as those of checkpoints that were trained for a quantized format do,
// use its ends or not: the largest weight above `base` may have any code. Returns the step that loses least;
// 0: none.
float lattice_step(const ScaleRule& rule, const float* target, float base) {
  float x[kPanel];
  for (size_t k = 0; k < rule.group; ++k) x[k] = target[k] - base;
  const float span = largest_magnitude(rule, x);
  LatticeFit best{INFINITY, 0};
  const float most = std::max(std::fabs(rule.lowest), rule.highest);
  // The widest step first: of several lattices that hold the weights, their own.
  for (float magnitude = 1; magnitude <= most; ++magnitude) {
    for (const float q : {-magnitude, magnitude}) {
      if (q < rule.lowest || q > rule.highest) continue;
      const float step = span / q;
      if (!std::isfinite(1 / step)) continue;
      const LatticeFit fit = fit_lattice(rule, x, step);
      if (fit.loss == 0) return step;
      if (fit.loss < best.loss) best = fit;
    }
  }
  return best.step;
}

// Sets a candidate, as the format can store it.
void set(const ScaleRule& rule, const BlockFit::Shared& shared, size_t c, float step, float minimum,
         Candidates* out) {
  if (!rule.shares()) {
    out->step[c] = rounded_to_f16(step);
    out->minimum[c] = rule.has_minimum ? -rounded_to_f16(-minimum) : 0.0f;
    return;
  }
  const auto multiple = [](float x, float unit, int lowest, int highest) {
    const float n = unit != 0 ? x / unit : 0.0f;
    return static_cast<int16_t>(
        std::nearbyint(std::min(std::max(n, static_cast<float>(lowest)), static_cast<float>(highest))));
  };
  out->scale[c] = multiple(step, shared.d, rule.lowest_scale, rule.highest_scale);
  out->step[c] = shared.d * out->scale[c];
  out->min[c] = rule.has_minimum ? multiple(minimum, shared.dmin, 0, rule.highest_minimum) : int16_t{0};
  out->minimum[c] = rule.has_minimum ? shared.dmin * out->min[c] : 0.0f;
}

void propose_symmetric(const ScaleRule& rule, const BlockFit::Shared& shared, const float* y,
                       const float* target, Candidates* out) {
  constexpr size_t kFactors = kCandidates / 2 - 1;
  const float largest = largest_magnitude(rule, y);
  for (size_t i = 0; i < kFactors; ++i) {
    set(rule, shared, 2 * i, largest / rule.lowest * factor(rule, i, kFactors), 0, out);
    set(rule, shared, 2 * i + 1, largest / rule.highest * factor(rule, i, kFactors), 0, out);
  }
  const float lattice = rule.lattice ? lattice_step(rule, target, 0) : largest / rule.lowest;
  set(rule, shared, kCandidates - 1, lattice, 0, out);
}

// Eight steps by four minima around a fit.
void propose_with_minimum(const ScaleRule& rule, const BlockFit::Shared& shared, const float* y,
                          const float* target, const float* weight, Candidates* out) {
  constexpr size_t kSteps = 8, kMinima = kCandidates / kSteps;
  // The fit of the one group, in a search for eight.
  float eight[f::kSearchLanes * kPanel] = {}, weigher[f::kSearchLanes * kPanel] = {};
  std::copy_n(y, rule.group, eight);
  std::copy_n(weight, rule.group, weigher);
  const f::MinimumRule search =
      rule.highest > 15 ? f::weighted_rule<31>(rule.group) : f::weighted_rule<15>(rule.group);
  f::MinimumFit fit;
  f::searches().minimum(search, eight, weigher, &fit);
  const float step = fit.scale[0], minimum = fit.minimum[0], middle = 0.5f * rule.highest;
  for (size_t a = 0; a < kSteps; ++a)
    for (size_t b = 0; b < kMinima; ++b) {
      const float change = static_cast<float>(a) - 3.0f;
      const float tried =
          rule.shares() ? std::max(step + change * shared.d, 0.0f) : step * factor(rule, a, kSteps);
      // What is in the middle of the range stays there.
      const float kept = minimum + middle * (tried - step);
      const float unit = rule.shares() ? shared.dmin : tried / 3.0f;
      set(rule, shared, a * kMinima + b, tried, kept + (static_cast<float>(b) - 1.0f) * unit, out);
    }
  if (rule.lattice) {
    const float lowest = *std::min_element(target, target + rule.group);
    set(rule, shared, kCandidates - 1, lattice_step(rule, target, lowest), -lowest, out);
  }
}

}  // namespace

const ScaleRule* find_scale_rule(DType dtype) noexcept {
  const auto found = std::find_if(std::begin(kRules), std::end(kRules),
                                  [&](const ScaleRule& r) { return r.dtype == dtype; });
  return found != std::end(kRules) ? found : nullptr;
}

BlockFit fit_block(const ScaleRule& rule, const float* y, const float* weight, float mean_square) noexcept {
  const BlockFormat& format = block_format(rule.dtype);
  uint8_t block[kMostBlockWeights * 2] = {};
  if (format.encode_weighted != nullptr)
    format.encode_weighted(y, weight, mean_square, 1, block);
  else
    format.encode(y, 1, block);
  BlockFit fit;
  if (format.first_non_finite(block, 1) == 0) {
    fit.n_shared = 0;
    return fit;
  }
  float largest_step = 0, largest_minimum = 0;
  for (size_t g = 0; g < format.block_weights / f::kGroup; ++g) {
    WeightGroup unpacked;
    format.unpack_group(block, g, &unpacked);
    for (size_t part = 0; part < f::kGroup / rule.group; ++part) {
      const size_t i = g * (f::kGroup / rule.group) + part;
      fit.step[i] = unpacked.d * static_cast<float>(unpacked.scale[part]);
      fit.minimum[i] = unpacked.has_min ? -(unpacked.mu * static_cast<float>(unpacked.min[part])) : 0.0f;
      if (std::fabs(fit.step[i]) > std::fabs(largest_step)) largest_step = fit.step[i];
      largest_minimum = std::max(largest_minimum, fit.minimum[i]);
    }
  }
  if (!rule.shares()) return fit;
  const float headroom = static_cast<float>(rule.headroom_scale);
  fit.shared[0] = {f::load_f16(block + rule.d_offset),
                   rule.has_minimum ? f::load_f16(block + rule.dmin_offset) : 0.0f};
  fit.shared[1] = {rounded_to_f16(largest_step / headroom), rounded_to_f16(largest_minimum / headroom)};
  fit.n_shared = largest_step != 0 ? 2 : 1;
  return fit;
}

void propose(const ScaleRule& rule, const BlockFit::Shared& shared, float fitted_step, float fitted_minimum,
             const float* y, const float* target, const float* weight, Candidates* out) noexcept {
  if (rule.has_minimum)
    propose_with_minimum(rule, shared, y, target, weight, out);
  else
    propose_symmetric(rule, shared, y, target, out);
  set(rule, shared, kCandidates - 2, fitted_step, fitted_minimum, out);
}

}  // namespace quern::calibrated
