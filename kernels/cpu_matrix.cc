#include "kernels/cpu_matrix.h"

#include <algorithm>
#include <utility>

#include "quant/parallel.h"

namespace quern {

namespace {

bool wants_panels(const MatmulKernel* kernel) {
  return kernel != nullptr && kernel->layout == WeightLayout::kPanels;
}

// Each thread packs, and so places in memory, about the panels that it will multiply.
HostMemory pack(const TensorView& tensor, int n_threads) {
  const size_t rows = tensor.rows(), columns = tensor.columns();
  const uint64_t row_bytes = block_format(tensor.dtype).row_bytes(columns);
  HostMemory panels(panel_bytes(tensor.dtype, rows, columns), "weights");
  parallel_for(n_threads, count_panels(rows), 1, [&](size_t begin, size_t end) noexcept {
    for (size_t panel = begin; panel < end; ++panel) {
      const size_t row = panel * kPanelRows;
      pack_panel(tensor.dtype, tensor.data + row * row_bytes, std::min(kPanelRows, rows - row), columns,
                 panels.data() + row * row_bytes);
    }
  });
  return panels;
}

}  // namespace

uint64_t cpu_matrix_memory(const TensorView& tensor, const MatmulKernel* kernel) {
  return wants_panels(kernel) ? panel_bytes(tensor.dtype, tensor.rows(), tensor.columns()) : 0;
}

std::unique_ptr<CpuMatrix> load_cpu_matrix(const TensorView& tensor, const MatmulKernel* kernel,
                                           int n_threads) {
  return std::make_unique<CpuMatrix>(tensor, kernel,
                                     wants_panels(kernel) ? pack(tensor, n_threads) : HostMemory());
}

}  // namespace quern
