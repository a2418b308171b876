#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/avx2_ops.h"

namespace quern::avx2 {
namespace {

constexpr const MatmulRows* kMatmuls[] = {&kFloatRows, &kByteRows, &kSignedRows, &kTwoScalesRows,
                                          &kCodebookRows};

}  // namespace

constinit const KernelSet kKernelSet = set_with_avx2_operations("avx2", kMatmuls, &kProbeLoops);

}  // namespace quern::avx2
