// Converts tensor data from one format to another, on all threads, with the error it took.
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

// Converts rows [row_begin, row_end) of `source` to `target` format; out: their bytes in the target format,
// (row_end - row_begin) * row_bytes. When source and target are the same format the bytes are copied (and
// still checked). Columns must be a multiple of the target's block. `row_map`, if not null, gives for every
// output row of the tensor the source row it comes from [rows]. Bytes do not depend on n_threads; the two
// sums are accumulated in row order, so neither do they. The scratch memory is a few rows per thread.
QuantizeResult quantize_rows(const TensorView& source, DType target, uint64_t row_begin, uint64_t row_end,
                             const uint64_t* row_map, int n_threads, std::span<uint8_t> out);

}  // namespace quern
