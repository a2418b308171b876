// P16 panels: the layout that SIMD kernels read (DESIGN.md section 3, kernels.md section 4).
//
// A panel is 16 consecutive rows of a matrix. Lanes are rows: a 32-bit lane holds 4 consecutive k-bytes of
// one row, 16 rows make 64 bytes. A panel has exactly the bytes of its 16 rows in GGUF's layout, in another
// order, so a matrix keeps its size; rows beyond the last multiple of 16 become one panel padded with zero
// bytes. Byte maps are drawn in panel_layout.cc.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/block_format.h"

namespace quern {

inline constexpr size_t kPanelRows = 16;

// True when the format has a panel form.
bool has_panel_layout(DType dtype) noexcept;
// Bytes of a matrix of `rows` x `columns` as panels: ceil(rows / 16) * 16 * row_bytes.
uint64_t panel_bytes(DType dtype, uint64_t rows, uint64_t columns) noexcept;

// rows: n_rows (1..16) GGUF rows of `columns` weights, one after the other. panel: 16 * row_bytes(columns)
// bytes. Missing rows are zero bytes (they decode to zeros). Buffers do not overlap. Only where
// has_panel_layout.
void pack_panel(DType dtype, const uint8_t* rows, size_t n_rows, size_t columns, uint8_t* panel) noexcept;
// The inverse: writes n_rows rows.
void unpack_panel(DType dtype, const uint8_t* panel, size_t n_rows, size_t columns, uint8_t* rows) noexcept;

}  // namespace quern
