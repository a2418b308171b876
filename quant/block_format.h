// The table of number formats: what one block of weights looks like as bytes.
//
// Sources: ggml's block formats as written down in the GGUF specification and reproduced bit for bit by
// tests/data/golden/quantized_blocks.jsonl. One file a format in quant/formats/, one row a format here. Code
// asks the row what a format can do (a null member: cannot) and never switches on a DType.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "quant/panel_runs.h"

namespace quern {

// Values are the tensor type ids of GGUF.
enum class DType : uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  IQ2_XXS = 16,
  IQ2_XS = 17,
  IQ3_XXS = 18,
  IQ1_S = 19,
  IQ4_NL = 20,
  IQ3_S = 21,
  IQ2_S = 22,
  IQ4_XS = 23,
  I8 = 24,
  I16 = 25,
  I32 = 26,
  I64 = 27,
  F64 = 28,
  IQ1_M = 29,
  BF16 = 30,
  TQ1_0 = 34,
  TQ2_0 = 35,
  MXFP4 = 39,
  NVFP4 = 40,
};

// 32 consecutive weights of one row as the integer dot product sees them (arithmetic.md "Dot product"):
//   I   = scale[0] * sum(code[k] * a[k], k < 16) + scale[1] * sum(code[k] * a[k], k >= 16)      exact
//   acc = fma(float(I), d * da, acc)
// or, with two_steps, one step for each half, its sum I0 or I1:
//   acc = fma(float(I0), d * da, acc);  acc = fma(float(I1), d_second * da, acc)
//   acc = fma(mu, da * float(min[0] * S0 + min[1] * S1), acc)                  only when has_min
struct WeightGroup {
  int8_t code[32];  // the format's offset already subtracted
  int32_t scale[2];
  float d;  // D, exact in f32; with two_steps of the first 16 weights
  bool two_steps;
  float d_second;  // D of the second 16 weights; d unless two_steps
  bool has_min;
  int32_t min[2];
  float mu;  // exact in f32, sign included
};

struct BlockFormat {
  DType dtype;
  std::string_view name;   // as the field writes it: "Q4_0"
  uint32_t block_weights;  // weights in a block
  uint32_t block_bytes;

  // blocks: n_blocks * block_bytes bytes, any alignment. out: [n_blocks * block_weights], exactly the values
  // of formats.md 2.6, evaluated left to right in f32. Null: the format can be stored and listed, not read.
  void (*decode)(const uint8_t* blocks, size_t n_blocks, float* out) noexcept;
  // The reference quantizer (formats.md 2.5), byte for byte. Input must be finite. Null: cannot be written.
  void (*encode)(const float* x, size_t n_blocks, uint8_t* blocks) noexcept;
  // The reference's weighted search: an error in weight k counts importance[k] times, [n_blocks *
  // block_weights], finite and not negative. mean_square: of the whole row that x is a part of, its squares
  // summed left to right in f32, then divided by their number. Null: importance changes nothing.
  void (*encode_weighted)(const float* x, const float* importance, float mean_square, size_t n_blocks,
                          uint8_t* blocks) noexcept;
  // Group `group` (32 weights) of a row; group counts through the row's blocks. Null for float formats.
  void (*unpack_group)(const uint8_t* row, size_t group, WeightGroup* out) noexcept;
  // Index of the first block with a scale, minimum or float that is NaN or infinite; n_blocks when there is
  // none. Null for formats without decode.
  size_t (*first_non_finite)(const uint8_t* blocks, size_t n_blocks) noexcept;
  // The byte map of its panels (panel_layout.h). Empty: it has none.
  std::span<const PanelRun> panel;

  // Only where columns % block_weights == 0.
  uint64_t row_bytes(uint64_t columns) const { return columns / block_weights * block_bytes; }
  bool is_float() const { return decode != nullptr && unpack_group == nullptr && block_weights == 1; }
};

// Every format that may stand in a file, in order of its id. Thread-safe, static.
std::span<const BlockFormat> block_formats() noexcept;
// Null when the id is not in the table.
const BlockFormat* find_block_format(DType dtype) noexcept;
// The row of a dtype that has been validated; QUERN_CHECK otherwise.
const BlockFormat& block_format(DType dtype) noexcept;

}  // namespace quern
