// Converts tensor data from one format to another, with the error it took.
#pragma once

#include <cstdint>
#include <span>

#include "quant/tensor_view.h"

namespace quern {

struct QuantizeResult {
  double squared_error = 0;   // sum over elements of (decoded - source)^2
  double squared_source = 0;  // sum of source^2; relative RMS error = sqrt(squared_error / squared_source)
  // Index (within the source tensor) of the first element that is NaN or infinite in the source, or whose
  // block came out with a non-finite scale (then the block's first element); -1 when all is well. Otherwise
  // the sums and the bytes of `out` mean nothing.
  int64_t bad_element = -1;
};

// What the rows become.
struct QuantizeTarget {
  DType dtype = DType::F32;
  TensorLayout layout = TensorLayout::kRows;
  // How much errors of each column count, [n_matrices, columns], of which a matrix has rows_per_matrix rows;
  // null: all alike. first_row: of the tensor, where the source is a part of its rows.
  const float* importance = nullptr;
  uint64_t rows_per_matrix = 0, first_row = 0;
};

// Bytes of memory that quantize_rows works in: 16 rows of both formats where either side is panels, otherwise
// none. UINT64_MAX when it is more than can be counted.
uint64_t quantize_scratch_bytes(const TensorView& source, const QuantizeTarget& target);

// Converts rows [row_begin, row_end) of `source` to `target`; out: their bytes there, (row_end - row_begin) *
// row_bytes. When source and target are the same format the bytes are copied (and still checked; the sums
// are 0). Columns must be a multiple of the target's block. Where either side is panels, row_begin is a
// multiple of 16, and so is row_end unless it is the last row. `row_map`, if not null, gives for every output
// row of the tensor the source row it comes from [rows]; the source is rows then. scratch: at least
// quantize_scratch_bytes(), of any content. Works on the calling thread; calls on different `scratch` and
// `out` may run side by side.
QuantizeResult quantize_rows(const TensorView& source, const QuantizeTarget& target, uint64_t row_begin,
                             uint64_t row_end, const uint64_t* row_map, std::span<uint8_t> scratch,
                             std::span<uint8_t> out);

// Index, in GGUF's order of blocks, of the first block of a tensor in either layout with a scale, minimum or
// float that is NaN or infinite; the number of blocks when there is none. The format must have decode.
uint64_t first_non_finite_block(const TensorView& tensor, int n_threads);

}  // namespace quern
