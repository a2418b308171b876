// Weights of the CPU device, in the layout that a kernel reads.
//
//   in the file   the kernel wants   the matrix is
//   rows          rows               the file's bytes
//   rows          panels             a copy; the file's bytes are let go
//   panels        panels             the file's bytes; rows beyond the last whole panel: a padded copy
//   panels        rows               a copy; the file's bytes are let go
//   either        only gathers       the file's bytes
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/device.h"
#include "kernels/kernel_set.h"
#include "quant/block_format.h"
#include "quant/machine/host_memory.h"
#include "quant/panel_layout.h"
#include "quant/parallel.h"
#include "quant/tensor_view.h"

namespace quern {

constexpr size_t count_panels(size_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

// Immutable once loaded; any number of threads may read it.
class CpuMatrix final : public DeviceMatrix {
 public:
  // kernel: the one that will multiply, null when rows are only gathered. `done`: Device::load_matrix. Throws
  // kResource.
  CpuMatrix(const TensorView& tensor, const MatmulKernel* kernel, ThreadPool& pool, const SourceDone& done);

  // What a matrix loaded from these would take.
  static MatrixMemory memory(const TensorView& tensor, const MatmulKernel* kernel);

  const BlockFormat& format() const { return *format_; }
  const MatmulKernel& kernel() const { return *kernel_; }
  float factor() const { return factor_; }  // of its products (TensorView)

  // Where the weights of 16 rows each, panels [begin, *end), stand one after the other: what a kernel takes
  // as MatmulArgs::weights for rows counted from begin * 16. The last panel may stand apart: *end is then
  // lowered to where the piece ends, and the rest is asked for by another call. begin < *end <=
  // count_panels(rows()).
  const uint8_t* panels(size_t begin, size_t* end) const {
    const size_t body_panels = body_rows_ / kPanelRows;
    if (begin >= body_panels && tail_.size() != 0) return tail_.data();
    if (tail_.size() != 0 && *end > body_panels) *end = body_panels;
    return body_ + begin * kPanelRows * row_bytes_;
  }

  // Row i as floats: [columns()].
  void decode_row(size_t i, float* out) const noexcept;

 private:
  void use_in_place(const TensorView& tensor, const MatmulKernel* kernel);
  void copy_as_panels(const TensorView& tensor, ThreadPool& pool, const SourceDone& done);
  void copy_as_rows(const TensorView& tensor, ThreadPool& pool, const SourceDone& done);

  const MatmulKernel* kernel_;
  const BlockFormat* format_;
  size_t row_bytes_;
  float factor_;
  const uint8_t* body_;  // the tensor's bytes, or owned_
  size_t body_rows_;     // rows that stand in body_, whole panels of them when body_layout_ is kPanels
  TensorLayout body_layout_;
  HostMemory owned_;
  HostMemory tail_;  // one padded panel of the rows beyond body_rows_; empty when there is none
  const uint8_t* loose_rows_ = nullptr;  // rows beyond body_rows_ as the file has them
};

}  // namespace quern
