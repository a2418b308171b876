#include "quant/zero_tail.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "quant/panel_layout.h"

namespace quern {
namespace {

// A matrix of ones, but for rows from `first_zero` on, encoded in a format; and its bytes.
struct Matrix {
  Matrix(DType dtype, uint64_t rows, uint64_t columns, uint64_t first_zero) {
    const BlockFormat& format = block_format(dtype);
    std::vector<float> weights(rows * columns, 1.0f);
    for (uint64_t i = first_zero * columns; i < weights.size(); ++i) weights[i] = 0;
    bytes.resize(rows * format.row_bytes(columns));
    format.encode(weights.data(), weights.size() / format.block_weights, bytes.data());
    view = {"blk.0.ffn_up.weight", dtype, {rows, columns}, bytes.data(), bytes.size()};
  }
  std::vector<uint8_t> bytes;
  TensorView view;
};

class ZeroTailOf : public testing::TestWithParam<BlockFormat> {};
std::vector<BlockFormat> encodable() {
  std::vector<BlockFormat> formats;
  for (const BlockFormat& format : block_formats())
    if (format.encode != nullptr) formats.push_back(format);
  return formats;
}
INSTANTIATE_TEST_SUITE_P(Formats, ZeroTailOf, testing::ValuesIn(encodable()),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST_P(ZeroTailOf, IsFoundWhereverItBegins) {
  const uint64_t columns = 512, rows = 400;
  for (const uint64_t first : {0, 1, 200, 384}) {
    const Matrix matrix(GetParam().dtype, rows, columns, first);
    const auto tail = find_zero_tail(matrix.view);
    ASSERT_TRUE(tail) << first;
    EXPECT_EQ(tail->first_row, first);
    EXPECT_EQ(tail->n_rows, rows - first);
  }
  EXPECT_FALSE(find_zero_tail(Matrix(GetParam().dtype, rows, columns, rows).view));
  EXPECT_FALSE(find_zero_tail(Matrix(GetParam().dtype, rows, columns, rows - 15).view)) << "15 of 400 rows";
}

TEST_P(ZeroTailOf, IsFoundInPanelsToo) {
  if (!has_panel_layout(GetParam().dtype)) GTEST_SKIP() << "no panels of this format";
  const uint64_t columns = 512, rows = 40;  // two panels and eight rows
  for (const uint64_t first : {0, 5, 31, 33, 38}) {
    const Matrix matrix(GetParam().dtype, rows, columns, first);
    const uint64_t row_bytes = GetParam().row_bytes(columns);
    std::vector<uint8_t> panels = matrix.bytes;
    for (uint64_t row = 0; row + kPanelRows <= rows; row += kPanelRows)
      pack_panel(GetParam().dtype, matrix.bytes.data() + row * row_bytes, kPanelRows, columns,
                 panels.data() + row * row_bytes);
    TensorView view = matrix.view;
    view.data = panels.data();
    view.layout = TensorLayout::kPanels;
    const auto tail = find_zero_tail(view);
    ASSERT_TRUE(tail) << first;
    EXPECT_EQ(tail->first_row, first);
  }
}

TEST(ZeroTail, CountsFromSixteenRowsOrFivePercent) {
  struct Case {
    uint64_t rows, zeros;
    bool found;
  };
  for (const Case& c : {Case{1000, 15, false}, Case{1000, 16, true}, Case{100, 4, false}, Case{100, 5, true},
                        Case{8, 1, true}, Case{1000, 0, false}})
    EXPECT_EQ(find_zero_tail(Matrix(DType::F16, c.rows, 32, c.rows - c.zeros).view).has_value(), c.found)
        << c.zeros << " of " << c.rows;
}

TEST(ZeroTail, DownloadedZeroBytesCountWhateverTheFormat) {
  for (const BlockFormat& format : block_formats()) {
    const std::vector<uint8_t> bytes(32 * format.row_bytes(256), 0);
    EXPECT_TRUE(find_zero_tail({"w", format.dtype, {32, 256}, bytes.data(), bytes.size()})) << format.name;
  }
}

TEST(ZeroTail, OneWeightInTheLastRowIsEnough) {
  for (const uint64_t column : {0, 255, 511}) {
    Matrix matrix(DType::F32, 64, 512, 0);
    const float weight = 1e-30f;
    std::memcpy(matrix.bytes.data() + (63 * 512 + column) * sizeof weight, &weight, sizeof weight);
    EXPECT_FALSE(find_zero_tail(matrix.view)) << column;
  }
}

TEST(ZeroTail, ElementsOfAVectorAreItsRows) {
  Matrix norm(DType::F32, 1, 256, 1);
  norm.view.shape = {256};
  EXPECT_FALSE(find_zero_tail(norm.view));
  std::memset(norm.bytes.data() + 4 * 200, 0, 4 * 56);
  EXPECT_EQ(find_zero_tail(norm.view)->first_row, 200u);
  std::memset(norm.bytes.data(), 0, norm.bytes.size());
  EXPECT_TRUE(find_zero_tail(norm.view)->is_whole());
  norm.view.name = "blk.0.attn_q.bias";
  EXPECT_FALSE(find_zero_tail(norm.view)) << "a bias may be zero";
}

TEST(ZeroTail, RowsOfReservedAndUnusedTokensDoNotCount) {
  GgufMetadata metadata;
  std::vector<int32_t> types(64, 1);
  for (size_t i = 40; i < 64; ++i) types[i] = i % 2 == 0 ? 3 : 5;
  metadata.set_int32s("tokenizer.ggml.token_type", types);
  const GgufValue value = *metadata.find("tokenizer.ggml.token_type");
  EXPECT_EQ(rows_of_text(&value, 64), 40u);
  EXPECT_EQ(rows_of_text(&value, 30), 30u);
  EXPECT_EQ(rows_of_text(nullptr, 64), 64u);

  Matrix embedding(DType::F16, 64, 32, 40);
  embedding.view.name = "token_embd.weight";
  EXPECT_TRUE(find_zero_tails({embedding.view}, &value).empty());
  EXPECT_EQ(find_zero_tails({embedding.view}, nullptr).size(), 1u);
  Matrix damaged(DType::F16, 64, 32, 20);
  damaged.view.name = "output.weight";
  EXPECT_EQ(find_zero_tails({damaged.view}, &value).at(0).n_rows, 20u);
}

TEST(ZeroTail, WarningNamesTensorsAndRows) {
  EXPECT_EQ(zero_tail_warning("m.gguf", {}), "");
  const std::vector<ZeroTail> tails = {
      {"a.weight", 0, 64, 64}, {"b.weight", 10, 54, 64}, {"c.weight", 0, 8, 8}};
  EXPECT_NE(
      zero_tail_warning("m.gguf", tails).find("a.weight (all), b.weight (rows 10 to 63), c.weight (all)"),
      std::string::npos);
  EXPECT_EQ(describe(tails, 1), "a.weight (all) and 2 more");
}

}  // namespace
}  // namespace quern
