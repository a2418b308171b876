// What the AVX2 kernel set (AVX2, FMA, F16C) is made of. Callers have checked the CPU.
#pragma once

#include <cstddef>

#include "kernels/kernel_set.h"

namespace quern::avx2 {

// On WeightLayout::kPanels. The same bits as the scalar set's.
extern const MatmulKernel kMatmuls[];
extern const size_t kMatmulCount;

// The functions behind the rows of kMatmuls, one file a family of formats.
void matmul_f32(const MatmulArgs& args) noexcept;
void matmul_f16(const MatmulArgs& args) noexcept;
void matmul_bf16(const MatmulArgs& args) noexcept;
void matmul_q4_0(const MatmulArgs& args) noexcept;
void matmul_q4_1(const MatmulArgs& args) noexcept;
void matmul_q5_0(const MatmulArgs& args) noexcept;
void matmul_q5_1(const MatmulArgs& args) noexcept;
void matmul_q8_0(const MatmulArgs& args) noexcept;
void matmul_q6_k(const MatmulArgs& args) noexcept;

}  // namespace quern::avx2
