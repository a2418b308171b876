#include "runtime/rope.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/math_f64.h"
#include "runtime/declarations.h"
#include "runtime/hparam_reader.h"

namespace quern {
namespace {

constexpr double kTwoPi = 0x1.921fb54442d18p2;

// The pair whose angle turns `turns` times over the original context, as a real number.
double correction_pair(const RopeSettings& s, double turns) {
  return s.rotary_dim * ln(s.original_context / (turns * kTwoPi)) / (2 * ln(s.base));
}

void apply_yarn(const RopeSettings& s, std::vector<double>* frequencies) {
  double low = correction_pair(s, s.beta_fast), high = correction_pair(s, s.beta_slow);
  if (s.whole_correction) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, s.rotary_dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies->size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    double& f = (*frequencies)[i];
    f = (f / s.factor) * ramp + f * (1 - ramp);
  }
}

// How attention's temperature grows with the context: YaRN's 0.1 ln(factor) + 1, scaled.
double yarn_magnitude(double factor, double scale) {
  return factor <= 1 ? 1.0 : 0.1 * scale * ln(factor) + 1.0;
}

}  // namespace

void Rope::fill(std::span<const SequenceRows> sequences, std::span<float> table) const {
  const size_t half = frequencies.size();
  // Of pair i: the cosine at step * i, the sine behind it or behind all cosines.
  const size_t step = pairs == RopePairs::kHalves ? 1 : 2, to_sine = pairs == RopePairs::kHalves ? half : 1;
  float* out = table.data();
  for (const SequenceRows& sequence : sequences)
    for (size_t t = 0; t < sequence.n; ++t, out += 2 * half)
      for (size_t i = 0; i < half; ++i) {
        double sine, cosine;
        sincos(static_cast<double>(sequence.position + t) * frequencies[i], &sine, &cosine);
        out[step * i] = static_cast<float>(cosine * magnitude);
        out[step * i + to_sine] = static_cast<float>(sine * magnitude);
      }
}

std::vector<double> rope_frequencies(uint32_t rotary_dim, double base) {
  const unsigned half = rotary_dim / 2;
  const double rho = root(base, half);
  std::vector<double> frequencies(half);
  for (unsigned i = 0; i < half; ++i) frequencies[i] = 1.0 / powi(rho, i);
  return frequencies;
}

double read_rope_base(HParamReader& keys, std::string_view key, double fallback) {
  const double base = keys.float_or(key, fallback);
  if (!(base >= 1.0)) keys.refuse(key, fmt::format("expected a number >= 1, found {}", base));
  return base;
}

