// The reference set's operations and its table. Contracts: kernels/kernel_set.h.
#pragma once

#include "kernels/kernel_set.h"

namespace quern::scalar {

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
float softcap(float x, Softcap cap) noexcept;  // of one value
double sum_exp(const float* z, size_t n, float z_max) noexcept;

extern const ProbeLoops kProbeLoops;
extern const KernelSet kKernelSet;

}  // namespace quern::scalar
