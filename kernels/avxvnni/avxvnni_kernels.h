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

// On WeightLayout::kPanels, from MatmulArgs::tiles. The same bits as the scalar set's.
void matmul_q4_0(const MatmulArgs& args) noexcept;
void matmul_q4_1(const MatmulArgs& args) noexcept;
void matmul_q5_0(const MatmulArgs& args) noexcept;
void matmul_q5_1(const MatmulArgs& args) noexcept;
void matmul_q8_0(const MatmulArgs& args) noexcept;
void matmul_q6_k(const MatmulArgs& args) noexcept;

// How these read activations (kernels/vnni_tiles.h): tiles of 4 tokens, the last one of 1 to 4.
size_t tile_bytes(size_t n_tokens, size_t k) noexcept;
void pack_tiles(const QuantizedRows& a, size_t n_tokens, size_t k, size_t token_begin, size_t token_end,
                uint8_t* tiles) noexcept;

// ProbeLoops::multiply.
uint64_t probe_multiply(uint64_t n_macs) noexcept;

extern const KernelSet kKernelSet;

}  // namespace quern::QUERN_AVXVNNI
