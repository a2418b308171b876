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

// exp of -x, as arithmetic.md has it in every sigmoid.
float exp_of_minus(float x) { return exp2q(x * -0x1.715476p0f); }

float gelu(float g) {
  const float c = std::fma(g * g, -0x1.a5a7d0p-4f, -0x1.26aec2p+1f);
  return g / (1 + exp2q(g * c));
}

float activate_one(Activation kind, float g, float u) {
  switch (kind) {
    case Activation::kSwiglu:
      return (g / (1 + exp_of_minus(g))) * u;
    case Activation::kSilu:
      return g / (1 + exp_of_minus(g));
    case Activation::kGeglu:
      return gelu(g) * u;
    case Activation::kGelu:
      return gelu(g);
    case Activation::kRelu2: {
      const float r = g < 0 ? 0 : g;
      return r * r;
    }
    case Activation::kGptOss: {
      const float top = 7 < g ? 7 : g;
      const float low = u < -7 ? -7 : u, clamped = 7 < low ? 7 : low;
      return (top / (1 + exp2q(top * -0x1.3a4cbep+1f))) * (clamped + 1);
    }
    case Activation::kSigmoid:
      return u / (1 + exp_of_minus(g));
  }
  return 0;
}

}  // namespace

float softcap(float x, Softcap cap) noexcept {
  const float e = exp2q(std::fabs(x) * -cap.inner);
  return std::copysign(cap.outer * ((1 - e) / (1 + e)), x);
}

void quantize_activations(const float* x, size_t n_tokens, size_t k, const QuantizedRows& out) noexcept {
  for (size_t group = 0; group < n_tokens * k / 32; ++group)
    out.scales[group] = quantize_group(x + group * 32, out.codes + group * 32, out.sums + group * 4);
}

// Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, section 4.
void rms_norm(const float* x, const float* weight, size_t n, float eps, float* y) noexcept {
  float lanes[16] = {};
  for (size_t k = 0; k < n; ++k) lanes[k % 16] = std::fma(x[k], x[k], lanes[k % 16]);
  const float ss = fold16(lanes);
  const float r = ss < kInfinity ? 1 / std::sqrt(ss / static_cast<float>(n) + eps)
                                 : std::numeric_limits<float>::quiet_NaN();
  for (size_t k = 0; k < n; ++k) y[k] = (x[k] * r) * weight[k];
}

void layer_norm(const float* x, const float* weight, const float* bias, size_t n, float eps,
                float* y) noexcept {
  float lanes[16] = {};
  for (size_t k = 0; k < n; ++k) lanes[k % 16] = lanes[k % 16] + x[k];
  const float mean = fold16(lanes) / static_cast<float>(n);
  std::fill(lanes, lanes + 16, 0.0f);
  for (size_t k = 0; k < n; ++k) {
    const float d = x[k] - mean;
    lanes[k % 16] = std::fma(d, d, lanes[k % 16]);
  }
  const float ss = fold16(lanes);
  const float r = ss < kInfinity ? 1 / std::sqrt(ss / static_cast<float>(n) + eps)
                                 : std::numeric_limits<float>::quiet_NaN();
  for (size_t k = 0; k < n; ++k) {
    y[k] = ((x[k] - mean) * r) * weight[k];
    if (bias != nullptr) y[k] = y[k] + bias[k];
  }
}

// Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, section 3.2.2.
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

void rope_halves(float* x, size_t n_heads, size_t head_dim, size_t rotary_dim,
                 const float* cos_sin) noexcept {
  const size_t half = rotary_dim / 2;
  for (size_t head = 0; head < n_heads; ++head, x += head_dim) {
    for (size_t i = 0; i < half; ++i) {
      const float x0 = x[i], x1 = x[half + i], c = cos_sin[i], s = cos_sin[half + i];
      x[i] = std::fma(x0, c, -(x1 * s));
      x[half + i] = std::fma(x1, c, x0 * s);
    }
  }
}

void activate(Activation kind, const float* gate, const float* up, size_t n, float* h) noexcept {
  for (size_t i = 0; i < n; ++i) h[i] = activate_one(kind, gate[i], up == nullptr ? 0.0f : up[i]);
}

void add_scaled(const float* x, float factor, size_t n, float* y) noexcept {
  for (size_t i = 0; i < n; ++i) y[i] = std::fma(factor, x[i], y[i]);
}

void add_products(const float* w, const float* x, size_t n, float* y) noexcept {
  for (size_t i = 0; i < n; ++i) y[i] = std::fma(w[i], x[i], y[i]);
}

void delta_step(float* state, const float* q, const float* k, const float* v, float decay, float beta,
                size_t k_dim, size_t v_dim, float* out) noexcept {
  for (size_t j = 0; j < v_dim; ++j) {
    float found = 0;  // what the state holds for this key
    for (size_t i = 0; i < k_dim; ++i) {
      state[i * v_dim + j] = state[i * v_dim + j] * decay;
      found = std::fma(k[i], state[i * v_dim + j], found);
    }
    const float delta = (v[j] - found) * beta;
    float o = 0;
    for (size_t i = 0; i < k_dim; ++i) {
      state[i * v_dim + j] = std::fma(k[i], delta, state[i * v_dim + j]);
      o = std::fma(q[i], state[i * v_dim + j], o);
    }
    out[j] = o;
  }
}

void softcap(float* x, size_t n, Softcap cap) noexcept {
  for (size_t i = 0; i < n; ++i) x[i] = softcap(x[i], cap);
}

double sum_exp(const float* z, size_t n, float z_max) noexcept {
  double lanes[16] = {};
  for (size_t k = 0; k < n; ++k) lanes[k % 16] += static_cast<double>(exp2q((z[k] - z_max) * 0x1.715476p0f));
  return fold16(lanes);
}

}  // namespace quern::scalar
