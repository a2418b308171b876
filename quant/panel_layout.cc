// A panel is a row of panel blocks: block b of a panel holds block b of its 16 rows, the same 16 *
// block_bytes bytes in the order in which kernels touch them, so that a product reads memory line by line
// from front to back. Everything that one step needs of 16 rows stands together; "16 x n" below means n bytes
// of row 0, n bytes of row 1, ...
//
//   F32          0: 16 x 4   the weight
//   F16, BF16    0: 16 x 2   the weight
//
//   Q4_0         0: 16 x 2   d
//               32: 4 steps j of 16 x 4   qs[4j .. 4j+3]: low nibbles k = 4j.., high nibbles k = 16+4j..
//   Q4_1         0: 16 x 2   d            32: 16 x 2   m            64: 4 steps of 16 x 4 as above
//   Q5_0         0: 16 x 2   d            32: 16 x 4   qh, turned   96: 4 steps of 16 x 4 as above
//   Q5_1         0: 16 x 2   d            32: 16 x 2   m            64: 16 x 4   qh, turned
//              128: 4 steps of 16 x 4 as above
//   Q8_0         0: 16 x 2   d            32: 8 steps j of 16 x 4   qs[4j .. 4j+3]
//
//   Q6_K         0: 16 x 2   d            32: 16 sub-blocks of 16 x 1   scale
//              288: 2 halves of 128 weights, each 8 steps j (l = 4j .. 4j+3) of
//                     16 x 4   ql[64 half + l]        low nibbles k = l, high nibbles k = 64 + l of the half
//                     16 x 4   ql[64 half + 32 + l]   low nibbles k = 32 + l, high nibbles k = 96 + l
//                     16 x 4   qh[32 half + l]        the four bit pairs above these nibbles
//
// "Turned": bit k = 4s + i of qh (weight k's fifth bit) moves to bit 8i + s, so that one shift brings the
// fifth bits of step s (k = 4s .. 4s+3) to the same place in four consecutive bytes, above their nibbles.
#include "quant/panel_layout.h"

#include <cstring>
#include <span>

#include "quant/error.h"

