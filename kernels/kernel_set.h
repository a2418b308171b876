// One instruction set's implementation of the arithmetic (shared definition: every operation's bits are
// fixed, so all sets give the same results with ==). A set is a constant table of functions, chosen once
// (dispatch.h) and passed as a reference. Every function is noexcept, allocates nothing, keeps no state and
// may run on many threads at once. Buffers never overlap unless said. This header holds plain data only: it
// is included by translation units that are compiled for one instruction set, where a std container's inline
// code must not be instantiated.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/block_format.h"

namespace quern {

// Activations of n_tokens rows, quantized per token and 32 values (arithmetic.md "Activation quantizer").
// Owned by no set.
struct QuantizedRows {
  int8_t* codes;  // [n_tokens, k], |code| <= 127
  float* scales;  // [n_tokens, k / 32]; NaN where a value was not finite
  // [n_tokens, k / 32, 2 halves, 2]: sums of the codes of 16 values, those with k % 4 in {0, 1} and in {2, 3}
  // apart: S0 = sums[0] + sums[1], S1 = sums[2] + sums[3].
  int16_t* sums;
};

// A second form of quantized activations, laid out as the tiles of a set's kernels read them. Packed once for
// all products of an input; the bytes mean something to that set only.
struct ActivationTiles {
  size_t tokens;  // of a full tile
  size_t (*bytes)(size_t n_tokens, size_t k) noexcept;
  // The tile that begins at token t, a multiple of `tokens`, stands at byte bytes(t, k).
  // Packs the tiles that begin at tokens [token_begin, token_end); token_begin is a multiple of `tokens`.
  // tiles: the start of bytes(n_tokens, k) bytes for all of a.
  void (*pack)(const QuantizedRows& a, size_t n_tokens, size_t k, size_t token_begin, size_t token_end,
               uint8_t* tiles) noexcept;
};

// How a set wants the weights of a format.
enum class WeightLayout : uint8_t {
  kRows,    // as in the file
  kPanels,  // quant/panel_layout.h
};

struct MatmulArgs {
  const uint8_t* weights;     // [rows, k] in the kernel's layout, the whole matrix
  size_t k;                   // columns; a multiple of 32 for quantized formats, any for floats
  size_t row_begin, row_end;  // the output rows to compute; row_begin is a multiple of 16
  size_t n_tokens;            // >= 1
  const float* x;             // [n_tokens, k]; read by float formats
  QuantizedRows a;            // read by quantized formats
  const uint8_t* tiles;       // the same as MatmulKernel::tiles packs it, where the kernel has that
  float* y;                   // y[token * y_stride + row]
  size_t y_stride;
  bool add;  // y = y + dot instead of y = dot
};
using MatmulFn = void (*)(const MatmulArgs& args) noexcept;

struct MatmulKernel {
  DType dtype;
  WeightLayout layout;
  MatmulFn run;
  const ActivationTiles* tiles = nullptr;  // null: the kernel reads MatmulArgs::a
};

enum class KvType : uint8_t { kF16, kF32 };

// One layer's cache for one KV head. K is interleaved by 16 keys, so that lanes are keys: element (key, d)
// stands at
// [(key / 16) * head_dim * 16 + d * 16 + key % 16]; V is [key][head_dim]. Elements are f16 bits or f32
// (KvType). Memory starts zeroed.
struct KvHead {
  void* k;
  void* v;
};

struct StoreKvArgs {
  const float* k;  // [head_dim], after RoPE
  const float* v;  // [head_dim]
  size_t head_dim;
  size_t position;
  KvType type;
  KvHead cache;
};

struct AttentionArgs {
  const float* q;  // [n_heads, head_dim]: the query heads of one token that share this KV head, after RoPE
  size_t n_heads;
  size_t head_dim;  // even, 2..1024
  KvType type;
  KvHead cache;
  size_t first_key, position;  // keys first_key..position are valid (both included), all stored already
  float kappa;                 // f32(log2(e) / sqrt(head_dim))
  float* scratch;              // attention_scratch_floats(n_heads, head_dim)
  float* out;                  // [n_heads, head_dim]
};

inline constexpr size_t kAttentionTile = 64;
inline constexpr size_t kAttentionSegment = 512;

// Floats of scratch for one attend() call: scaled queries, scores of a tile, segment and merged accumulators.
constexpr size_t attention_scratch_floats(size_t n_heads, size_t head_dim) {
  return n_heads * (3 * (head_dim + 16) + kAttentionTile + 64) + 64;
}

// Loops that reach what the machine gives to this set's instructions at most: the yardstick of its kernels
// (machine_probe.h).
struct ProbeLoops {
  const char* multiply_name;  // the instruction that multiplies: "vpmaddubsw"
  // Runs independent multiplies of int8 numbers, at least `n_macs` multiply-adds. Returns how many it ran.
  uint64_t (*multiply)(uint64_t n_macs) noexcept;
  // Reads every byte once, in several streams; n_bytes is a multiple of kProbeReadStep, bytes 64-byte
  // aligned. Returns a value that depends on all of them.
  uint64_t (*read)(const uint8_t* bytes, size_t n_bytes) noexcept;
};
inline constexpr size_t kProbeReadStep = 4096;

struct KernelSet {
  const char* name;  // "scalar"
  const MatmulKernel* matmuls;
  size_t n_matmuls;

  // x: [n_tokens, k], k a multiple of 32.
  void (*quantize_activations)(const float* x, size_t n_tokens, size_t k, const QuantizedRows& out) noexcept;
  // One row of n values. y may be x.
  void (*rms_norm)(const float* x, const float* weight, size_t n, float eps, float* y) noexcept;
  // In place on [n_heads, head_dim]: pairs (2i, 2i+1) for i < rotary_dim / 2; cos_sin: [rotary_dim / 2, 2].
  void (*rope)(float* x, size_t n_heads, size_t head_dim, size_t rotary_dim, const float* cos_sin) noexcept;
  // h = gate * sigmoid(gate) * up; h may be gate.
  void (*swiglu)(const float* gate, const float* up, size_t n, float* h) noexcept;
  // False when K or V holds a NaN.
  bool (*store_kv)(const StoreKvArgs& args) noexcept;
  void (*attend)(const AttentionArgs& args) noexcept;
  // Sum over exp(z_k - z_max) as arithmetic.md "Perplexity" defines it.
  double (*sum_exp)(const float* z, size_t n, float z_max) noexcept;
  const ProbeLoops* probe;

  // Null when the set has no kernel for the format.
  const MatmulKernel* find_matmul(DType dtype) const noexcept {
    for (size_t i = 0; i < n_matmuls; ++i)
      if (matmuls[i].dtype == dtype) return &matmuls[i];
    return nullptr;
  }
};

}  // namespace quern
