// The AVX-VNNI set: its own products of quantized weights, everything else from the AVX2 set, whose results
// have the same bits. Compiled for any CPU.
#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/avx2_ops.h"
#include "kernels/avxvnni/avxvnni_kernels.h"

#define QUERN_STRING(x) #x
#define QUERN_NAME(x) QUERN_STRING(x)

namespace quern::QUERN_AVXVNNI {
namespace {

constexpr const MatmulRows* kMatmuls[] = {&avx2::kFloatRows, &kQuantizedRows, &kCodebookRows};

constexpr ProbeLoops kProbeLoops = {"vpdpbusd (256 bits)", probe_multiply, avx2::probe_read};

}  // namespace

constinit const KernelSet kKernelSet =
    avx2::set_with_avx2_operations(QUERN_NAME(QUERN_AVXVNNI), kMatmuls, &kProbeLoops);

}  // namespace quern::QUERN_AVXVNNI
