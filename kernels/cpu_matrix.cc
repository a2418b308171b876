#include "kernels/cpu_matrix.h"

#include <algorithm>

namespace quern {

namespace {

// Source bytes that a thread repacks, and lets go of, at once. Large enough that the calls cost nothing
// beside it, small enough that threads end together.
constexpr uint64_t kChunkBytes = uint64_t{1} << 20;

enum class Copy : uint8_t { kNone, kPanels, kRows };

// What of a tensor is copied, when it is to be multiplied.
Copy copy_needed(const TensorView& tensor, const MatmulKernel* kernel) {
  if (kernel == nullptr) return Copy::kNone;
  if (tensor.layout == kernel->layout) return Copy::kNone;
  return kernel->layout == TensorLayout::kPanels ? Copy::kPanels : Copy::kRows;
}

bool needs_tail(const TensorView& tensor, const MatmulKernel* kernel) {
  return kernel != nullptr && kernel->layout == TensorLayout::kPanels &&
         tensor.layout == TensorLayout::kPanels && tensor.rows() % kPanelRows != 0;
}

// Calls body(row, n_rows) for all groups of 16 rows on all threads, each beginning with about the rows that
// it will multiply: so memory is placed near it. Lets go of the source's bytes behind it.
template <class Body>
void for_row_groups(const TensorView& tensor, ThreadPool& pool, const SourceDone& done, Body&& body) {
  const uint64_t row_bytes = block_format(tensor.dtype).row_bytes(tensor.columns());
  const size_t chunk_rows = (kChunkBytes / row_bytes / kPanelRows + 1) * kPanelRows;
  pool.parallel_for(tensor.rows(), chunk_rows, [&](int, size_t begin, size_t end) noexcept {
    for (size_t row = begin; row < end; row += kPanelRows) body(row, std::min(kPanelRows, end - row));
    if (done) done(tensor.data + begin * row_bytes, (end - begin) * row_bytes);
  });
}

}  // namespace

MatrixMemory CpuMatrix::memory(const TensorView& tensor, const MatmulKernel* kernel) {
  switch (copy_needed(tensor, kernel)) {
    case Copy::kPanels:
      return {panel_bytes(tensor.dtype, tensor.rows(), tensor.columns()), false};
    case Copy::kRows:
      return {tensor.n_bytes, false};
    case Copy::kNone:
      break;
  }
  return {needs_tail(tensor, kernel) ? panel_bytes(tensor.dtype, 1, tensor.columns()) : 0, true};
}

CpuMatrix::CpuMatrix(const TensorView& tensor, const MatmulKernel* kernel, ThreadPool& pool,
                     const SourceDone& done)
    : DeviceMatrix(tensor.dtype, tensor.rows(), tensor.columns(), tensor.n_bytes),
      kernel_(kernel),
      format_(&block_format(tensor.dtype)),
      row_bytes_(format_->row_bytes(tensor.columns())),
      factor_(tensor.factor),
      body_(tensor.data),
      body_rows_(tensor.rows()),
      body_layout_(tensor.layout) {
  switch (copy_needed(tensor, kernel)) {
    case Copy::kPanels:
      copy_as_panels(tensor, pool, done);
      break;
    case Copy::kRows:
      copy_as_rows(tensor, pool, done);
      break;
    case Copy::kNone:
      use_in_place(tensor, kernel);
      break;
  }
}

void CpuMatrix::use_in_place(const TensorView& tensor, const MatmulKernel* kernel) {
  const size_t loose = tensor.layout == TensorLayout::kPanels ? rows() % kPanelRows : 0;
  if (loose == 0) return;
  body_rows_ -= loose;
  loose_rows_ = body_ + body_rows_ * row_bytes_;
  if (!needs_tail(tensor, kernel)) return;
  tail_ = HostMemory(kPanelRows * row_bytes_, "weights");
  pack_panel(dtype(), loose_rows_, loose, columns(), tail_.data());
}

void CpuMatrix::copy_as_panels(const TensorView& tensor, ThreadPool& pool, const SourceDone& done) {
  owned_ = HostMemory(panel_bytes(dtype(), rows(), columns()), "weights");
  for_row_groups(tensor, pool, done, [&](size_t row, size_t n) noexcept {
    pack_panel(dtype(), tensor.data + row * row_bytes_, n, columns(), owned_.data() + row * row_bytes_);
  });
  body_ = owned_.data();
  body_rows_ = count_panels(rows()) * kPanelRows;  // the padding stands there too
  body_layout_ = TensorLayout::kPanels;
}

void CpuMatrix::copy_as_rows(const TensorView& tensor, ThreadPool& pool, const SourceDone& done) {
  owned_ = HostMemory(tensor.n_bytes, "weights");
  for_row_groups(tensor, pool, done, [&](size_t row, size_t n) noexcept {
    uint8_t* const to = owned_.data() + row * row_bytes_;
    const uint8_t* from = rows_of_group(tensor, row, to);
    if (from != to) std::copy_n(from, n * row_bytes_, to);
  });
  body_ = owned_.data();
  body_layout_ = TensorLayout::kRows;
}

void CpuMatrix::decode_row(size_t i, float* out) const noexcept {
  const size_t n_blocks = columns() / format_->block_weights;
  if (body_layout_ == TensorLayout::kRows) return format_->decode(body_ + i * row_bytes_, n_blocks, out);
  if (i >= body_rows_) return format_->decode(loose_rows_ + (i - body_rows_) * row_bytes_, n_blocks, out);
  // A row of a panel, in runs of blocks that a core's first cache holds.
  constexpr size_t kRunBytes = 2048;
  uint8_t run[kRunBytes];
  const uint8_t* panel = body_ + i / kPanelRows * kPanelRows * row_bytes_;
  const size_t run_blocks = kRunBytes / format_->block_bytes;
  for (size_t block = 0; block < n_blocks; block += run_blocks) {
    const size_t end = std::min(block + run_blocks, n_blocks);
    unpack_row_blocks(dtype(), panel, i % kPanelRows, block, end, run);
    format_->decode(run, end - block, out + block * format_->block_weights);
  }
}

}  // namespace quern
