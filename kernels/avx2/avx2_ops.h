// The operations and the table of the AVX2 set (AVX2, FMA, F16C). Contracts: kernels/kernel_set.h.
#pragma once

#include "kernels/kernel_set.h"

namespace quern::avx2 {

void quantize_activations(const float* x, size_t n_tokens, size_t k, const QuantizedRows& out) noexcept;
void rms_norm(const float* x, const float* weight, size_t n, float eps, float* y) noexcept;
void layer_norm(const float* x, const float* weight, const float* bias, size_t n, float eps,
                float* y) noexcept;
void rope(float* x, size_t n_heads, size_t head_dim, size_t rotary_dim, const float* cos_sin) noexcept;
void rope_halves(float* x, size_t n_heads, size_t head_dim, size_t rotary_dim, const float* cos_sin) noexcept;
void activate(Activation kind, const float* gate, const float* up, size_t n, float* h) noexcept;
void add_scaled(const float* x, float factor, size_t n, float* y) noexcept;
void add_products(const float* w, const float* x, size_t n, float* y) noexcept;
void delta_step(float* state, const float* q, const float* k, const float* v, float decay, float beta,
                size_t k_dim, size_t v_dim, float* out) noexcept;
void softcap(float* x, size_t n, Softcap cap) noexcept;
bool store_kv(const StoreKvArgs& args) noexcept;
void attend_segment(const AttentionArgs& args, size_t segment, float* part) noexcept;
void merge_segment(const AttentionArgs& args, size_t segment, const float* part, float* total) noexcept;
double sum_exp(const float* z, size_t n, float z_max) noexcept;

uint64_t probe_read(const uint8_t* bytes, size_t n_bytes) noexcept;

// A set whose operations are these: the AVX2 set, and what sets for CPUs that have more begin with.
// consteval: no file has code of it, whatever that file is compiled for.
template <size_t kTables>
consteval KernelSet set_with_avx2_operations(const char* name, const MatmulRows* const (&matmuls)[kTables],
                                             const ProbeLoops* probe) {
  return {
      .name = name,
      .matmuls = matmuls,
      .n_matmuls = kTables,
      .quantize_activations = quantize_activations,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .rope = rope,
      .rope_halves = rope_halves,
      .activate = activate,
      .add_scaled = add_scaled,
      .add_products = add_products,
      .delta_step = delta_step,
      .softcap = softcap,
      .store_kv = store_kv,
      .attend_segment = attend_segment,
      .merge_segment = merge_segment,
      .sum_exp = sum_exp,
      .probe = probe,
  };
}

extern const ProbeLoops kProbeLoops;
extern const KernelSet kKernelSet;

}  // namespace quern::avx2
