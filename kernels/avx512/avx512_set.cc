// The AVX-512 set: its own products and attention, everything else from the AVX2 set, whose results have the
// same bits. Compiled for any CPU.
#include "kernels/avx2/avx2_ops.h"
#include "kernels/avx512/avx512_kernels.h"

namespace quern::avx512 {
namespace {

constexpr const MatmulRows* kMatmuls[] = {&kFloatRows, &kCentredRows, &kMinimumRows, &kTwoScalesRows,
                                          &kCodebookRows};

consteval KernelSet with_own_attention(KernelSet set) {
  set.attend_segment = attend_segment;
  set.merge_segment = merge_segment;
  return set;
}

}  // namespace

constinit const KernelSet kKernelSet =
    with_own_attention(avx2::set_with_avx2_operations("avx512", kMatmuls, &kProbeLoops));

}  // namespace quern::avx512
