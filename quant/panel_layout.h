// P16 panels: the layout that SIMD kernels read (formats.md 2.7).
//
// A panel is 16 consecutive rows of a matrix. Lanes are rows: a 32-bit lane holds 4 consecutive k-bytes of
// one row, 16 rows make 64 bytes. A panel has exactly the bytes of its 16 rows in GGUF's layout, in another
// order, so a matrix keeps its size. Byte maps: panel_runs.h.
//
// TensorLayout::kPanels in memory, as kernels read it, is panels throughout: rows beyond the last multiple of
// 16 become one panel padded with zero bytes. In a file there is no padding: those rows stand as they are
// after the last whole panel, so that a tensor keeps its size and its place.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/block_format.h"
#include "quant/panel_runs.h"
#include "quant/tensor_view.h"

namespace quern {

// A tensor of panels has a type id of its own in a file, so that other programs refuse it instead of taking
// panels for rows: kPanelTypeBase + 256 * version + the id of its format. The version counts changes of the
// byte maps; a file of another version is refused.
inline constexpr uint32_t kPanelTypeBase = 0x50160000;
inline constexpr uint32_t kPanelVersion = 1;
constexpr uint32_t panel_type_id(DType dtype) {
  return kPanelTypeBase + 256 * kPanelVersion + static_cast<uint32_t>(dtype);
}
constexpr bool is_panel_type_id(uint32_t id) { return id >> 16 == kPanelTypeBase >> 16; }

// True when the format has a panel form.
bool has_panel_layout(DType dtype) noexcept;
// True when a tensor can stand in a file as panels: 2-D, at least one whole panel, such a format.
bool can_be_panels(DType dtype, const Shape& shape) noexcept;
// Bytes of a matrix of `rows` x `columns` as panels: ceil(rows / 16) * 16 * row_bytes.
uint64_t panel_bytes(DType dtype, uint64_t rows, uint64_t columns) noexcept;

// rows: n_rows (1..16) GGUF rows of `columns` weights, one after the other. panel: 16 * row_bytes(columns)
// bytes. Missing rows are zero bytes (they decode to zeros). Buffers do not overlap. Only where
// has_panel_layout.
void pack_panel(DType dtype, const uint8_t* rows, size_t n_rows, size_t columns, uint8_t* panel) noexcept;
// The inverse: writes n_rows rows.
void unpack_panel(DType dtype, const uint8_t* panel, size_t n_rows, size_t columns, uint8_t* rows) noexcept;
// Blocks [block_begin, block_end) of one row (0..15) of a panel, as they stand in GGUF's layout.
void unpack_row_blocks(DType dtype, const uint8_t* panel, size_t row, size_t block_begin, size_t block_end,
                       uint8_t* blocks) noexcept;

// GGUF rows [row, row + 16), or as many as there are, of a tensor in either layout: a place in the tensor, or
// `scratch` (16 * row_bytes), where they have then been unpacked to. row is a multiple of 16.
const uint8_t* rows_of_group(const TensorView& tensor, size_t row, uint8_t* scratch) noexcept;

// True when rows [begin, end) of a tensor are bytes of it that follow one another, in its own layout.
bool can_be_cut(const TensorView& tensor, uint64_t begin, uint64_t end) noexcept;
// These rows as a tensor of two dimensions. Only where can_be_cut.
TensorView rows_of(const TensorView& tensor, uint64_t begin, uint64_t end);

}  // namespace quern
