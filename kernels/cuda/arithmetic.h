// Pieces of arithmetic.md that several kernels of the GPU use.
#pragma once

#include "kernels/cuda/kernel_args.h"
#include "kernels/cuda/vocabulary.h"

namespace quern::cuda {

QUERN_GPU_FN float infinity() { return from_bits(0x7f800000u); }
QUERN_GPU_FN float not_a_number() { return from_bits(0x7fc00000u); }

// 2^x: "exp2q".
QUERN_GPU_FN float exp2q(float x) {
  const float y = 126.0f < x ? 126.0f : x;
  const float t = add(y, 12583039.0f);
  const float r = sub(y, sub(t, 12583039.0f));
  float p = fma(0x1.44138ap-13f, r, 0x1.5f0890p-10f);
  p = fma(p, r, 0x1.3b2a54p-7f);
  p = fma(p, r, 0x1.c6af6cp-5f);
  p = fma(p, r, 0x1.ebfbe0p-3f);
  p = fma(p, r, 0x1.62e430p-1f);
  p = fma(p, r, 1.0f);
  const float value = mul(p, from_bits(bits(t) << 23));
  return x < -100.0f ? 0.0f : value;
}

// Of lanes that hold L[lane % 16]: rule 3, the same in every lane.
QUERN_GPU_FN float warp_fold16(float value) {
  QUERN_GPU_UNROLL
  for (int h = 8; h >= 1; h /= 2)
    value = add(value, warp_shuffle(value, (lane() + h) % 16));  // right in lanes below h, which count
  return warp_shuffle(value, 0);
}
QUERN_GPU_FN float fold16(const float* lanes) {
  float l[8];
  QUERN_GPU_UNROLL
  for (int i = 0; i < 8; ++i) l[i] = add(lanes[i], lanes[i + 8]);
  QUERN_GPU_UNROLL
  for (int h = 4; h >= 1; h /= 2) QUERN_GPU_UNROLL
  for (int i = 0; i < h; ++i) l[i] = add(l[i], l[i + h]);
  return l[0];
}

// 1 / sqrt(mean of squares + eps), of ss = the sum of n squares.
QUERN_GPU_FN float inverse_rms(float ss, int n, float eps) {
  if (!(ss < infinity())) return not_a_number();
  return div(1.0f, sqrt(add(div(ss, to_float(n)), eps)));
}

// One value a lane of a group of 32.
struct QuantizedLane {
  int code;
  float scale;
};
QUERN_GPU_FN QuantizedLane quantize_lane(float x) {
  const uint32_t largest = warp_largest(bits(x) & 0x7fffffffu);
  if (largest >= 0x7f800000u) return {0, not_a_number()};
  if (largest < 0x0d800000u) return {0, 0.0f};
  const float amax = from_bits(largest);
  return {round_to_int(mul(x, div(127.0f, amax))), div(amax, 127.0f)};
}

QUERN_GPU_FN float softcap_one(float x, Softcap cap) {
  const float e = exp2q(mul(from_bits(bits(x) & 0x7fffffffu), -cap.inner));
  const float value = mul(cap.outer, div(sub(1.0f, e), add(1.0f, e)));
  return from_bits((bits(value) & 0x7fffffffu) | (bits(x) & 0x80000000u));
}

}  // namespace quern::cuda
