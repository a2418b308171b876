#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/avx2_ops.h"

namespace quern::avx2 {

constinit const KernelSet kKernelSet = {
    .name = "avx2",
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

}  // namespace quern::avx2
