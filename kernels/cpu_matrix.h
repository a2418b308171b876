// Weights of the CPU device, in the layout that a kernel reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/device.h"
#include "kernels/host_memory.h"
#include "kernels/kernel_set.h"
#include "quant/block_format.h"
#include "quant/panel_layout.h"
#include "quant/tensor_view.h"

namespace quern {

constexpr size_t count_panels(size_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

// Immutable once loaded; any number of threads may read it.
class CpuMatrix final : public DeviceMatrix {
 public:
  // kernel: null when rows are only gathered. owned: the panels that it reads, or empty when it reads the
  // tensor's own rows.
  CpuMatrix(const TensorView& tensor, const MatmulKernel* kernel, HostMemory owned)
      : DeviceMatrix(tensor.dtype, tensor.rows(), tensor.columns(),
                     owned.size() != 0 ? owned.size() : tensor.n_bytes),
        kernel_(kernel),
        file_rows_(tensor.data),
        owned_(std::move(owned)) {}

  const BlockFormat& format() const { return block_format(dtype()); }
  const MatmulKernel& kernel() const { return *kernel_; }

  // Where the weights of 16 rows each, panels [begin, *end), stand one after the other: what a kernel takes
  // as MatmulArgs::weights for rows counted from begin * 16. The last panel may stand apart: *end is then
  // lowered to where the piece ends, and the rest is asked for by another call. begin < *end <=
  // count_panels(rows()).
  const uint8_t* panels(size_t begin, size_t* end) const {
    (void)end;
    return (owned_.size() != 0 ? owned_.data() : file_rows_) +
           begin * kPanelRows * format().row_bytes(columns());
  }

  // Row i as floats: [columns()].
  void decode_row(size_t i, float* out) const {
    format().decode(file_rows_ + i * format().row_bytes(columns()), columns() / format().block_weights, out);
  }

 private:
  const MatmulKernel* kernel_;
  const uint8_t* file_rows_;  // not owned; read by gathers and by kernels of WeightLayout::kRows
  HostMemory owned_;
};

// Bytes of memory that load_cpu_matrix takes.
uint64_t cpu_matrix_memory(const TensorView& tensor, const MatmulKernel* kernel);
// kernel: the one that will multiply, null when rows are only gathered. The tensor's bytes must live as long
// as the matrix. Throws kResource.
std::unique_ptr<CpuMatrix> load_cpu_matrix(const TensorView& tensor, const MatmulKernel* kernel,
                                           int n_threads);

}  // namespace quern
