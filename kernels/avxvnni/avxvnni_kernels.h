// What the AVX-VNNI kernel set (AVX2, FMA, F16C and 256-bit vpdpbusd in VEX encoding) is made of: Intel's
// client CPUs since 2021, which have no AVX-512. Callers have checked the CPU.
//
// Tests compile these files again for CPUs without AVX-VNNI (dot4.h), in a namespace of their own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_set.h"

#ifndef QUERN_AVXVNNI
#define QUERN_AVXVNNI avxvnni
#endif

namespace quern::QUERN_AVXVNNI {

// Tokens of a full activation tile: 16 rows x 4 tokens are 8 registers of sums; weights and activations take
// four of the other eight.
inline constexpr size_t kTileTokens = 4;

// The products of quantized formats. On TensorLayout::kPanels, from MatmulArgs::tiles. The same bits as the
// scalar set's.
extern const MatmulRows kQuantizedRows;
// The same on TensorLayout::kRows, from MatmulArgs::a.
extern const MatmulRows kCodebookRows;

// How these read activations (kernels/vnni_tiles.h): tiles of 4 tokens, the last one of 1 to 4.
extern const ActivationTiles kTiles;

// ProbeLoops::multiply.
uint64_t probe_multiply(uint64_t n_macs) noexcept;

extern const KernelSet kKernelSet;

}  // namespace quern::QUERN_AVXVNNI
