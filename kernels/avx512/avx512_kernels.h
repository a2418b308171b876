// What the AVX-512 kernel set (F, BW, DQ, VL and VNNI) is made of. Callers have checked the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_set.h"

namespace quern::avx512 {

// Tokens of a full activation tile: 16 accumulators, 8 registers of weights and a few temporaries fill the 32
// registers.
inline constexpr size_t kTileTokens = 16;
// Panels that many tokens meet together.
inline constexpr size_t kPanelsTogether = 8;

// The products, file by file. On TensorLayout::kPanels. The same bits as the scalar set's. Quantized formats
// read MatmulArgs::tiles.
extern const MatmulRows kFloatRows, kCentredRows, kMinimumRows, kTwoScalesRows;
// The same on TensorLayout::kRows, from MatmulArgs::a.
extern const MatmulRows kCodebookRows;

// How the quantized kernels read activations (tile.h).
extern const ActivationTiles kTiles;

// Q8_0's product, which attention scores keys with.
void matmul_q8_0(const MatmulArgs& args) noexcept;

// Contracts: kernels/kernel_set.h.
void attend_segment(const AttentionArgs& args, size_t segment, float* part) noexcept;
void merge_segment(const AttentionArgs& args, size_t segment, const float* part, float* total) noexcept;

extern const ProbeLoops kProbeLoops;
extern const KernelSet kKernelSet;

}  // namespace quern::avx512
