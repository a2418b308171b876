#include "quant/quantize.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "quant/float16.h"
#include "quant/panel_layout.h"

namespace quern {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A matrix of f32 and its bytes in some format.
struct Matrix {
  DType dtype;
  uint64_t rows, columns;
  std::vector<uint8_t> bytes;

  TensorView view() const { return {"w", dtype, {rows, columns}, bytes.data(), bytes.size()}; }
};

Matrix matrix_of(DType dtype, uint64_t rows, uint64_t columns, const std::vector<float>& values) {
  const BlockFormat& format = block_format(dtype);
  Matrix matrix{dtype, rows, columns, std::vector<uint8_t>(rows * format.row_bytes(columns))};
  format.encode(values.data(), values.size() / format.block_weights, matrix.bytes.data());
  return matrix;
}

// BF16-representable, so that every source format below holds them in its own way.
std::vector<float> gauss(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(n);
  for (float& value : values) value = f32_from_bf16(bf16_from_f32(normal(random)));
  return values;
}

std::vector<float> decoded(const Matrix& matrix) {
  std::vector<float> values(matrix.rows * matrix.columns);
  const BlockFormat& format = block_format(matrix.dtype);
  format.decode(matrix.bytes.data(), values.size() / format.block_weights, values.data());
  return values;
}

struct Converted {
  QuantizeResult result;
  std::vector<uint8_t> bytes;
};

// quantize_rows with the scratch memory it asks for, filled with what was never written there.
QuantizeResult quantize(const TensorView& source, const QuantizeTarget& target, uint64_t row_begin,
                        uint64_t row_end, const uint64_t* row_map, std::span<uint8_t> out) {
  std::vector<uint8_t> scratch(quantize_scratch_bytes(source, target), 0xa5);
  return quantize_rows(source, target, row_begin, row_end, row_map, scratch, out);
}

Converted convert(const Matrix& source, DType target, const uint64_t* row_map = nullptr) {
  Converted out;
  out.bytes.resize(source.rows * block_format(target).row_bytes(source.columns));
  out.result = quantize(source.view(), {target}, 0, source.rows, row_map, out.bytes);
  return out;
}

// Every pair of formats: the bytes are encode(decode(source)), the sums those of a plain loop. The width is
// more than one working chunk and not a whole number of them.
TEST(QuantizeRows, EncodesWhatTheSourceDecodesTo) {
  constexpr uint64_t kRows = 5, kColumns = 2048 + 768;
  for (const BlockFormat& from : block_formats()) {
    if (from.encode == nullptr) continue;
    const Matrix source = matrix_of(from.dtype, kRows, kColumns, gauss(kRows * kColumns, 1));
    const std::vector<float> x = decoded(source);
    for (const BlockFormat& to : block_formats()) {
      if (to.encode == nullptr) continue;
      SCOPED_TRACE(std::string(from.name) + " to " + std::string(to.name));
      const Converted converted = convert(source, to.dtype);
      Matrix expected = matrix_of(to.dtype, kRows, kColumns, x);
      if (from.dtype == to.dtype) expected.bytes = source.bytes;
      EXPECT_EQ(converted.bytes, expected.bytes);
      EXPECT_EQ(converted.result.bad_element, -1);

      const std::vector<float> y = decoded(expected);
      double error = 0, norm = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        error += std::pow(static_cast<double>(y[i]) - x[i], 2);
        norm += std::pow(static_cast<double>(x[i]), 2);
      }
      EXPECT_NEAR(converted.result.squared_error, error, 1e-12 * error);
      const double counted = from.dtype == to.dtype ? 0 : norm;  // a copy takes no error and counts nothing
      EXPECT_NEAR(converted.result.squared_source, counted, 1e-12 * norm);
    }
  }
}

TEST(QuantizeRows, PiecesChangeNothing) {
  constexpr uint64_t kRows = 37, kColumns = 512;
  const Matrix source = matrix_of(DType::BF16, kRows, kColumns, gauss(kRows * kColumns, 2));
  for (const BlockFormat& to : block_formats()) {
    if (to.encode == nullptr) continue;
    SCOPED_TRACE(to.name);
    const Converted whole = convert(source, to.dtype);
    const uint64_t row_bytes = to.row_bytes(kColumns);
    for (uint64_t begin = 0; begin < kRows; begin += 10) {
      const uint64_t end = std::min(kRows, begin + 10);
      std::vector<uint8_t> piece((end - begin) * row_bytes);
      quantize(source.view(), {to.dtype}, begin, end, nullptr, piece);
      EXPECT_TRUE(std::equal(piece.begin(), piece.end(), whole.bytes.begin() + begin * row_bytes));
    }
  }
}