namespace quern {
namespace {

// `count` pieces of `bytes` bytes that follow each other in a row's block from `row_offset` on. Piece i of
// row r goes to panel_offset + i * panel_step + r * bytes of the panel block.
struct Run {
  uint16_t row_offset, count, bytes;
  uint16_t panel_offset, panel_step;
  bool turned = false;  // the pieces are Q5's qh
};

constexpr Run kF32[] = {{0, 1, 4, 0, 64}};
constexpr Run kF16[] = {{0, 1, 2, 0, 32}};
constexpr Run kQ4_0[] = {{0, 1, 2, 0, 32}, {2, 4, 4, 32, 64}};
constexpr Run kQ4_1[] = {{0, 2, 2, 0, 32}, {4, 4, 4, 64, 64}};
constexpr Run kQ5_0[] = {{0, 1, 2, 0, 32}, {2, 1, 4, 32, 64, true}, {6, 4, 4, 96, 64}};
constexpr Run kQ5_1[] = {{0, 2, 2, 0, 32}, {4, 1, 4, 64, 64, true}, {8, 4, 4, 128, 64}};
constexpr Run kQ8_0[] = {{0, 1, 2, 0, 32}, {2, 8, 4, 32, 64}};
constexpr Run kQ6_K[] = {
    {208, 1, 2, 0, 32},                                                     // d
    {192, 16, 1, 32, 16},                                                   // scales
    {0, 8, 4, 288, 192},   {32, 8, 4, 352, 192},  {128, 8, 4, 416, 192},    // half 0: ql, ql, qh
    {64, 8, 4, 1824, 192}, {96, 8, 4, 1888, 192}, {160, 8, 4, 1952, 192}};  // half 1

struct PanelFormat {
  DType dtype;
  std::span<const Run> runs;
};

constexpr PanelFormat kPanelFormats[] = {
    {DType::F32, kF32},   {DType::F16, kF16},   {DType::Q4_0, kQ4_0},
    {DType::Q4_1, kQ4_1}, {DType::Q5_0, kQ5_0}, {DType::Q5_1, kQ5_1},
    {DType::Q8_0, kQ8_0}, {DType::Q6_K, kQ6_K}, {DType::BF16, kF16},
};

const PanelFormat* find_panel_format(DType dtype) noexcept {
  for (const PanelFormat& format : kPanelFormats)
    if (format.dtype == dtype) return &format;
  return nullptr;
}

// Nibble s of qh is step s. The products place four copies of it so that bit i of copy i falls on bit 8i, and
// back; no two bits meet.
uint32_t turn(uint32_t bits) noexcept {
  uint32_t turned = 0;
  for (uint32_t s = 0; s < 8; ++s) turned |= (((bits >> (4 * s) & 15u) * 0x00204081u) & 0x01010101u) << s;
  return turned;
}

uint32_t turn_back(uint32_t turned) noexcept {
  uint32_t bits = 0;
  for (uint32_t s = 0; s < 8; ++s)
    bits |= (((turned >> s & 0x01010101u) * 0x01020408u) >> 24 & 15u) << (4 * s);
  return bits;
}

// Copies pieces of kBytes bytes from steps of from_step to steps of to_step.
template <size_t kBytes>
void copy_pieces(const uint8_t* from, size_t from_step, uint8_t* to, size_t to_step, size_t n) noexcept {
  for (size_t i = 0; i < n; ++i) std::memcpy(to + i * to_step, from + i * from_step, kBytes);
}

void copy_pieces(size_t bytes, const uint8_t* from, size_t from_step, uint8_t* to, size_t to_step,
                 size_t n) noexcept {
  if (bytes == 4) {
    copy_pieces<4>(from, from_step, to, to_step, n);
  } else if (bytes == 2) {
    copy_pieces<2>(from, from_step, to, to_step, n);
  } else {
    copy_pieces<1>(from, from_step, to, to_step, n);
  }
}

void turn_in_place(uint8_t* word, uint32_t (*turning)(uint32_t) noexcept) noexcept {
  uint32_t bits;
  std::memcpy(&bits, word, sizeof bits);
  bits = turning(bits);
  std::memcpy(word, &bits, sizeof bits);
}

struct Geometry {
  std::span<const Run> runs;
  size_t n_blocks, block_bytes, row_bytes;
};

Geometry geometry_of(DType dtype, size_t columns) noexcept {
  const PanelFormat* panel_format = find_panel_format(dtype);
  QUERN_CHECK(panel_format != nullptr);
  const BlockFormat& format = block_format(dtype);
  QUERN_CHECK(columns % format.block_weights == 0);
  return {panel_format->runs, columns / format.block_weights, format.block_bytes, format.row_bytes(columns)};
}

}  // namespace

bool has_panel_layout(DType dtype) noexcept { return find_panel_format(dtype) != nullptr; }

bool can_be_panels(DType dtype, const Shape& shape) noexcept {
  return shape.size() == 2 && shape[0] >= kPanelRows && has_panel_layout(dtype);
}

uint64_t panel_bytes(DType dtype, uint64_t rows, uint64_t columns) noexcept {
  return (rows + kPanelRows - 1) / kPanelRows * kPanelRows * block_format(dtype).row_bytes(columns);
}

void pack_panel(DType dtype, const uint8_t* rows, size_t n_rows, size_t columns, uint8_t* panel) noexcept {
  QUERN_CHECK(n_rows >= 1 && n_rows <= kPanelRows);
  const Geometry g = geometry_of(dtype, columns);
  if (n_rows < kPanelRows) std::memset(panel, 0, kPanelRows * g.row_bytes);
  for (size_t b = 0; b < g.n_blocks; ++b) {
    const uint8_t* row_block = rows + b * g.block_bytes;
    uint8_t* panel_block = panel + b * g.block_bytes * kPanelRows;
    for (const Run& run : g.runs) {
      for (size_t i = 0; i < run.count; ++i) {
        uint8_t* to = panel_block + run.panel_offset + i * run.panel_step;
        copy_pieces(run.bytes, row_block + run.row_offset + i * run.bytes, g.row_bytes, to, run.bytes,
                    n_rows);
        if (run.turned)
          for (size_t r = 0; r < n_rows; ++r) turn_in_place(to + r * run.bytes, turn);
      }
    }
  }
}

void unpack_panel(DType dtype, const uint8_t* panel, size_t n_rows, size_t columns, uint8_t* rows) noexcept {
  QUERN_CHECK(n_rows >= 1 && n_rows <= kPanelRows);
  const Geometry g = geometry_of(dtype, columns);
  for (size_t b = 0; b < g.n_blocks; ++b) {
    const uint8_t* panel_block = panel + b * g.block_bytes * kPanelRows;
    uint8_t* row_block = rows + b * g.block_bytes;
    for (const Run& run : g.runs) {
      for (size_t i = 0; i < run.count; ++i) {
        uint8_t* to = row_block + run.row_offset + i * run.bytes;
        copy_pieces(run.bytes, panel_block + run.panel_offset + i * run.panel_step, run.bytes, to,
                    g.row_bytes, n_rows);
        if (run.turned)
          for (size_t r = 0; r < n_rows; ++r) turn_in_place(to + r * g.row_bytes, turn_back);
      }
    }
  }
}

void unpack_row_blocks(DType dtype, const uint8_t* panel, size_t row, size_t block_begin, size_t block_end,
                       uint8_t* blocks) noexcept {
  QUERN_CHECK(row < kPanelRows && block_begin <= block_end);
  const PanelFormat* format = find_panel_format(dtype);
  QUERN_CHECK(format != nullptr);
  const size_t block_bytes = block_format(dtype).block_bytes;
  for (size_t b = block_begin; b < block_end; ++b, blocks += block_bytes) {
    const uint8_t* panel_block = panel + b * block_bytes * kPanelRows;
    for (const Run& run : format->runs) {
      copy_pieces(run.bytes, panel_block + run.panel_offset + row * run.bytes, run.panel_step,
                  blocks + run.row_offset, run.bytes, run.count);
      if (run.turned) turn_in_place(blocks + run.row_offset, turn_back);
    }
  }
}

const uint8_t* rows_of_group(const TensorView& tensor, size_t row, uint8_t* scratch) noexcept {
  const uint8_t* group = tensor.data + row * block_format(tensor.dtype).row_bytes(tensor.columns());
  if (tensor.layout == TensorLayout::kRows || tensor.rows() - row < kPanelRows) return group;
  unpack_panel(tensor.dtype, group, kPanelRows, tensor.columns(), scratch);
  return scratch;
}

}  // namespace quern
