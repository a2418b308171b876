// Packing and unpacking along the maps of panel_runs.h.
#include "quant/panel_layout.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "quant/error.h"

namespace quern {
namespace {

// --- pieces of 16 rows, as transposes of 16-byte registers (vector extensions of g++ and clang) ---

using Bytes16 [[gnu::vector_size(16)]] = uint8_t;
using Words8 [[gnu::vector_size(16)]] = uint16_t;
using Dwords4 [[gnu::vector_size(16)]] = uint32_t;

// The lower (upper) halves of a and b, lane by lane in turn.
Bytes16 zip_low(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
Bytes16 zip_high(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
Words8 zip_low(Words8 a, Words8 b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
Words8 zip_high(Words8 a, Words8 b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
Dwords4 zip_low(Dwords4 a, Dwords4 b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
Dwords4 zip_high(Dwords4 a, Dwords4 b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }

// Lane j of vector i becomes lane i of vector j; vectors stand `from_step` and `to_step` bytes apart. Each
// round zips vector i with vector i + n/2, which turns the number of a lane's place, vector and lane in one,
// by one bit; after log2(n) rounds vector and lane have changed places.
template <class Vector, class Lane>
void transpose(const uint8_t* from, size_t from_step, uint8_t* to, size_t to_step) noexcept {
  constexpr size_t kLanes = sizeof(Vector) / sizeof(Lane);
  Vector v[kLanes], zipped[kLanes];
  for (size_t i = 0; i < kLanes; ++i) std::memcpy(&v[i], from + i * from_step, sizeof(Vector));
  for (size_t round = 1; round < kLanes; round *= 2) {
    for (size_t i = 0; i < kLanes / 2; ++i) {
      zipped[2 * i] = zip_low(v[i], v[i + kLanes / 2]);
      zipped[2 * i + 1] = zip_high(v[i], v[i + kLanes / 2]);
    }
    for (size_t i = 0; i < kLanes; ++i) v[i] = zipped[i];
  }
  for (size_t i = 0; i < kLanes; ++i) std::memcpy(to + i * to_step, &v[i], sizeof(Vector));
}

enum class Direction : uint8_t { kPack, kUnpack };

// `count` pieces, each of one Lane, of 16 rows. Both: where piece 0 of row 0 stands.
template <Direction kDirection, class Vector, class Lane>
void move_pieces(const uint8_t* from, uint8_t* to, size_t row_bytes, size_t panel_step,
                 size_t count) noexcept {
  constexpr size_t kLanes = sizeof(Vector) / sizeof(Lane), kBytes = sizeof(Lane);
  constexpr bool kPacks = kDirection == Direction::kPack;
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t r = 0; r < kPanelRows; r += kLanes) {
      const size_t in_row = r * row_bytes + i * kBytes, in_panel = i * panel_step + r * kBytes;
      transpose<Vector, Lane>(from + (kPacks ? in_row : in_panel), kPacks ? row_bytes : panel_step,
                              to + (kPacks ? in_panel : in_row), kPacks ? panel_step : row_bytes);
    }
  }
  for (; i < count; ++i) {
    for (size_t r = 0; r < kPanelRows; ++r) {
      const size_t in_row = r * row_bytes + i * kBytes, in_panel = i * panel_step + r * kBytes;
      std::memcpy(to + (kPacks ? in_panel : in_row), from + (kPacks ? in_row : in_panel), kBytes);
    }
  }
}

template <Direction kDirection>
void move_run(const PanelRun& run, const uint8_t* from, uint8_t* to, size_t row_bytes,
              size_t count) noexcept {
  if (run.bytes == 4) {
    move_pieces<kDirection, Dwords4, uint32_t>(from, to, row_bytes, run.panel_step, count);
  } else if (run.bytes == 2) {
    move_pieces<kDirection, Words8, uint16_t>(from, to, row_bytes, run.panel_step, count);
  } else {
    move_pieces<kDirection, Bytes16, uint8_t>(from, to, row_bytes, run.panel_step, count);
  }
}

// --- the fifth bits ---

// exchange<a, b> permutes the 32 bits of a word: the bit with index k goes to the index that k becomes when
// its own bits a and b (of five) change places. Those whose index has a set and b not change places with
// those whose index has b set and a not; this is the mask of the former (a delta swap: Warren, "Hacker's
// Delight", 2nd edition, 2012, chapter 7).
constexpr uint32_t exchanged(int a, int b) {
  uint32_t mask = 0;
  for (int bit = 0; bit < 32; ++bit)
    if ((bit >> a & 1) != 0 && (bit >> b & 1) == 0) mask |= uint32_t{1} << bit;
  return mask;
}

template <int kA, int kB, class Word>
Word exchange(Word x) {
  constexpr int kShift = (1 << kB) - (1 << kA);
  const Word changed = ((x >> kShift) ^ x) & exchanged(kA, kB);
  return x ^ changed ^ (changed << kShift);
}

// Bit 4s + i goes to index 8i + s (panel_runs.h). In binary s2 s1 s0 i1 i0 becomes i1 i0 s2 s1 s0: the index
// is rotated right by two of its five bits, which four exchanges do. Word: uint32_t, or lanes of it.
template <class Word>
Word turn(Word bits) {
  return exchange<0, 2>(exchange<0, 4>(exchange<0, 1>(exchange<0, 3>(bits))));
}

template <class Word>
Word turn_back(Word bits) {
  return exchange<0, 3>(exchange<0, 1>(exchange<0, 4>(exchange<0, 2>(bits))));
}

uint32_t load_u32(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

void store_u32(uint32_t value, uint8_t* p) { std::memcpy(p, &value, sizeof value); }

template <Direction kDirection>
void turn_words(const uint8_t* words, uint8_t* turned) noexcept {
  for (size_t i = 0; i < kPanelRows * 4; i += sizeof(Dwords4)) {
    Dwords4 bits;
    std::memcpy(&bits, words + i, sizeof bits);
    bits = kDirection == Direction::kPack ? turn(bits) : turn_back(bits);
    std::memcpy(turned + i, &bits, sizeof bits);
  }
}

struct Geometry {
  std::span<const PanelRun> runs;
  size_t n_blocks, block_bytes, row_bytes;
  size_t pieces(const PanelRun& run) const { return run.count != 0 ? run.count : row_bytes / run.bytes; }
};

Geometry geometry_of(DType dtype, size_t columns) noexcept {
  const BlockFormat& format = block_format(dtype);
  QUERN_CHECK(!format.panel.empty() && columns % format.block_weights == 0);
  const size_t row_bytes = format.row_bytes(columns);
  if (format.is_float()) return {format.panel, 1, row_bytes, row_bytes};
  return {format.panel, columns / format.block_weights, format.block_bytes, row_bytes};
}

void pack_whole_panel(const Geometry& g, const uint8_t* rows, uint8_t* panel) noexcept {
  for (size_t b = 0; b < g.n_blocks; ++b) {
    for (const PanelRun& run : g.runs) {
      const uint8_t* from = rows + b * g.block_bytes + run.row_offset;
      uint8_t* to = panel + b * g.block_bytes * kPanelRows + run.panel_offset;
      move_run<Direction::kPack>(run, from, to, g.row_bytes, g.pieces(run));
      if (run.turned) turn_words<Direction::kPack>(to, to);
    }
  }
}

}  // namespace

bool has_panel_layout(DType dtype) noexcept {
  const BlockFormat* format = find_block_format(dtype);
  return format != nullptr && !format->panel.empty();
}

bool can_be_panels(DType dtype, const Shape& shape) noexcept {
  return shape.size() == 2 && shape[0] >= kPanelRows && has_panel_layout(dtype);
}

uint64_t panel_bytes(DType dtype, uint64_t rows, uint64_t columns) noexcept {
  return (rows + kPanelRows - 1) / kPanelRows * kPanelRows * block_format(dtype).row_bytes(columns);
}

void pack_panel(DType dtype, const uint8_t* rows, size_t n_rows, size_t columns, uint8_t* panel) noexcept {
  QUERN_CHECK(n_rows >= 1 && n_rows <= kPanelRows);
  const Geometry g = geometry_of(dtype, columns);
  if (n_rows == kPanelRows) {
    pack_whole_panel(g, rows, panel);
    return;
  }
  std::memset(panel, 0, kPanelRows * g.row_bytes);
  for (size_t r = 0; r < n_rows; ++r) {
    for (size_t b = 0; b < g.n_blocks; ++b) {
      for (const PanelRun& run : g.runs) {
        const uint8_t* from = rows + r * g.row_bytes + b * g.block_bytes + run.row_offset;
        uint8_t* to = panel + b * g.block_bytes * kPanelRows + run.panel_offset + r * run.bytes;
        for (size_t i = 0; i < g.pieces(run); ++i)
          std::memcpy(to + i * run.panel_step, from + i * run.bytes, run.bytes);
        if (run.turned) store_u32(turn(load_u32(to)), to);
      }
    }
  }
}

void unpack_panel(DType dtype, const uint8_t* panel, size_t n_rows, size_t columns, uint8_t* rows) noexcept {
  QUERN_CHECK(n_rows >= 1 && n_rows <= kPanelRows);
  const Geometry g = geometry_of(dtype, columns);
  if (n_rows < kPanelRows) {
    for (size_t r = 0; r < n_rows; ++r)
      unpack_row_blocks(dtype, panel, r, 0, columns / block_format(dtype).block_weights,
                        rows + r * g.row_bytes);
    return;
  }
  for (size_t b = 0; b < g.n_blocks; ++b) {
    for (const PanelRun& run : g.runs) {
      const uint8_t* from = panel + b * g.block_bytes * kPanelRows + run.panel_offset;
      uint8_t* to = rows + b * g.block_bytes + run.row_offset;
      uint8_t straight[kPanelRows * 4];
      if (run.turned) turn_words<Direction::kUnpack>(from, straight);
      move_run<Direction::kUnpack>(run, run.turned ? straight : from, to, g.row_bytes, g.pieces(run));
    }
  }
}

void unpack_row_blocks(DType dtype, const uint8_t* panel, size_t row, size_t block_begin, size_t block_end,
                       uint8_t* blocks) noexcept {
  QUERN_CHECK(row < kPanelRows && block_begin <= block_end);
  const BlockFormat& format = block_format(dtype);
  QUERN_CHECK(!format.panel.empty());
  const size_t block_bytes = format.block_bytes;
  for (size_t b = block_begin; b < block_end; ++b, blocks += block_bytes) {
    const uint8_t* panel_block = panel + b * block_bytes * kPanelRows;
    for (const PanelRun& run : format.panel) {
      const uint8_t* from = panel_block + run.panel_offset + row * run.bytes;
      uint8_t* to = blocks + run.row_offset;
      for (size_t i = 0; i < std::max<size_t>(run.count, 1); ++i)
        std::memcpy(to + i * run.bytes, from + i * run.panel_step, run.bytes);
      if (run.turned) store_u32(turn_back(load_u32(to)), to);
    }
  }
}

const uint8_t* rows_of_group(const TensorView& tensor, size_t row, uint8_t* scratch) noexcept {
  const uint8_t* group = tensor.data + row * block_format(tensor.dtype).row_bytes(tensor.columns());
  if (tensor.layout == TensorLayout::kRows || tensor.rows() - row < kPanelRows) return group;
  unpack_panel(tensor.dtype, group, kPanelRows, tensor.columns(), scratch);
  return scratch;
}

bool can_be_cut(const TensorView& tensor, uint64_t begin, uint64_t end) noexcept {
  if (begin >= end || end > tensor.rows()) return false;
  if (tensor.layout == TensorLayout::kRows) return true;
  return begin % kPanelRows == 0 && (end % kPanelRows == 0 || end == tensor.rows());
}

TensorView rows_of(const TensorView& tensor, uint64_t begin, uint64_t end) {
  QUERN_CHECK(can_be_cut(tensor, begin, end));
  const uint64_t row_bytes = block_format(tensor.dtype).row_bytes(tensor.columns());
  TensorView rows = tensor;
  rows.shape = {end - begin, tensor.columns()};
  rows.data = tensor.data + begin * row_bytes;
  rows.n_bytes = (end - begin) * row_bytes;
  return rows;
}

}  // namespace quern
