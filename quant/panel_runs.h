// The byte maps of P16 panels (panel_layout.h), format by format: which bytes of a row's block stand where in
// a panel block. They are the format's own (BlockFormat::panel); packing follows them, and the kernels'
// unpackers derive their offsets from them (panel_place), so that a map is written down once.
//
// A panel is a row of panel blocks: block b of a panel holds block b of its 16 rows, the same 16 *
// block_bytes bytes in the order in which kernels touch them, so that a product reads memory line by line
// from front to back. A map is a list of runs. A run takes `count` pieces of `bytes` bytes that follow each
// other in a row's block from `row_offset` on; each piece stands beside those of the other 15 rows: 16 *
// bytes bytes. Runs follow each other in the panel block; `together` runs of the same count take turns, piece
// by piece.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace quern {

inline constexpr size_t kPanelRows = 16;

struct PanelRun {
  // A count of 0 is a float format: its blocks, single weights, are taken for one block of as many pieces as
  // there are.
  uint16_t row_offset, count, bytes;
  uint16_t together = 1;  // of the first of some runs that take turns: how many; of the others: ignored
  // The pieces are Q5's qh. Bit k = 4s + i (weight k's fifth bit) moves to bit 8i + s, so that one shift
  // brings the fifth bits of step s (k = 4s .. 4s+3) to the same place in four consecutive bytes, above their
  // nibbles.
  bool turned = false;
  // Piece i of row r goes to panel_offset + i * panel_step + r * bytes of the panel block: what placed()
  // adds.
  uint16_t panel_offset = 0, panel_step = 0;
};

