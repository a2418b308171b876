// Norms, elementwise operations and copies.
#pragma once

#include "kernels/cuda/arithmetic.h"
#include "kernels/cuda/kernel_args.h"
#include "kernels/cuda/vocabulary.h"

namespace quern::cuda {

// The sum of squares of x[i] - mean in sixteen lanes, the same in every lane of the warp.
QUERN_GPU_FN float warp_squares(const float* x, int n, float mean) {
  float sum = 0;
  for (int i = lane() % 16; i < n; i += 16) {
    const float d = sub(x[i], mean);
    sum = fma(d, d, sum);
  }
  return warp_fold16(sum);
}
QUERN_GPU_FN float warp_squares(const float* x, int n) {
  float sum = 0;
  for (int i = lane() % 16; i < n; i += 16) sum = fma(x[i], x[i], sum);
  return warp_fold16(sum);
}

QUERN_GPU_FN void rms_norm(const NormArgs& a) {
  const size_t begin = static_cast<size_t>(block_x()) * static_cast<size_t>(a.n);
  const float* const x = a.x + begin;
  float* const y = a.y + begin;
  float* const r = reinterpret_cast<float*>(shared());
  if (thread() < 32) {
    const float value = inverse_rms(warp_squares(x, a.n), a.n, a.eps);
    if (thread() == 0) *r = value;
  }
  sync_block();
  for (int i = thread(); i < a.n; i += block_threads()) y[i] = mul(mul(x[i], *r), a.weight[i]);
}

QUERN_GPU_FN void layer_norm(const NormArgs& a) {
  const size_t begin = static_cast<size_t>(block_x()) * static_cast<size_t>(a.n);
  const float* const x = a.x + begin;
  float* const y = a.y + begin;
  const float* const weight =
      a.weight + static_cast<size_t>(block_x() % a.n_weights) * static_cast<size_t>(a.n);
  float* const found = reinterpret_cast<float*>(shared());  // the mean, 1 / deviation
  if (thread() < 32) {
    float sum = 0;
    for (int i = lane() % 16; i < a.n; i += 16) sum = add(sum, x[i]);
    const float mean = div(warp_fold16(sum), to_float(a.n));
    const float r = inverse_rms(warp_squares(x, a.n, mean), a.n, a.eps);
    if (thread() == 0) {
      found[0] = mean;
      found[1] = r;
    }
  }
  sync_block();
  for (int i = thread(); i < a.n; i += block_threads()) {
    const float value = mul(mul(sub(x[i], found[0]), found[1]), weight[i]);
    y[i] = a.bias == nullptr ? value : add(value, a.bias[i]);
  }
}

// 1 + exp(-x).
QUERN_GPU_FN float one_and_exp(float x) { return add(1.0f, exp2q(mul(x, -0x1.715476p0f))); }

QUERN_GPU_FN float gelu(float g) {
  const float c = fma(mul(g, g), -0x1.a5a7d0p-4f, -0x1.26aec2p+1f);
  return div(g, add(1.0f, exp2q(mul(g, c))));
}

QUERN_GPU_FN float activate_one(Activation kind, float g, float u) {
  switch (kind) {
    case Activation::kSwiglu:
      return mul(div(g, one_and_exp(g)), u);
    case Activation::kSilu:
      return div(g, one_and_exp(g));
    case Activation::kGeglu:
      return mul(gelu(g), u);
    case Activation::kGelu:
      return gelu(g);
    case Activation::kRelu2: {
      const float r = g < 0 ? 0 : g;
      return mul(r, r);
    }
    case Activation::kGptOss: {
      const float top = 7 < g ? 7 : g;
      const float low = u < -7 ? -7 : u, clamped = 7 < low ? 7 : low;
      return mul(div(top, add(1.0f, exp2q(mul(top, -0x1.3a4cbep+1f)))), add(clamped, 1.0f));
    }
    case Activation::kSigmoid:
      return div(u, one_and_exp(g));
  }
  return 0;
}

// Calls body(i) for this thread's values.
template <class Body>
QUERN_GPU_FN void for_values(uint64_t n, Body&& body) {
  const uint64_t first =
      static_cast<uint64_t>(block_x()) * kRowThreads * kValuesPerThread + static_cast<uint64_t>(thread());
  QUERN_GPU_UNROLL
  for (int i = 0; i < kValuesPerThread; ++i) {
    const uint64_t at = first + static_cast<uint64_t>(i) * kRowThreads;
    if (at < n) body(at);
  }
}

QUERN_GPU_FN void activate(const ValuesArgs& a) {
  for_values(
      a.n, [&](uint64_t i) { a.x[i] = activate_one(a.activation, a.x[i], a.y == nullptr ? 0.0f : a.y[i]); });
}
QUERN_GPU_FN void add_values(const ValuesArgs& a) {
  for_values(a.n, [&](uint64_t i) { a.x[i] = add(a.x[i], mul(a.y[i], a.factor)); });
}
QUERN_GPU_FN void scale_values(const ValuesArgs& a) {
  for_values(a.n, [&](uint64_t i) { a.x[i] = mul(a.x[i], a.factor); });
}
QUERN_GPU_FN void multiply_values(const ValuesArgs& a) {
  for_values(a.n, [&](uint64_t i) { a.x[i] = mul(a.x[i], a.y[i]); });
}
QUERN_GPU_FN void add_gated(const ValuesArgs& a) {
  for_values(a.n, [&](uint64_t i) {
    const float s = div(1.0f, one_and_exp(a.gate[i / static_cast<uint32_t>(a.width)]));
    a.x[i] = add(a.x[i], mul(a.y[i], s));
  });
}
QUERN_GPU_FN void clamp_values(const ValuesArgs& a) {
  for_values(a.n, [&](uint64_t i) {
    const float v = a.x[i];
    a.x[i] = v > a.factor ? a.factor : v < -a.factor ? -a.factor : v;
  });
}
QUERN_GPU_FN void softcap_values(const ValuesArgs& a) {
  for_values(a.n, [&](uint64_t i) { a.x[i] = softcap_one(a.x[i], a.cap); });
}

QUERN_GPU_FN void copy_columns(const CopyColumnsArgs& a) {
  const int i = block_x() * kRowThreads + thread(), row = block_y();
  if (i >= a.n_groups * a.width) return;
  const int group = i / a.width, column = i % a.width;
  a.y[static_cast<size_t>(row) * static_cast<size_t>(a.y_width) +
      static_cast<size_t>(group * a.y_stride + a.y_column + column)] =
      a.x[static_cast<size_t>(row) * static_cast<size_t>(a.x_width) +
          static_cast<size_t>(group * a.x_stride + a.x_column + column)];
}

QUERN_GPU_FN void combine_experts(const CombineArgs& a) {
  const int i = block_x() * kRowThreads + thread();
  const size_t row = static_cast<size_t>(block_y());
  if (i >= a.width) return;
  float sum = 0;
  for (size_t s = row * static_cast<size_t>(a.n_used); s < (row + 1) * static_cast<size_t>(a.n_used); ++s)
    sum = fma(a.weight[s],
              a.y[static_cast<size_t>(a.place[s]) * static_cast<size_t>(a.width) + static_cast<size_t>(i)],
              sum);
  float* const out = a.out + row * static_cast<size_t>(a.width) + static_cast<size_t>(i);
  *out = a.add ? add(*out, sum) : sum;
}

}  // namespace quern::cuda