void RopeSettings::read(HParamReader& keys, uint32_t head_dim, bool partial) {
  base = read_rope_base(keys);
  const std::string_view dim_key = "rope.dimension_count";
  rotary_dim = keys.uint_or(dim_key, head_dim, 1, kMaxDim);
  if (!partial && rotary_dim != head_dim)
    // The dimension key and the head size are two statements of one number; say which key is off.
    keys.refuse(dim_key, fmt::format("expected {} ({}), found {}; rotating a part of a head is not supported",
                                     head_dim,
                                     keys.has("attention.key_length") ? keys.full("attention.key_length")
                                                                      : "embedding_length / head_count",
                                     rotary_dim));
  if (rotary_dim > head_dim || rotary_dim % 2 != 0)
    keys.refuse(dim_key, fmt::format("expected an even number up to {}, found {}", head_dim, rotary_dim));

  const auto positive = [&](std::string_view key, double fallback) {
    const GgufValue* value = keys.find(key);
    if (value == nullptr) return fallback;
    const std::optional<double> number = number_of(*value);  // some writers give whole numbers
    if (!number) keys.gguf().refuse_value(keys.full(key), "a number");
    if (!(*number > 0) || !std::isfinite(*number))
      keys.refuse(key, fmt::format("expected a number > 0, found {}", *number));
    return *number;
  };
  // 0 stands for 1 in old files.
  const auto factor_of = [&](std::string_view key) {
    const GgufValue* value = keys.find(key);
    return value != nullptr && number_of(*value) == 0.0 ? 1.0 : positive(key, 1);
  };
  const std::string_view type_key = "rope.scaling.type", factor_key = "rope.scaling.factor";
  const std::string_view old_key = "rope.scale_linear";
  const std::string_view type = keys.string_or(type_key, "none");
  const double old_factor = factor_of(old_key);
  factor = keys.has(factor_key) ? factor_of(factor_key) : old_factor;
  if (keys.has(old_key) && old_factor != factor)
    keys.note(fmt::format("{} is {} and ignored: {} is {}", keys.full(old_key), old_factor,
                          keys.full(factor_key), factor));
  // A type "none" outweighs a factor that is left over; where no type is stated, a factor means "linear".
  if (keys.has(type_key) && type == "none" && factor != 1) {
    keys.note(fmt::format("{} is {} and ignored: {} is none",
                          keys.full(keys.has(factor_key) ? factor_key : old_key), factor,
                          keys.full(type_key)));
    factor = 1;
  }
  original_context =
      static_cast<double>(keys.uint_or("rope.scaling.original_context_length", 0, 0, kMaxTokens));
  const double attention_factor = positive("rope.scaling.attn_factor", 1);
  beta_fast = positive("rope.scaling.yarn_beta_fast", 32);
  beta_slow = positive("rope.scaling.yarn_beta_slow", 1);
  const double log_multiplier = keys.float_or_zero("rope.scaling.yarn_log_multiplier", 0);
  const std::string_view magnitude_key = "rope.scaling.yarn_attn_factor";
  const double extrapolation = keys.float_or("rope.scaling.yarn_ext_factor", 1);
  const bool is_scaled = type == "linear" || type == "yarn";
  const bool is_zero = keys.has(factor_key) && number_of(*keys.find(factor_key)) == 0.0;
  if (factor == 1 && attention_factor == 1 && !keys.has(magnitude_key) &&
      (is_scaled || (is_zero && type == "none"))) {
    keys.note(fmt::format("{} ({}) is ignored: its factor is 1, which changes nothing",
                          keys.full("rope.scaling"), type));
    return;
  }
  magnitude = attention_factor;
  if (type == "linear" || (type == "none" && factor != 1)) {
    scaling = Scaling::kLinear;
  } else if (type == "yarn") {
    scaling = Scaling::kYarn;
    if (original_context < 1)
      keys.refuse("rope.scaling.original_context_length", "is missing, which YaRN needs");
    if (extrapolation != 1)
      keys.refuse("rope.scaling.yarn_ext_factor", fmt::format("is {}: not supported", extrapolation));
    // A multiplier for all dimensions divides the temperature that attention would have.
    magnitude *= keys.has(magnitude_key)
                     ? positive(magnitude_key, 1)
                     : yarn_magnitude(factor, 1) /
                           (log_multiplier == 0 ? 1.0 : yarn_magnitude(factor, log_multiplier));
  } else if (type == "longrope") {
    scaling = Scaling::kLong;
  } else if (type != "none") {
    keys.refuse(type_key, fmt::format("is '{}': this RoPE scaling is not supported", printable(type)));
  }
}

void RopeSettings::declare(Declarations& parts) {
  const uint64_t half = rotary_dim / 2;
  if (half == 0) return;
  parts.values("rope_freqs.weight", half, &factors, parts.kOptional);
  if (!parts.holds("rope_factors_long.weight")) {
    if (scaling == Scaling::kLong)
      parts.refuse("rope.scaling.type is 'longrope', but tensor rope_factors_long.weight is missing");
    return;
  }
  parts.values("rope_factors_long.weight", half, &long_factors);
  parts.values("rope_factors_short.weight", half, &short_factors);
  scaling = Scaling::kLong;
}

uint64_t RopeSettings::usual_context() const {
  return scaling == Scaling::kLong && original_context >= 1 ? static_cast<uint64_t>(original_context)
                                                            : std::numeric_limits<uint64_t>::max();
}

Rope RopeSettings::make(uint64_t context) const {
  Rope rope{pairs, rope_frequencies(rotary_dim, base), magnitude};
  std::vector<double>& f = rope.frequencies;
  const std::vector<float>& divisors = scaling != Scaling::kLong   ? factors
                                       : context > usual_context() ? long_factors
                                                                   : short_factors;
  for (size_t i = 0; i < divisors.size(); ++i) f[i] = f[i] / static_cast<double>(divisors[i]);
  if (scaling == Scaling::kLinear)
    for (double& frequency : f) frequency = frequency / factor;
  if (scaling == Scaling::kYarn) apply_yarn(*this, &f);
  return rope;
}

}  // namespace quern
