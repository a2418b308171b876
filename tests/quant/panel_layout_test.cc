#include "quant/panel_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace quern {
namespace {

using Bytes = std::vector<uint8_t>;

std::vector<DType> panel_formats() {
  std::vector<DType> dtypes;
  for (const BlockFormat& format : block_formats())
    if (has_panel_layout(format.dtype)) dtypes.push_back(format.dtype);
  return dtypes;
}

Bytes random_bytes(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(n);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

Bytes pack(DType dtype, const Bytes& rows, size_t n_rows, size_t columns) {
  Bytes panel(panel_bytes(dtype, n_rows, columns), 0xee);
  pack_panel(dtype, rows.data(), n_rows, columns, panel.data());
  return panel;
}

class PanelLayout : public testing::TestWithParam<DType> {
 protected:
  const BlockFormat& format() const { return block_format(GetParam()); }
};

TEST_P(PanelLayout, UnpackingGivesBackEveryNumberOfRows) {
  for (const size_t n_blocks : {1, 2, 5}) {
    const size_t columns = n_blocks * format().block_weights;
    for (size_t n_rows = 1; n_rows <= kPanelRows; ++n_rows) {
      const Bytes rows = random_bytes(n_rows * format().row_bytes(columns), static_cast<uint32_t>(n_rows));
      const Bytes panel = pack(GetParam(), rows, n_rows, columns);
      Bytes back(rows.size(), 0xee);
      unpack_panel(GetParam(), panel.data(), n_rows, columns, back.data());
      EXPECT_EQ(back, rows) << n_rows << " rows of " << columns;
    }
  }
}

TEST_P(PanelLayout, PlacesEveryBitOnce) {
  const size_t columns = format().block_weights;
  Bytes rows(kPanelRows * format().block_bytes, 0);
  std::vector<bool> taken(rows.size() * 8, false);
  for (size_t bit = 0; bit < rows.size() * 8; ++bit) {
    rows[bit / 8] = static_cast<uint8_t>(1u << (bit % 8));
    const Bytes panel = pack(GetParam(), rows, kPanelRows, columns);
    rows[bit / 8] = 0;
    const auto first = std::find_if(panel.begin(), panel.end(), [](uint8_t byte) { return byte != 0; });
    ASSERT_NE(first, panel.end()) << "bit " << bit << " is lost";
    ASSERT_TRUE(std::has_single_bit(*first) &&
                std::all_of(first + 1, panel.end(), [](uint8_t b) { return b == 0; }))
        << "bit " << bit << " is placed more than once";
    const size_t place = static_cast<size_t>(first - panel.begin()) * 8 + std::countr_zero(*first);
    ASSERT_FALSE(taken[place]) << "bit " << bit << " lands on another";
    taken[place] = true;
  }
}

TEST_P(PanelLayout, GivesBackSingleRowsInPieces) {
  const size_t n_blocks = 5, columns = n_blocks * format().block_weights;
  const size_t row_bytes = format().row_bytes(columns), block_bytes = format().block_bytes;
  const Bytes rows = random_bytes(kPanelRows * row_bytes, 3);
  const Bytes panel = pack(GetParam(), rows, kPanelRows, columns);
  for (size_t row = 0; row < kPanelRows; ++row) {
    for (const size_t cut : {size_t{0}, size_t{2}, n_blocks}) {
      Bytes back(row_bytes, 0xee);
      unpack_row_blocks(GetParam(), panel.data(), row, 0, cut, back.data());
      unpack_row_blocks(GetParam(), panel.data(), row, cut, n_blocks, back.data() + cut * block_bytes);
      EXPECT_TRUE(std::equal(back.begin(), back.end(), rows.begin() + row * row_bytes)) << row;
    }
  }
}

TEST_P(PanelLayout, GroupsOfATensorAreItsRowsInEitherLayout) {
  const size_t n_rows = 37, columns = 3 * format().block_weights, row_bytes = format().row_bytes(columns);
  const Bytes rows = random_bytes(n_rows * row_bytes, 4);
  Bytes stored = rows;  // as a file has it: two panels, then five rows
  for (size_t row : {0, 16})
    pack_panel(GetParam(), rows.data() + row * row_bytes, kPanelRows, columns,
               stored.data() + row * row_bytes);
  for (const TensorLayout layout : {TensorLayout::kRows, TensorLayout::kPanels}) {
    TensorView tensor;
    tensor.dtype = GetParam();
    tensor.shape = {n_rows, columns};
    tensor.layout = layout;
    tensor.data = layout == TensorLayout::kRows ? rows.data() : stored.data();
    tensor.n_bytes = rows.size();
    Bytes scratch(kPanelRows * row_bytes);
    for (size_t row = 0; row < n_rows; row += kPanelRows) {
      const uint8_t* group = rows_of_group(tensor, row, scratch.data());
      const size_t n = std::min(kPanelRows, n_rows - row);
      EXPECT_EQ(std::memcmp(group, rows.data() + row * row_bytes, n * row_bytes), 0) << row;
    }
  }
}

TEST_P(PanelLayout, PadsMissingRowsWithZeroBytes) {
  const size_t columns = 3 * format().block_weights;
  const size_t row_bytes = format().row_bytes(columns);
  Bytes rows = random_bytes(5 * row_bytes, 5);
  const Bytes panel = pack(GetParam(), rows, 5, columns);
  rows.resize(kPanelRows * row_bytes, 0);
  EXPECT_EQ(panel, pack(GetParam(), rows, kPanelRows, columns));
}

TEST_P(PanelLayout, TakesTheBytesOfWholePanels) {
  const size_t columns = 2 * format().block_weights;
  EXPECT_EQ(panel_bytes(GetParam(), 0, columns), 0u);
  EXPECT_EQ(panel_bytes(GetParam(), 1, columns), 16 * format().row_bytes(columns));
  EXPECT_EQ(panel_bytes(GetParam(), 32, columns), 32 * format().row_bytes(columns));
  EXPECT_EQ(panel_bytes(GetParam(), 33, columns), 48 * format().row_bytes(columns));
}

INSTANTIATE_TEST_SUITE_P(Formats, PanelLayout, testing::ValuesIn(panel_formats()),
                         [](const auto& tested) { return std::string(block_format(tested.param).name); });

// Where byte i of row r's block stands in the panel block, drawn by hand from formats.md 2.7. The bytes of
// qh, whose bits move, are left out.
using ByteMap = std::function<size_t(size_t r, size_t i)>;

size_t step_byte(size_t base, size_t r, size_t i) { return base + 64 * (i / 4) + 4 * r + i % 4; }

size_t q6_k_byte(size_t r, size_t i) {
  if (i >= 208) return 2 * r + (i - 208);
  if (i >= 192) return 32 + 16 * (i - 192) + r;
  const bool is_qh = i >= 128;
  const size_t half = is_qh ? (i - 128) / 32 : i / 64;
  const size_t l = i % 32;
  const size_t plane = is_qh ? 2 : i % 64 / 32;
  return 288 + 1536 * half + 192 * (l / 4) + 64 * plane + 4 * r + l % 4;
}

// Blocks of 256 weights: f16 d and perhaps a second u16, planes of bytes, then steps.
struct Planes {
  size_t d, second, planes, n_planes, steps;  // first bytes of a row's block; `second` without one: d
};

size_t planes_byte(const Planes& p, size_t r, size_t i) {
  const size_t head = p.second == p.d ? 32 : 64;
  if (i - p.d < 2) return 2 * r + (i - p.d);
  if (i - p.second < 2) return 32 + 2 * r + (i - p.second);
  if (i - p.planes < p.n_planes) return head + 16 * (i - p.planes) + r;
  return step_byte(head + 16 * p.n_planes, r, i - p.steps);
}

size_t q5_k_byte(size_t r, size_t i) {
  if (i < 16) return planes_byte({.d = 0, .second = 2, .planes = 4, .n_planes = 12, .steps = 16}, r, i);
  const size_t plane = (i - 16) / 32, l = (i - 16) % 32;
  return 256 + 320 * (l / 4) + 64 * plane + 4 * r + l % 4;
}

ByteMap planes_map(const Planes& p) {
  return [p](size_t r, size_t i) { return planes_byte(p, r, i); };
}

const std::map<DType, ByteMap>& drawn_maps() {
  static const std::map<DType, ByteMap> maps = {
      {DType::F32, [](size_t r, size_t i) { return 4 * r + i; }},
      {DType::F16, [](size_t r, size_t i) { return 2 * r + i; }},
      {DType::BF16, [](size_t r, size_t i) { return 2 * r + i; }},
      {DType::Q4_0, [](size_t r, size_t i) { return i < 2 ? 2 * r + i : step_byte(32, r, i - 2); }},
      {DType::Q4_1,
       [](size_t r, size_t i) {
         if (i < 4) return 32 * (i / 2) + 2 * r + i % 2;
         return step_byte(64, r, i - 4);
       }},
      {DType::Q5_0, [](size_t r, size_t i) { return i < 2 ? 2 * r + i : step_byte(96, r, i - 6); }},
      {DType::Q5_1,
       [](size_t r, size_t i) {
         if (i < 4) return 32 * (i / 2) + 2 * r + i % 2;
         return step_byte(128, r, i - 8);
       }},
      {DType::Q8_0, [](size_t r, size_t i) { return i < 2 ? 2 * r + i : step_byte(32, r, i - 2); }},
      {DType::Q2_K, planes_map({.d = 80, .second = 82, .planes = 0, .n_planes = 16, .steps = 16})},
      {DType::Q3_K, planes_map({.d = 108, .second = 108, .planes = 96, .n_planes = 12, .steps = 0})},
      {DType::Q4_K, planes_map({.d = 0, .second = 2, .planes = 4, .n_planes = 12, .steps = 16})},
      {DType::Q5_K, q5_k_byte},
      {DType::Q6_K, q6_k_byte},
      {DType::IQ4_NL, [](size_t r, size_t i) { return i < 2 ? 2 * r + i : step_byte(32, r, i - 2); }},
      {DType::IQ4_XS, planes_map({.d = 0, .second = 2, .planes = 4, .n_planes = 4, .steps = 8})},
      {DType::TQ2_0, planes_map({.d = 64, .second = 64, .planes = 0, .n_planes = 0, .steps = 0})},
      {DType::MXFP4, [](size_t r, size_t i) { return i == 0 ? r : step_byte(16, r, i - 1); }},
  };
  return maps;
}

struct FifthBits {
  size_t row_offset, panel_offset;
};
const std::map<DType, FifthBits> kFifthBits = {{DType::Q5_0, {2, 32}}, {DType::Q5_1, {4, 64}}};

TEST_P(PanelLayout, PlacesBytesAsDrawn) {
  const DType dtype = GetParam();
  const size_t block_bytes = format().block_bytes, n_blocks = 3;
  const Bytes rows = random_bytes(kPanelRows * n_blocks * block_bytes, 7);
  const Bytes panel = pack(dtype, rows, kPanelRows, n_blocks * format().block_weights);
  ASSERT_TRUE(drawn_maps().contains(dtype)) << "draw the map of this format here";
  const ByteMap& map = drawn_maps().at(dtype);
  const auto qh = kFifthBits.find(dtype);
  for (size_t b = 0; b < n_blocks; ++b) {
    for (size_t r = 0; r < kPanelRows; ++r) {
      const uint8_t* block = rows.data() + (r * n_blocks + b) * block_bytes;
      const uint8_t* panel_block = panel.data() + b * kPanelRows * block_bytes;
      for (size_t i = 0; i < block_bytes; ++i) {
        if (qh != kFifthBits.end() && i - qh->second.row_offset < 4) continue;
        ASSERT_EQ(panel_block[map(r, i)], block[i]) << "block " << b << " row " << r << " byte " << i;
      }
    }
  }
}

TEST(PanelLayoutFifthBits, FollowTheWeightsOfAStep) {
  for (const auto& [dtype, qh] : kFifthBits) {
    const BlockFormat& format = block_format(dtype);
    const Bytes rows = random_bytes(kPanelRows * format.block_bytes, 9);
    const Bytes panel = pack(dtype, rows, kPanelRows, format.block_weights);
    for (size_t r = 0; r < kPanelRows; ++r) {
      for (size_t k = 0; k < 32; ++k) {
        const uint8_t* from = rows.data() + r * format.block_bytes + qh.row_offset;
        const uint8_t* to = panel.data() + qh.panel_offset + 4 * r;
        EXPECT_EQ(to[k % 4] >> (k / 4) & 1, from[k / 8] >> (k % 8) & 1)
            << format.name << " row " << r << " k " << k;
      }
    }
  }
}

TEST(PanelLayoutTable, HasNoPanelsForFormatsWithoutKernels) {
  EXPECT_FALSE(has_panel_layout(DType::IQ1_S));
  EXPECT_FALSE(has_panel_layout(DType::I32));
}

TEST(PanelLayoutTable, TakesMatricesWithAWholePanel) {
  EXPECT_TRUE(can_be_panels(DType::Q4_0, {16, 32}));
  EXPECT_TRUE(can_be_panels(DType::Q4_0, {17, 32}));
  EXPECT_FALSE(can_be_panels(DType::Q4_0, {15, 32}));
  EXPECT_FALSE(can_be_panels(DType::Q4_0, {512}));
  EXPECT_FALSE(can_be_panels(DType::Q4_0, {2, 16, 32}));
  EXPECT_FALSE(can_be_panels(DType::IQ1_S, {16, 256}));
}

// Ids that are in files must never mean something else.
TEST(PanelLayoutTable, TypeIdsAreThoseOfVersion1) {
  EXPECT_EQ(panel_type_id(DType::F32), 0x50160100u);
  EXPECT_EQ(panel_type_id(DType::Q4_0), 0x50160102u);
  EXPECT_EQ(panel_type_id(DType::BF16), 0x5016011Eu);
  for (const BlockFormat& format : block_formats()) {
    EXPECT_FALSE(is_panel_type_id(static_cast<uint32_t>(format.dtype))) << format.name;
    EXPECT_TRUE(is_panel_type_id(panel_type_id(format.dtype))) << format.name;
    EXPECT_LT(static_cast<uint32_t>(format.dtype), 256u) << format.name;
  }
}

}  // namespace
}  // namespace quern
