// Changes to tensors on their way into a GGUF file.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "quant/tensor_view.h"

namespace quern {

// Rows of Q and K as GGUF's `llama` wants them, from rows as Hugging Face stores them.
//
// Rotary position embedding turns pairs of elements of a head. Hugging Face pairs element i with
// i + head_dim / 2 (the halves of a head), GGUF's llama, like Meta's and Mistral's own code, 2i with 2i + 1.
// Both compute the same scores as long as Q and K are in one order, so the checkpoint's rows (a row is what
// makes one element) are moved once, here (formats.md 2.3). Only whole rows move, so this commutes with
// quantization, which works along a row.
//
// Returns for every row of the GGUF tensor the row of the checkpoint's: [n_heads * head_dim], a permutation
// within each head. head_dim is even.
std::vector<uint64_t> interleaved_row_map(uint32_t n_heads, uint32_t head_dim);

// Writes rows [row_begin, row_end) of a tensor, a vector's only row likewise, as floats: [rows, columns].
// sources: where it comes from, rows in the checkpoint's own order. Thread-safe.
using TensorMaker = std::function<void(std::span<const TensorView> sources, uint64_t row_begin,
                                       uint64_t row_end, uint64_t columns, float* out)>;

TensorMaker stacked(uint64_t rows);  // sources of so many rows above one another
TensorMaker plus_one();
TensorMaker constant(std::vector<float> values);
TensorMaker permuted_elements(std::vector<uint64_t> map);  // of a vector: element i is the source's map[i]
// Row r is row map(r) of the only source, whose leading dimensions count as rows.
TensorMaker picked_rows(std::function<uint64_t(uint64_t row)> map);
// Row r is a column of a matrix [in, n_columns] of the only source, [n_matrices, in, n_columns] or one of
// them: rows_each rows come from each, row i of them from column first + i * step.
TensorMaker transposed(uint64_t rows_each, uint64_t n_columns, uint64_t first = 0, uint64_t step = 1);
// Row r is row map(r) of weights in MXFP4 (OCP Microscaling Formats, 2023) as transformers stores it: the
// sources are bytes, sixteen with the codes of each 32 neighbouring weights of a row, the even one in the low
// half, and one with their power of two.
TensorMaker picked_mxfp4_rows(std::function<uint64_t(uint64_t row)> map);
TensorMaker picked_columns(std::vector<uint64_t> map);  // column c is the only source's map[c]
// Elements of a vector: -exp(x) of the source's map(i).
TensorMaker negative_exp(std::function<uint64_t(uint64_t element)> map);
// Elements of a vector: as they are read, in floats.
TensorMaker picked_elements(std::function<uint64_t(uint64_t element)> map);

}  // namespace quern
