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
#include "quant/tensor_layout.h"

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

// A second form of quantized activations, laid out as the tiles of some of a set's kernels read them. Packed
// once for all products of an input whose kernels name the same form; the bytes mean something to that set
// only.
struct ActivationTiles {
  size_t tokens;  // of a full tile
  // Size of the tiles of n_tokens tokens. The tile that begins at token t, a multiple of `tokens`, stands at
  // byte bytes(t, k).
  size_t (*bytes)(size_t n_tokens, size_t k) noexcept;
  // Packs the tiles that begin at tokens [token_begin, token_end); token_begin is a multiple of `tokens`.
  // tiles: the start of bytes(n_tokens, k) bytes for all of a.
  void (*pack)(const QuantizedRows& a, size_t n_tokens, size_t k, size_t token_begin, size_t token_end,
               uint8_t* tiles) noexcept;
};

struct MatmulArgs {
  const uint8_t* weights;     // [row_end, k] in the kernel's layout, panels whole: a matrix, or a part of it
  size_t k;                   // columns; a multiple of 32 for quantized formats, any for floats
  size_t row_begin, row_end;  // the rows of `weights` to multiply; row_begin is a multiple of 16
  size_t n_tokens;            // >= 1
  const float* x;             // [n_tokens, k]; read by kernels of float formats
  QuantizedRows a;            // read by kernels of quantized formats on rows
  const uint8_t* tiles;       // of `a`, as MatmulKernel::tiles packs it; read by kernels that have that
  float* y;                   // y[token * y_stride + row], row counted as in `weights`
  size_t y_stride;
  bool add;          // y = y + dot instead of y = dot
  float factor = 1;  // of every dot (TensorView::factor)
};
using MatmulFn = void (*)(const MatmulArgs& args) noexcept;
inline constexpr size_t kMatmulStackBytes = 512 << 10;  // that a MatmulFn takes of a thread's stack at most

struct MatmulKernel {
  DType dtype;
  TensorLayout layout;  // of MatmulArgs::weights
  MatmulFn run;
  const ActivationTiles* tiles = nullptr;  // null: the kernel reads MatmulArgs::a, or x
  // Panels that share one reading of many tokens' activations when they are given together. At least 1.
  size_t panels = 1;
};

// The kernels of one file: its rows of a set's table.
struct MatmulRows {
  const MatmulKernel* rows;
  size_t n_rows;
};

enum class KvType : uint8_t { kF16, kF32, kQ8_0 };

// What a feed-forward network does between its products (arithmetic.md "Activations").
enum class Activation : uint8_t {
  kSwiglu,   // silu(g) * u
  kGeglu,    // gelu(g) * u, in the form with tanh
  kSilu,     // silu(g)
  kGelu,     // gelu(g)
  kRelu2,    // max(g, 0)^2
  kGptOss,   // the clamped SwiGLU of gpt-oss
  kSigmoid,  // sigmoid(g) * u
};
constexpr bool is_gated(Activation kind) {
  return kind != Activation::kSilu && kind != Activation::kGelu && kind != Activation::kRelu2;
}

// outer * tanh(x * inner / (2 log2 e)), which keeps x within outer; both > 0.
struct Softcap {
  float inner, outer;
};

inline constexpr size_t kAttentionTile = 64;
inline constexpr size_t kAttentionSegment = 512;
inline constexpr size_t kKvBlockKeys = 16;  // keys that the cache interleaves
inline constexpr size_t kKvBlockDims = 16;  // dims of a value that lie together
inline constexpr size_t kKvGroup = 32;      // values that share a scale (Q8_0)

// Bytes of one key, or of one value, of head_dim elements.
static constexpr uint64_t kv_row_bytes(KvType type, uint64_t head_dim) {
  if (type == KvType::kQ8_0) return head_dim / kKvGroup * (kKvGroup + 2);
  return head_dim * (type == KvType::kF16 ? 2 : 4);
}

