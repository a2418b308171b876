// The formats that the AVX2 set multiplies. Compiled for any CPU.
#include <iterator>

#include "kernels/avx2/avx2_kernels.h"

namespace quern::avx2 {

namespace {
constexpr ActivationTiles kTiles = {kTileTokens, tile_bytes, pack_tiles};
constexpr ActivationTiles kPairTiles = {kTileTokens, pair_tile_bytes, pack_pair_tiles};
}  // namespace

const MatmulKernel kMatmuls[] = {
    {DType::F32, WeightLayout::kPanels, matmul_f32},
    {DType::F16, WeightLayout::kPanels, matmul_f16},
    {DType::BF16, WeightLayout::kPanels, matmul_bf16},
    {DType::Q4_0, WeightLayout::kPanels, matmul_q4_0, &kTiles},
    {DType::Q4_1, WeightLayout::kPanels, matmul_q4_1, &kTiles},
    {DType::Q5_0, WeightLayout::kPanels, matmul_q5_0, &kTiles},
    {DType::Q5_1, WeightLayout::kPanels, matmul_q5_1, &kTiles},
    {DType::Q8_0, WeightLayout::kPanels, matmul_q8_0, &kPairTiles},
    {DType::Q6_K, WeightLayout::kPanels, matmul_q6_k, &kTiles},
};
static_assert(std::size(kMatmuls) == kMatmulCount);

}  // namespace quern::avx2
