#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/avx2_ops.h"

namespace quern::avx2 {

constinit const KernelSet kKernelSet = set_with_avx2_operations("avx2", kMatmuls, kMatmulCount, &kProbeLoops);

}  // namespace quern::avx2