// Where the keys and values of one layer and KV head lie: in segments of kAttentionSegment positions (where
// there is only one, of any number of whole tiles), segment g at base + g * segment_stride. A segment is
// tiles of kAttentionTile positions, one behind the other, each with its keys, then its values, in the order
// in which attention reads them: from the first byte to the last, as prefetchers like it. A tile's memory is
// always whole; it starts zeroed, and what a position held before it was stored again is never read.
//   F16, F32  keys    [4 blocks][head_dim][16 keys], so that lanes are keys
//             values  [head_dim / 16 blocks][64 keys][16 dims], so that lanes are dims; what is left of other
//                     head_dims is a narrower block
//   Q8_0      keys    [4 blocks of 16 keys] panels as quant/panel_layout.h has them of 16 rows: for every 32
//                     dims 16 x f16 d, then 8 steps j of 16 x codes 4j .. 4j+3
//             values  for every 32 dims 64 x f16 d, then [2 blocks][64 keys][16 codes]. No code is -128
// A ring keeps the last few segments only: g stands where segment g % n_segments does.
struct KvHead {
  uint8_t* base;  // not owned
  size_t segment_stride;
  size_t n_segments;  // >= 1

  constexpr uint8_t* segment_of(size_t position) const {
    return base + position / kAttentionSegment % n_segments * segment_stride;
  }
};

// Place of the block of 16 keys that `position` is in.
static constexpr uint8_t* kv_keys(const KvHead& head, KvType type, size_t head_dim, size_t position) {
  const size_t tile = position % kAttentionSegment / kAttentionTile;
  const size_t block = position % kAttentionTile / kKvBlockKeys;
  return head.segment_of(position) +
         (tile * 2 * kAttentionTile + block * kKvBlockKeys) * kv_row_bytes(type, head_dim);
}

// Place of the values of the tile that `position` is in.
static constexpr uint8_t* kv_values(const KvHead& head, KvType type, size_t head_dim, size_t position) {
  const size_t tile = position % kAttentionSegment / kAttentionTile;
  return head.segment_of(position) + (tile * 2 + 1) * kAttentionTile * kv_row_bytes(type, head_dim);
}

// Which of a tile's elements dim d of `position`'s value is: of F16 and F32, and of the codes of 32 dims of
// Q8_0 when head_dim is 32.
static constexpr size_t kv_value_index(size_t head_dim, size_t position, size_t d) {
  const size_t first = d / kKvBlockDims * kKvBlockDims;
  const size_t width = head_dim - first < kKvBlockDims ? head_dim - first : kKvBlockDims;
  return first * kAttentionTile + position % kAttentionTile * width + (d - first);
}

struct StoreKvArgs {
  const float* k;   // [head_dim], after RoPE
  const float* v;   // [head_dim]
  size_t head_dim;  // 1..kMaxHeadDim; Q8_0: a multiple of 32
  size_t position;
  KvType type;
  KvHead cache;
};

inline constexpr size_t kMaxHeadDim = 1024;

// Some query heads, all of one KV head, of neighbouring tokens.
struct AttentionArgs {
  const float* q;   // [n_tokens] rows, q_stride apart, of [n_heads, head_dim], after RoPE
  size_t q_stride;  // in floats
  size_t n_tokens, n_heads;
  size_t head_dim;  // as in StoreKvArgs
  KvType type;
  KvHead cache;
  size_t position;  // of the first token. Token t sees keys max(0, position + t - window + 1)..position + t,
  size_t window;    // all of them stored already; 0: from the first on
  float kappa;      // f32(log2(e) / sqrt(head_dim)), or what the model has in its place
  float* scratch;   // [attention_scratch_floats(n_tokens * n_heads, head_dim)], aligned to 64 bytes
  float* out;       // [n_tokens] rows, out_stride apart, of [n_heads, head_dim]
  size_t out_stride;
  Softcap softcap = {0, 0};  // of scores; outer 0: none
  const float* sinks =
      nullptr;  // [n_heads] logits that take part in the softmax and have no value; null: none
};

// Row r of a block is head r % n_heads of token r / n_heads.
//
// What attention over one segment (or over all up to some segment) has found for n_rows rows: [n_rows,
// head_dim] weighted values, [n_rows] maxima, [n_rows] sums: acc, m and l of arithmetic.md "Attention".
static constexpr size_t attention_part_floats(size_t n_rows, size_t head_dim) {
  return n_rows * (head_dim + 2);
}