// The bytes of a matrix of rows as a file of panels has them.
std::vector<uint8_t> as_panels(DType dtype, uint64_t columns, std::vector<uint8_t> rows) {
  const uint64_t row_bytes = block_format(dtype).row_bytes(columns);
  std::vector<uint8_t> out = rows;
  for (uint64_t row = 0; (row + kPanelRows) * row_bytes <= rows.size(); row += kPanelRows)
    pack_panel(dtype, &rows[row * row_bytes], kPanelRows, columns, &out[row * row_bytes]);
  return out;
}

TEST(QuantizeRows, ReadsAndWritesPanelsOfEveryFormat) {
  constexpr uint64_t kColumns = 256;
  for (const uint64_t n_rows : {16, 37}) {
    for (const BlockFormat& from : block_formats()) {
      if (from.encode == nullptr || !has_panel_layout(from.dtype)) continue;
      const Matrix source = matrix_of(from.dtype, n_rows, kColumns, gauss(n_rows * kColumns, 4));
      const std::vector<uint8_t> source_panels = as_panels(from.dtype, kColumns, source.bytes);
      TensorView panels = source.view();
      panels.data = source_panels.data();
      panels.layout = TensorLayout::kPanels;
      for (const BlockFormat& to : block_formats()) {
        if (to.encode == nullptr || !has_panel_layout(to.dtype)) continue;
        SCOPED_TRACE(fmt::format("{} to {}, {} rows", from.name, to.name, n_rows));
        const Converted expected = convert(source, to.dtype);
        const std::vector<uint8_t> expected_panels = as_panels(to.dtype, kColumns, expected.bytes);
        for (const TensorView& view : {source.view(), panels}) {
          for (const TensorLayout layout : {TensorLayout::kRows, TensorLayout::kPanels}) {
            std::vector<uint8_t> out(expected.bytes.size());
            const QuantizeResult result = quantize(view, {to.dtype, layout}, 0, n_rows, nullptr, out);
            EXPECT_EQ(out, layout == TensorLayout::kRows ? expected.bytes : expected_panels);
            EXPECT_EQ(result.bad_element, -1);
            EXPECT_EQ(result.squared_error, expected.result.squared_error);
            EXPECT_EQ(result.squared_source, expected.result.squared_source);
          }
        }
      }
    }
  }
}

TEST(QuantizeRows, NamesWeightsOfPanelsByTheirRow) {
  constexpr uint64_t kRows = 37, kColumns = 64;
  for (const uint64_t bad : {uint64_t{0}, 5 * kColumns + 3, 31 * kColumns + 63, 36 * kColumns}) {
    std::vector<float> x(kRows * kColumns, 1.0f);
    x[bad] = std::numeric_limits<float>::quiet_NaN();
    const Matrix rows = matrix_of(DType::F32, kRows, kColumns, x);
    const std::vector<uint8_t> bytes = as_panels(DType::F32, kColumns, rows.bytes);
    TensorView view = rows.view();
    view.data = bytes.data();
    view.layout = TensorLayout::kPanels;
    std::vector<uint8_t> out(kRows * block_format(DType::Q8_0).row_bytes(kColumns));
    EXPECT_EQ(quantize(view, {DType::Q8_0}, 0, kRows, nullptr, out).bad_element, static_cast<int64_t>(bad));
    for (const int n_threads : {1, 2, 7}) {
      EXPECT_EQ(first_non_finite_block(view, n_threads), bad);
      EXPECT_EQ(first_non_finite_block(rows.view(), n_threads), bad);
    }
  }
  const Matrix good = matrix_of(DType::F32, kRows, kColumns, std::vector<float>(kRows * kColumns, 1.0f));
  TensorView view = good.view();
  view.layout = TensorLayout::kPanels;
  EXPECT_EQ(first_non_finite_block(view, 2), kRows * kColumns);
}

TEST(QuantizeRows, TakesRowsFromWhereTheMapSays) {
  constexpr uint64_t kRows = 8, kColumns = 256;
  const uint64_t map[kRows] = {0, 4, 1, 5, 2, 6, 3, 7};
  const Matrix source = matrix_of(DType::BF16, kRows, kColumns, gauss(kRows * kColumns, 3));
  for (const BlockFormat& to : block_formats()) {
    if (to.encode == nullptr) continue;
    SCOPED_TRACE(to.name);
    const uint64_t row_bytes = to.row_bytes(kColumns);
    const Converted straight = convert(source, to.dtype);
    const Converted mapped = convert(source, to.dtype, map);
    for (uint64_t row = 0; row < kRows; ++row) {
      EXPECT_EQ(std::memcmp(&mapped.bytes[row * row_bytes], &straight.bytes[map[row] * row_bytes], row_bytes),
                0);
    }
    std::vector<uint8_t> piece(3 * row_bytes);  // the map counts rows of the tensor, not of the piece
    quantize(source.view(), {to.dtype}, 3, 6, map, piece);
    EXPECT_TRUE(std::equal(piece.begin(), piece.end(), mapped.bytes.begin() + 3 * row_bytes));
  }
}

