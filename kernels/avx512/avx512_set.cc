// The AVX-512 set: its own products and attention, everything else from the AVX2 set, whose results have the
// same bits. Compiled for any CPU.
#include <iterator>

#include "kernels/avx2/avx2_ops.h"
#include "kernels/avx512/avx512_kernels.h"

namespace quern::avx512 {
namespace {

constexpr ActivationTiles kTiles = {kTileTokens, tile_bytes, pack_tiles};

constexpr MatmulKernel kMatmuls[] = {
    {DType::F32, WeightLayout::kPanels, matmul_f32},
    {DType::F16, WeightLayout::kPanels, matmul_f16},
    {DType::BF16, WeightLayout::kPanels, matmul_bf16},
    {DType::Q4_0, WeightLayout::kPanels, matmul_q4_0, &kTiles},
    {DType::Q4_1, WeightLayout::kPanels, matmul_q4_1, &kTiles},
    {DType::Q5_0, WeightLayout::kPanels, matmul_q5_0, &kTiles},
    {DType::Q5_1, WeightLayout::kPanels, matmul_q5_1, &kTiles},
    {DType::Q8_0, WeightLayout::kPanels, matmul_q8_0, &kTiles},
    {DType::Q6_K, WeightLayout::kPanels, matmul_q6_k, &kTiles},
};

consteval KernelSet with_own_attention(KernelSet set) {
  set.attend_segment = attend_segment;
  set.merge_segment = merge_segment;
  return set;
}

}  // namespace

constinit const KernelSet kKernelSet =
    with_own_attention(avx2::set_with_avx2_operations("avx512", kMatmuls, std::size(kMatmuls), &kProbeLoops));

}  // namespace quern::avx512