static constexpr size_t first_visible_key(size_t position, size_t window) {
  return window == 0 || position < window ? 0 : position - window + 1;
}

// Floats of scratch for one attend_segment() call: per row queries twice (as floats; as codes, which some
// sets pad by up to three rows), scores of a tile and the like; a block of keys or values as floats.
static constexpr size_t attention_scratch_floats(size_t n_rows, size_t head_dim) {
  return (n_rows + 3) * (2 * (head_dim + 16) + head_dim / 8 + kAttentionTile + 48) +
         (kKvBlockKeys + 4) * (head_dim + 16) + 17 * kAttentionTile + 256;
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
  const char* name;                  // "scalar"
  const MatmulRows* const* matmuls;  // [n_matmuls] tables; a format stands in one of them at most
  size_t n_matmuls;

  // x: [n_tokens, k], k a multiple of 32.
  void (*quantize_activations)(const float* x, size_t n_tokens, size_t k, const QuantizedRows& out) noexcept;
  // One row of n values. y may be x.
  void (*rms_norm)(const float* x, const float* weight, size_t n, float eps, float* y) noexcept;
  // bias: [n], or null.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, size_t n, float eps,
                     float* y) noexcept;
  // In place on [n_heads, head_dim]: pairs (2i, 2i+1) for i < rotary_dim / 2; cos_sin: [rotary_dim / 2, 2].
  void (*rope)(float* x, size_t n_heads, size_t head_dim, size_t rotary_dim, const float* cos_sin) noexcept;
  // The same of pairs (i, i + rotary_dim / 2); cos_sin: [2, rotary_dim / 2].
  void (*rope_halves)(float* x, size_t n_heads, size_t head_dim, size_t rotary_dim,
                      const float* cos_sin) noexcept;
  // h may be gate. up: null where the kind is not gated.
  void (*activate)(Activation kind, const float* gate, const float* up, size_t n, float* h) noexcept;
  // y = fma(factor, x, y).
  void (*add_scaled)(const float* x, float factor, size_t n, float* y) noexcept;
  // y = fma(w, x, y), element by element.
  void (*add_products)(const float* w, const float* x, size_t n, float* y) noexcept;
  // One step of the gated delta rule (arithmetic.md) on a state [k_dim, v_dim]. q, k: [k_dim]; v, out:
  // [v_dim].
  void (*delta_step)(float* state, const float* q, const float* k, const float* v, float decay, float beta,
                     size_t k_dim, size_t v_dim, float* out) noexcept;
  // In place.
  void (*softcap)(float* x, size_t n, Softcap cap) noexcept;
  // False when K or V holds a NaN.
  bool (*store_kv)(const StoreKvArgs& args) noexcept;
  // Steps 1 to 5 and l of step 6 for one segment. part: attention_part_floats(), written; rows whose token
  // sees no key of the segment get nothing of use. Leaves args.out alone.
  void (*attend_segment)(const AttentionArgs& args, size_t segment, float* part) noexcept;
  // Step 6: takes a segment's part into `total`, of the same shape, for the rows that see the segment; a
  // row's segments must come in ascending order. A row's last segment writes its output (step 7). Reads
  // neither args.q nor args.scratch.
  void (*merge_segment)(const AttentionArgs& args, size_t segment, const float* part, float* total) noexcept;
  // Sum over exp(z_k - z_max) as arithmetic.md "Perplexity" defines it.
  double (*sum_exp)(const float* z, size_t n, float z_max) noexcept;
  const ProbeLoops* probe;

  // Null when the set has no kernel for the format.
  const MatmulKernel* find_matmul(DType dtype) const noexcept {
    const MatmulKernel* found = nullptr;
    for_each_matmul([&](const MatmulKernel& kernel) {
      if (kernel.dtype == dtype) found = &kernel;
    });
    return found;
  }
  template <class Body>
  void for_each_matmul(Body&& body) const {
    for (size_t i = 0; i < n_matmuls; ++i)
      for (size_t j = 0; j < matmuls[i]->n_rows; ++j) body(matmuls[i]->rows[j]);
  }
};

}  // namespace quern
