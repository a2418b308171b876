#include "cli/tensor_diff.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "quant/gguf_writer.h"
#include "quant/panel_layout.h"
#include "tests/support/json.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

struct Written {
  GgufTensorInfo info;
  std::vector<float> values;  // or none: zero bytes
};

std::string write_file(const std::string& path, const std::vector<Written>& tensors) {
  const GgufMetadata metadata;
  std::vector<GgufTensorInfo> infos;
  for (const Written& tensor : tensors) infos.push_back(tensor.info);
  const GgufPlan plan(metadata, infos);
  GgufWriter writer(path, plan, metadata, true);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Written& tensor = tensors[i];
    const BlockFormat& format = block_format(tensor.info.dtype);
    std::vector<uint8_t> rows(plan.sizes[i]);
    if (!tensor.values.empty())
      format.encode(tensor.values.data(), tensor.values.size() / format.block_weights, rows.data());
    if (tensor.info.layout == TensorLayout::kPanels) {
      std::vector<uint8_t> panel(rows);
      pack_panel(tensor.info.dtype, rows.data(), kPanelRows, tensor.info.shape.back(), panel.data());
      rows = panel;
    }
    writer.write_tensor(i, 0, rows);
  }
  writer.finish();
  return path;
}

std::vector<float> ramp(size_t n) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = static_cast<float>(i % 37) - 18;
  return values;
}

class TensorDiffs : public testing::Test {
 protected:
  std::vector<TensorDiff> diff(const std::vector<Written>& a, const std::vector<Written>& base,
                               int n_threads = 2) {
    GgufFile first(write_file(folder_.file("a.gguf"), a)), second(write_file(folder_.file("b.gguf"), base));
    return diff_tensors(first, second, n_threads, {});
  }
  test::TempFolder folder_;
};

TEST_F(TensorDiffs, MeasuresErrorAndLargestDifference) {
  std::vector<float> base(96, 2), a(96, 2);
  a[70] = 5;
  a[80] = -1;  // as far away, but later
  const auto diffs = diff({{{"w", DType::F32, {3, 32}}, a}}, {{{"w", DType::F32, {3, 32}}, base}});
  ASSERT_EQ(diffs.size(), 1u);
  EXPECT_EQ(diffs[0].state, TensorDiff::State::kCompared);
  EXPECT_DOUBLE_EQ(diffs[0].relative_rms_error, std::sqrt(18.0 / (96 * 4)));
  EXPECT_EQ(diffs[0].largest_difference, 3);
  EXPECT_EQ(diffs[0].largest_at, 70u);
}

// Of formats and layouts only values count; sums do not depend on threads.
TEST_F(TensorDiffs, ReadsEveryLayout) {
  const std::vector<float> values = ramp(16 * 64);
  const std::vector<Written> base{{{"w", DType::F32, {16, 64}}, values}},
      rows{{{"w", DType::Q8_0, {16, 64}}, values}},
      panels{{{"w", DType::Q8_0, {16, 64}, TensorLayout::kPanels}, values}};
  const auto of_rows = diff(rows, base), of_panels = diff(panels, base, 1), same = diff(panels, rows);
  EXPECT_GT(of_rows[0].relative_rms_error, 0);
  EXPECT_LT(of_rows[0].relative_rms_error, 0.01);
  EXPECT_EQ(of_rows[0].relative_rms_error, of_panels[0].relative_rms_error);
  EXPECT_EQ(of_rows[0].largest_at, of_panels[0].largest_at);
  EXPECT_EQ(same[0].largest_difference, 0);
}

TEST_F(TensorDiffs, NamesWhatCannotBeCompared) {
  const auto diffs = diff({{{"both", DType::F32, {4}}, {}},
                           {{"reshaped", DType::F32, {2, 4}}, {}},
                           {{"padded", DType::F32, {1, 4}}, {}},
                           {{"mine", DType::F32, {4}}, {}},
                           {{"counts", DType::I32, {4}}, {}}},
                          {{{"both", DType::F32, {4}}, {}},
                           {{"reshaped", DType::F32, {4, 2}}, {}},
                           {{"padded", DType::F32, {4}}, {}},
                           {{"counts", DType::I32, {4}}, {}},
                           {{"theirs", DType::F32, {4}}, {}}});
  using State = TensorDiff::State;
  std::vector<std::pair<std::string, State>> found;
  for (const TensorDiff& d : diffs) found.emplace_back(d.name, d.state);
  EXPECT_EQ(found, (std::vector<std::pair<std::string, State>>{{"both", State::kCompared},
                                                               {"reshaped", State::kOtherShape},
                                                               {"padded", State::kCompared},
                                                               {"mine", State::kOnlyInFirst},
                                                               {"counts", State::kUnreadable},
                                                               {"theirs", State::kOnlyInSecond}}));
  const std::string text = render_diff_text(diffs, "a.gguf", "b.gguf");
  for (const char* part :
       {"[2, 4], base [4, 2]", "missing in the base", "only in the base", "2 tensors compared, 2"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  const auto parsed = test::Json::parse(render_diff_json(diffs, "a.gguf", "b.gguf"));
  EXPECT_EQ(parsed["tensors"][0]["relative_rms_error"], 0);
  EXPECT_EQ(parsed["tensors"][1]["state"], "other shape");
  EXPECT_FALSE(parsed["tensors"][5].contains("shape"));
}

TEST_F(TensorDiffs, CountsValuesThatAreNotFiniteApart) {
  std::vector<float> base(64, 1), a(64, 1);
  a[3] = NAN;
  base[4] = INFINITY;
  a[5] = 2;
  const auto diffs = diff({{{"w", DType::F32, {64}}, a}}, {{{"w", DType::F32, {64}}, base}});
  EXPECT_EQ(diffs[0].n_not_finite, 2u);
  EXPECT_EQ(diffs[0].largest_difference, 1);
}

}  // namespace
}  // namespace quern
