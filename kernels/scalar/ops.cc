// The operations of arithmetic.md, written as it writes them: the reference that every other set equals bit
// for bit. Right first; speed is for the other sets.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/scalar/exp2q.h"
#include "kernels/scalar/fold16.h"
#include "kernels/scalar/scalar_ops.h"

namespace quern::scalar {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// 32 values; codes: [32], sums: [2, 2]. Returns the scale.
float quantize_group(const float* x, int8_t* codes, int16_t* sums) {
  uint32_t largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  std::fill(codes, codes + 32, int8_t{0});
  std::fill(sums, sums + 4, int16_t{0});
  if (largest >= 0x7f800000u) return std::numeric_limits<float>::quiet_NaN();
  if (largest < 0x0d800000u) return 0.0f;  // below 2^-100 the inverse would leave the normal range
  const float amax = std::bit_cast<float>(largest);
  const float inverse = 127 / amax;
  for (int i = 0; i < 32; ++i) {
    const int code = static_cast<int>(std::lrint(x[i] * inverse));
    codes[i] = static_cast<int8_t>(code);
    int16_t& sum = sums[i / 16 * 2 + i % 4 / 2];
    sum = static_cast<int16_t>(sum + code);
  }
  return amax / 127;
}

}  // namespace

void quantize_activations(const float* x, size_t n_tokens, size_t k, const QuantizedRows& out) noexcept {
  for (size_t group = 0; group < n_tokens * k / 32; ++group)
    out.scales[group] = quantize_group(x + group * 32, out.codes + group * 32, out.sums + group * 4);
}

void rms_norm(const float* x, const float* weight, size_t n, float eps, float* y) noexcept {
  float lanes[16] = {};
  for (size_t k = 0; k < n; ++k) lanes[k % 16] = std::fma(x[k], x[k], lanes[k % 16]);
  const float ss = fold16(lanes);
  const float r = ss < kInfinity ? 1 / std::sqrt(ss / static_cast<float>(n) + eps)
                                 : std::numeric_limits<float>::quiet_NaN();
  for (size_t k = 0; k < n; ++k) y[k] = (x[k] * r) * weight[k];
}

void rope(float* x, size_t n_heads, size_t head_dim, size_t rotary_dim, const float* cos_sin) noexcept {
  for (size_t head = 0; head < n_heads; ++head) {
    for (size_t i = 0; i < rotary_dim; i += 2) {
      float* pair = x + head * head_dim + i;
      const float x0 = pair[0], x1 = pair[1], c = cos_sin[i], s = cos_sin[i + 1];
      pair[0] = std::fma(x0, c, -(x1 * s));
      pair[1] = std::fma(x1, c, x0 * s);
    }
  }
}

void swiglu(const float* gate, const float* up, size_t n, float* h) noexcept {
  for (size_t i = 0; i < n; ++i) {
    const float e = exp2q(gate[i] * -0x1.715476p0f);
    h[i] = (gate[i] / (1 + e)) * up[i];
  }
}

double sum_exp(const float* z, size_t n, float z_max) noexcept {
  double lanes[16] = {};
  for (size_t k = 0; k < n; ++k) lanes[k % 16] += static_cast<double>(exp2q((z[k] - z_max) * 0x1.715476p0f));
  return fold16(lanes);
}

}  // namespace quern::scalar
