// What the AVX2 kernel set (AVX2, FMA, F16C) is made of. Callers have checked the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_set.h"

namespace quern::avx2 {

// On WeightLayout::kPanels. The same bits as the scalar set's.
extern const MatmulKernel kMatmuls[];
inline constexpr size_t kMatmulCount = 9;

// The activations' forms (activation_tiles.h), as kernel_set.h's ActivationTiles has them: of Q8_0 and of the
// other quantized formats.
inline constexpr size_t kTileTokens = 4;
size_t tile_bytes(size_t n_tokens, size_t k) noexcept;
void pack_tiles(const QuantizedRows& a, size_t n_tokens, size_t k, size_t token_begin, size_t token_end,
                uint8_t* tiles) noexcept;
size_t pair_tile_bytes(size_t n_tokens, size_t k) noexcept;
void pack_pair_tiles(const QuantizedRows& a, size_t n_tokens, size_t k, size_t token_begin, size_t token_end,
                     uint8_t* tiles) noexcept;

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