namespace panel_runs {

template <size_t kCount>
consteval std::array<PanelRun, kCount> placed(std::array<PanelRun, kCount> runs) {
  size_t offset = 0;
  for (size_t i = 0; i < kCount;) {
    const size_t end = i + runs[i].together;
    size_t step = 0;
    for (size_t j = i; j < end; ++j) {
      runs[j].panel_offset = static_cast<uint16_t>(offset + step);
      step += kPanelRows * runs[j].bytes;
    }
    offset += step * runs[i].count;
    for (; i < end; ++i) runs[i].panel_step = static_cast<uint16_t>(step);
  }
  return runs;
}

template <class... Runs>
consteval auto map_of(Runs... runs) {
  return placed(std::array<PanelRun, sizeof...(Runs)>{runs...});
}

// clang-format off
inline constexpr auto kF32 = map_of(PanelRun{0, 0, 4});
inline constexpr auto kF16 = map_of(PanelRun{0, 0, 2});  // and BF16
inline constexpr auto kQ4_0 = map_of(
    PanelRun{0, 1, 2},            // d
    PanelRun{2, 4, 4});           // qs[4j .. 4j+3]: low nibbles k = 4j.., high nibbles k = 16+4j..
inline constexpr auto kQ4_1 = map_of(
    PanelRun{0, 1, 2},            // d
    PanelRun{2, 1, 2},            // m
    PanelRun{4, 4, 4});           // qs
inline constexpr auto kQ5_0 = map_of(
    PanelRun{0, 1, 2},            // d
    PanelRun{2, 1, 4, 1, true},   // qh
    PanelRun{6, 4, 4});           // qs
inline constexpr auto kQ5_1 = map_of(
    PanelRun{0, 1, 2},            // d
    PanelRun{2, 1, 2},            // m
    PanelRun{4, 1, 4, 1, true},   // qh
    PanelRun{8, 4, 4});           // qs
inline constexpr auto kQ8_0 = map_of(
    PanelRun{0, 1, 2},            // d
    PanelRun{2, 8, 4});           // qs[4j .. 4j+3]
inline constexpr auto kQ2_K = map_of(
    PanelRun{80, 1, 2},           // d
    PanelRun{82, 1, 2},           // dmin
    PanelRun{0, 16, 1},           // scales and minima
    PanelRun{16, 16, 4});         // qs: two halves of 128 weights, 8 steps each; bit pairs of four groups
inline constexpr auto kQ3_K = map_of(
    PanelRun{108, 1, 2},          // d
    PanelRun{96, 12, 1},          // scales
    PanelRun{0, 8, 4},            // hmask: a bit of each of the eight groups
    PanelRun{32, 16, 4});         // qs as Q2_K's
inline constexpr auto kQ4_K = map_of(
    PanelRun{0, 1, 2},            // d
    PanelRun{2, 1, 2},            // dmin
    PanelRun{4, 12, 1},           // scales and minima
    PanelRun{16, 32, 4});         // qs: four pairs of groups, 8 steps each; low nibbles the first group's
inline constexpr auto kQ5_K = map_of(
    PanelRun{0, 1, 2},            // d
    PanelRun{2, 1, 2},            // dmin
    PanelRun{4, 12, 1},           // scales and minima
    // 8 steps of l = 4j .. 4j+3: qh[l], a bit of each of the eight groups, then qs[l] of four pairs of groups, low
    // nibbles the first group's.
    PanelRun{16, 8, 4, 5},
    PanelRun{48, 8, 4}, PanelRun{80, 8, 4}, PanelRun{112, 8, 4}, PanelRun{144, 8, 4});
inline constexpr auto kQ6_K = map_of(
    PanelRun{208, 1, 2},          // d
    PanelRun{192, 16, 1},         // scales
    // Two halves of 128 weights, each 8 steps of l = 4j .. 4j+3:
    PanelRun{0, 8, 4, 3},         // ql[l]: low nibbles k = l, high nibbles k = 64 + l of the half
    PanelRun{32, 8, 4},           // ql[32 + l]: low nibbles k = 32 + l, high nibbles k = 96 + l
    PanelRun{128, 8, 4},          // qh[l]: the four bit pairs above these nibbles
    PanelRun{64, 8, 4, 3}, PanelRun{96, 8, 4}, PanelRun{160, 8, 4});
inline constexpr auto kIQ4_NL = kQ4_0;
inline constexpr auto kIQ4_XS = map_of(
    PanelRun{0, 1, 2},            // d
    PanelRun{2, 1, 2},            // scales_h
    PanelRun{4, 4, 1},            // scales_l
    PanelRun{8, 32, 4});          // qs: eight groups of four steps, nibbles as Q4_0's
inline constexpr auto kTQ2_0 = map_of(
    PanelRun{64, 1, 2},           // d
    PanelRun{0, 16, 4});          // qs as Q2_K's
inline constexpr auto kMXFP4 = map_of(
    PanelRun{0, 1, 1},            // e
    PanelRun{1, 4, 4});           // qs as Q4_0's
// clang-format on

}  // namespace panel_runs

// Where the piece that begins at a row's byte `row_byte` stands in a panel block, of row 0. For constants
// only.
consteval size_t panel_place(std::span<const PanelRun> runs, size_t row_byte) {
  for (const PanelRun& run : runs) {
    const size_t within = row_byte - run.row_offset;
    if (row_byte >= run.row_offset && within < size_t{run.count} * run.bytes && within % run.bytes == 0)
      return run.panel_offset + within / run.bytes * run.panel_step;
  }
  throw "no piece begins there";
}

// Bytes from that piece to the next one of its run.
consteval size_t panel_step(std::span<const PanelRun> runs, size_t row_byte) {
  for (const PanelRun& run : runs)
    if (row_byte >= run.row_offset && row_byte < run.row_offset + size_t{run.count} * run.bytes)
      return run.panel_step;
  throw "no piece begins there";
}

// Bytes of a panel block.
consteval size_t panel_block_bytes(std::span<const PanelRun> runs) {
  size_t bytes = 0;
  for (const PanelRun& run : runs) bytes += kPanelRows * run.count * run.bytes;
  return bytes;
}

}  // namespace quern
