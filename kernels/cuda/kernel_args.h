// What kernels of the GPU are given, and in which shapes they are launched. Plain data, for host and device.
// What changes from one token to the next,
// positions, is read from the device's memory, so that a step's launches are those of the step before
// (launch_queue.h). Pointers are the device's. Rows of floats are row-major; strides are in floats.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_set.h"

namespace quern::cuda {

inline constexpr int kGroup = 32;        // columns that share a scale of activations
inline constexpr int kRowThreads = 128;  // of kernels that take a row, or some values, a block

// x[token] (or x[rows[token]]) quantized: arithmetic.md "Activation quantizer". Blocks: (groups of a row / 4,
// tokens), kRowThreads.
struct QuantizeArgs {
  const float* x;
  size_t x_stride;
  const uint32_t* rows;  // [tokens], or null
  int k;                 // a multiple of 32
  int8_t* codes;         // [tokens, k]
  float* scales;         // [k / 32, stride]: da
  float* offsets;        // [k / 32, stride]: da * float(S)
  int* sums;             // [k / 32, stride]: S0 + 65536 * S1
  int stride;
};

// y = x * W^T, or y + it with `add`; then + bias where there is one. Of quantized formats x is what
// QuantizeArgs made of it.
struct ProductArgs {
  const uint8_t* panels;  // [n_rows rounded up to 16, k] (quant/panel_layout.h), aligned to 256 bytes
  int k, n_rows, n_tokens;
  const int8_t* codes;
  const float *scales, *offsets;
  const int* sums;
  int scales_stride;
  const float* x;  // of float formats
  size_t x_stride;
  const uint32_t* rows;  // of x, which the tokens are; null: the first ones
  float* y;
  size_t y_stride;
  const float* bias;  // [n_rows], or null
  float factor;       // of the dot
  bool add;
};
// Few tokens of a quantized format, 1, 2, 4 or 8 of them at most: a block a panel. kFewWorkers warps find the
// integers of all groups, a last one runs the chains of fused multiply-adds over them.
inline constexpr int kFewWorkers = 8, kFewChunk = 4 * kFewWorkers;  // groups that are found at a time
inline constexpr int kFewThreads = 32 * (kFewWorkers + 1);
constexpr size_t few_shared_bytes(int most_tokens) {
  return 2 * kFewChunk * kPanelRows * static_cast<size_t>(most_tokens + 3) * sizeof(float);
}
// Many tokens of a quantized format. Blocks: (rows / kManyRows, tokens / kManyTokens).
inline constexpr int kManyThreads = 128, kManyRows = 128, kManyTokens = 64;
inline constexpr int kManyGroups = 4;  // that are fetched at a time
// A token's codes stand so far from the next one's in shared memory that no two lanes meet in a bank.
inline constexpr int kManyTokenBytes = kManyGroups * kGroup + 16;
inline constexpr size_t kManyStageBytes = kManyTokens * (kManyTokenBytes + kManyGroups * 2 * sizeof(float));
inline constexpr size_t kManySharedBytes = 2 * kManyStageBytes;
// Of a float format. Blocks: (rows / kFloatThreads, tokens / 1 or 8).
inline constexpr int kFloatThreads = 64, kFloatChunk = 64;
constexpr size_t float_shared_bytes(int most_tokens) {
  return static_cast<size_t>(kFloatChunk * most_tokens) * sizeof(float);
}

// x[t] = row ids[t] of a matrix, decoded. Blocks: (k / kRowThreads, tokens), kRowThreads.
struct GatherArgs {
  const uint8_t* panels;
  int k;
  const int32_t* ids;
  float* x;
  size_t x_stride;
};

// Blocks: rows, kRowThreads.
struct NormArgs {
  const float *x, *weight;
  const float* bias;  // or null; LayerNorm alone
  float* y;
  int n;
  float eps;
  int n_weights = 1;  // groups of n weights that blocks take in turn
};

// Elementwise on n values. Blocks: n / (kRowThreads * kValuesPerThread), kRowThreads.
inline constexpr int kValuesPerThread = 4;
struct ValuesArgs {
  float* x = nullptr;
  const float* y = nullptr;  // null where there is one operand
  uint64_t n = 0;
  float factor = 1;             // of add and scale; clamp's limit
  int width = 1;                // of a row; add_gated
  const float* gate = nullptr;  // [rows]; add_gated
  Softcap cap = {0, 0};
  Activation activation = Activation::kSwiglu;
};

// Blocks: (columns / kRowThreads, rows), kRowThreads. Of each group of `stride` columns those from `column`
// on.
struct CopyColumnsArgs {
  const float* x;
  float* y;
  int x_width, y_width, x_column, x_stride, y_column, y_stride, width, n_groups;
};

// out = the weighted sum of the rows place[t, 0..n_used) of y, or out + it with `add`. Blocks: (width /
// kRowThreads, tokens), kRowThreads.
struct CombineArgs {
  const float* y;
  const uint32_t* place;
  const float* weight;  // [tokens, n_used]
  int n_used, width;
  float* out;
  bool add;
};

// Keys and values of a layer. Heads' segments as kernel_set.h's KvHead has them.
struct KvPlace {
  uint8_t* base;  // of KV head 0
  uint64_t head_bytes, segment_stride;
  uint64_t n_segments;
};

// Device::store_heads of one sequence's rows. Blocks: (heads of Q and KV heads / 4, rows), kRowThreads: a
// warp a head.
struct StoreHeadsArgs {
  float *q, *k, *v;  // of the first row: [rows, n_heads * head_dim], [rows, n_kv_heads * head_dim]
  int n_heads, n_kv_heads, head_dim;
  const float *q_norm, *k_norm;  // [head_dim], or null
  float eps;
  const float* rope;  // [rows, rotary_dim], or null
  int rotary_dim;
  bool halves;           // RopePairs::kHalves
  const float* q_scale;  // [rows], or null
  bool normalise_v;
  KvPlace cache;
  KvType type;
  const int* position;  // of the first row
  uint32_t nan_place;   // layer << 16 | the first row
  uint32_t* nan;        // the lowest such number with a NaN in K or V
};

// Attention of one sequence's rows. Blocks: (KV heads, query rows / most_rows, parts or 1), kRowThreads. The
// query rows of a KV head: its heads of the first token, of the second, and so on.
inline constexpr int kAttendRows = 8;  // of a block at most
struct AttendArgs {
  const float* q;  // of the first row: [tokens, q_dim]
  float* out;
  int q_dim, n_tokens, group_heads, head_dim;
  KvPlace cache;
  const int* position;  // of the first token
  int window;           // 0: none
  float kappa;
  Softcap cap;         // outer 0: none
  const float* sinks;  // [heads], or null
  int most_rows;
  // Null: a block takes all segments. Else each block one, the block_z()th of those that the tokens see (none
  // where there are fewer), and leaves what it found in parts[KV head, query row, n_parts]: head_dim values,
  // m and l. merge_parts takes these together.
  float* parts;
  int n_parts;
};
constexpr size_t attend_shared_bytes(int most_rows, int head_dim) {
  // Queries, sums, sums of all segments; queries as codes and their scales; probabilities, lanes, m and
  // alpha.
  return static_cast<size_t>(most_rows) *
         (static_cast<size_t>(head_dim) * (3 * sizeof(float) + 1) +
          (static_cast<size_t>(head_dim) / kKvGroup + kAttentionTile + 16 + 2) * sizeof(float));
}

// c = c + a * b with mma_f16, step after step. Blocks: as many as there are sums, of one warp. Fragments as
// the lanes hold them.
struct SumArgs {
  const uint32_t* a;  // [blocks, steps, 32, 4]
  const uint32_t* b;  // [blocks, steps, 32, 2]
  float* c;           // [blocks, 32, 4]
  int n_steps;
};

}  // namespace quern::cuda
