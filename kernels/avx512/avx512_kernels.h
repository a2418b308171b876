// What the AVX-512 kernel set (F, BW, DQ, VL and VNNI) is made of. Callers have checked the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_set.h"

namespace quern::avx512 {

// Tokens of a full activation tile: 16 accumulators, 8 registers of weights and a few temporaries fill the 32
// registers.
inline constexpr size_t kTileTokens = 16;

// On WeightLayout::kPanels. The same bits as the scalar set's. Quantized formats read MatmulArgs::tiles.
void matmul_f32(const MatmulArgs& args) noexcept;
void matmul_f16(const MatmulArgs& args) noexcept;
void matmul_bf16(const MatmulArgs& args) noexcept;
void matmul_q4_0(const MatmulArgs& args) noexcept;
void matmul_q4_1(const MatmulArgs& args) noexcept;
void matmul_q5_0(const MatmulArgs& args) noexcept;
void matmul_q5_1(const MatmulArgs& args) noexcept;
void matmul_q8_0(const MatmulArgs& args) noexcept;
void matmul_q6_k(const MatmulArgs& args) noexcept;

// How the quantized kernels read activations (tile.h).
size_t tile_bytes(size_t n_tokens, size_t k) noexcept;
void pack_tiles(const QuantizedRows& a, size_t n_tokens, size_t k, size_t token_begin, size_t token_end,
                uint8_t* tiles) noexcept;

// Contracts: kernels/kernel_set.h.
void attend_segment(const AttentionArgs& args, size_t segment, float* part) noexcept;
void merge_segment(const AttentionArgs& args, size_t segment, const float* part, float* total) noexcept;

extern const ProbeLoops kProbeLoops;
extern const KernelSet kKernelSet;

}  // namespace quern::avx512