TEST(QuantizeRows, NamesTheFirstWeightThatIsNotANumber) {
  constexpr uint64_t kRows = 6, kColumns = 2048 + 256;
  for (const DType from : {DType::F32, DType::BF16, DType::F16}) {
    for (const BlockFormat& to : block_formats()) {
      if (to.encode == nullptr) continue;
      SCOPED_TRACE(std::string(block_format(from).name) + " to " + std::string(to.name));
      for (const float bad : {kNan, kInf, -kInf}) {
        for (const uint64_t element :
             {uint64_t{0}, kColumns - 1, 3 * kColumns + 2100, kRows * kColumns - 1}) {
          std::vector<float> values = gauss(kRows * kColumns, 4);
          values[element] = bad;
          values.back() = kNan;
          const Matrix source = matrix_of(from, kRows, kColumns, values);
          EXPECT_EQ(convert(source, to.dtype).result.bad_element, static_cast<int64_t>(element));
        }
      }
    }
  }
}

TEST(QuantizeRows, NamesTheBadWeightByItsPlaceInTheSource) {
  const uint64_t map[4] = {3, 1, 2, 0};
  std::vector<float> values = gauss(4 * 32, 5);
  values[0 * 32 + 7] = kNan;
  values[3 * 32 + 1] = kNan;
  const Matrix source = matrix_of(DType::F32, 4, 32, values);
  EXPECT_EQ(convert(source, DType::Q4_0, map).result.bad_element, 7);
}

// 65504 is the largest f16: the largest weight over 8 (Q4_0), 16 (Q5_0), 127 (Q8_0) must stay within it.
TEST(QuantizeRows, ReportsABlockWhoseScaleOverflows) {
  struct Case {
    DType target;
    float fits, overflows;
  };
  for (const auto& [target, fits, overflows] :
       {Case{DType::Q4_0, 65504.0f * 8, 65536.0f * 8}, Case{DType::Q5_0, 65504.0f * 16, 65536.0f * 16},
        Case{DType::Q8_0, 65504.0f * 127, 65536.0f * 127}, Case{DType::Q4_1, 65504.0f, 65536.0f * 15},
        Case{DType::Q5_1, 65504.0f, 65536.0f * 31}, Case{DType::Q6_K, 65504.0f * 128, 3e8f}}) {
    const BlockFormat& format = block_format(target);
    SCOPED_TRACE(format.name);
    std::vector<float> values = gauss(2 * 512, 6);
    values[512 + 300] = fits;
    EXPECT_EQ(convert(matrix_of(DType::F32, 2, 512, values), target).result.bad_element, -1);
    values[512 + 300] = overflows;
    const int64_t block_begin = (512 + 300) / format.block_weights * format.block_weights;
    EXPECT_EQ(convert(matrix_of(DType::F32, 2, 512, values), target).result.bad_element, block_begin);
    // A NaN behind it is not the first.
    values[512 + 511] = kNan;
    if (format.block_weights == 32) {
      EXPECT_EQ(convert(matrix_of(DType::F32, 2, 512, values), target).result.bad_element, block_begin);
    }
  }
  std::vector<float> values = gauss(64, 7);
  values[40] = 65520.0f;
  EXPECT_EQ(convert(matrix_of(DType::F32, 1, 64, values), DType::F16).result.bad_element, 40);
}

TEST(QuantizeRows, ReportsASourceBlockWithABadScale) {
  Matrix source = matrix_of(DType::Q8_0, 3, 64, gauss(3 * 64, 8));
  const uint16_t infinity = 0x7c00;
  std::memcpy(&source.bytes[3 * 34], &infinity, 2);  // second block of the second row
  for (const DType to : {DType::Q8_0, DType::Q4_0, DType::F32}) {
    EXPECT_EQ(convert(source, to).result.bad_element, 64 + 32);
  }
}

TEST(QuantizeRows, CopiesBytesThatAreNoNumbers) {
  Matrix source{DType::I8, 3, 50, std::vector<uint8_t>(150)};
  std::iota(source.bytes.begin(), source.bytes.end(), uint8_t{0});
  const Converted copy = convert(source, DType::I8);
  EXPECT_EQ(copy.bytes, source.bytes);
  EXPECT_EQ(copy.result.bad_element, -1);
}

TEST(QuantizeRows, AcceptsVectorsAndUnalignedData) {
  const std::vector<float> values = gauss(96, 9);
  std::vector<uint8_t> storage(1 + 96 * 2);
  block_format(DType::BF16).encode(values.data(), 96, storage.data() + 1);
  const TensorView vector{"norm", DType::BF16, {96}, storage.data() + 1, 96 * 2};
  std::vector<uint8_t> out(96 * 4);
  EXPECT_EQ(quantize(vector, {DType::F32}, 0, 1, nullptr, out).bad_element, -1);
  EXPECT_EQ(std::memcmp(out.data(), values.data(), out.size()), 0);
}

}  // namespace
}  // namespace quern
