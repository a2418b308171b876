#include "kernels/scalar/scalar_kernels.h"
#include "kernels/scalar/scalar_ops.h"

namespace quern::scalar {

constinit const KernelSet kKernelSet = {
    .name = "scalar",
    .matmuls = kMatmuls,
    .n_matmuls = kMatmulCount,
    .quantize_activations = quantize_activations,
    .rms_norm = rms_norm,
    .rope = rope,
    .swiglu = swiglu,
    .store_kv = store_kv,
    .attend_segment = attend_segment,
    .merge_segment = merge_segment,
    .sum_exp = sum_exp,
    .probe = &kProbeLoops,
};

}  // namespace quern::scalar
