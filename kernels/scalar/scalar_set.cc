#include <iterator>

#include "kernels/scalar/scalar_kernels.h"
#include "kernels/scalar/scalar_ops.h"

namespace quern::scalar {
namespace {

constexpr const MatmulRows* kMatmuls[] = {&kMatmulRows};

}  // namespace

constinit const KernelSet kKernelSet = {
    .name = "scalar",
    .matmuls = kMatmuls,
    .n_matmuls = std::size(kMatmuls),
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
    .probe = &kProbeLoops,
};

}  // namespace quern::scalar
