#include "cli/plot.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/temp_folder.h"

namespace quern {
namespace {

size_t count(const std::string& text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// Elements close in the order in which they were opened; attributes hold no bare brackets.
void expect_well_formed(const std::string& svg) {
  std::vector<std::string> open;
  for (size_t at = svg.find('<'); at != svg.npos; at = svg.find('<', at + 1)) {
    const size_t end = svg.find('>', at);
    ASSERT_NE(end, svg.npos);
    const std::string tag = svg.substr(at + 1, end - at - 1);
    ASSERT_EQ(tag.find('<'), tag.npos) << tag;
    EXPECT_EQ(count(tag, "\"") % 2, 0u) << tag;
    if (tag.back() == '/') continue;
    if (tag.front() == '/') {
      ASSERT_FALSE(open.empty());
      EXPECT_EQ(tag.substr(1), open.back());
      open.pop_back();
    } else {
      open.push_back(tag.substr(0, tag.find_first_of(" \n")));
    }
  }
  EXPECT_TRUE(open.empty());
  EXPECT_EQ(svg.find("nan"), svg.npos);
  EXPECT_EQ(svg.find("inf"), svg.npos);
}

TEST(PlotAxis, TicksAreRoundNumbersWithinIt) {
  const auto texts = [](const PlotAxis& axis, size_t wanted) {
    std::vector<std::string> found;
    for (const PlotAxis::Tick& tick : axis.ticks(wanted)) {
      EXPECT_GE(axis.place(tick.value), -1e-9);
      EXPECT_LE(axis.place(tick.value), 1 + 1e-9);
      found.push_back(tick.text);
    }
    return found;
  };
  EXPECT_EQ(texts({"", 0, 1, false}, 5), (std::vector<std::string>{"0", "0.2", "0.4", "0.6", "0.8", "1"}));
  EXPECT_EQ(texts({"", 18.7, 26.2, false}, 4), (std::vector<std::string>{"20", "22", "24", "26"}));
  EXPECT_EQ(texts({"", 1e-4, 1, true}, 8), (std::vector<std::string>{"1e-4", "1e-3", "1e-2", "1e-1", "1e0"}));
  EXPECT_EQ(texts({"", -1.5, 2.5, false, true}, 8), (std::vector<std::string>{"-1", "0", "1", "2"}));
  EXPECT_LE(texts({"", 1e-40, 1, true}, 8).size(), 9u);
}

TEST(PlotAxis, PlacesByTheLogarithmWhereItIsOne) {
  const PlotAxis axis{"", 1e-4, 1, true};
  EXPECT_NEAR(axis.place(1e-2), 0.5, 1e-12);
  EXPECT_EQ(axis.place(0), 0);
  EXPECT_NEAR((PlotAxis{"", 2, 4, false}.place(3.5)), 0.75, 1e-12);
}

TEST(Plot, OfTheRunningPerplexityHasABandAndItsNames) {
  const std::string svg = plot_running_perplexity("dir/<a & b>.gguf", {20, 22, 21}, {3, 2, 1});
  expect_well_formed(svg);
  EXPECT_NE(svg.find("Perplexity of &lt;a &amp; b&gt;.gguf"), svg.npos);
  EXPECT_EQ(count(svg, "<polygon"), 1u);
  EXPECT_EQ(count(svg, "<polyline"), 1u);
  for (const char* part : {"chunks measured", "perplexity", "prefers-color-scheme: dark"})
    EXPECT_NE(svg.find(part), svg.npos) << part;
  expect_well_formed(plot_running_perplexity("m", {20}, {0}));
}

// Bars hold every token.
TEST(Plot, OfDivergencesShowsMeanMedianAndAll) {
  const std::string svg = plot_kl_distribution("q", "base", {0, 0, 1e-3, 1e-3, 1e-1, 3});
  expect_well_formed(svg);
  EXPECT_EQ(count(svg, "fill-opacity=\"0.75\""), 4u);
  for (const char* part : {"median 0.001", "mean 0.52", "6 tokens", "nats"})
    EXPECT_NE(svg.find(part), svg.npos) << part << svg;
  expect_well_formed(plot_kl_distribution("q", "base", {0}));
}

TEST(Plot, OfTensorsHasAPointForEachThatDiffers) {
  std::vector<TensorDiff> diffs(5);
  diffs[0].name = "token_embd.weight";
  diffs[1].name = "blk.0.attn_q.weight";
  diffs[2].name = "blk.11.attn_q.weight";
  diffs[3].name = "blk.11.attn_norm.weight";
  diffs[4].name = "other";
  for (size_t i = 0; i < 3; ++i) diffs[i].relative_rms_error = 0.05 + 0.01 * static_cast<double>(i);
  diffs[4].state = TensorDiff::State::kOnlyInFirst;
  const std::string svg = plot_tensor_errors("q", "base", diffs);
  expect_well_formed(svg);
  EXPECT_EQ(count(svg, "<circle"), 3u);
  for (const char* part : {">attn_q<", ">token_embd<", "relative RMS error", "layer"})
    EXPECT_NE(svg.find(part), svg.npos) << part;
  EXPECT_EQ(svg.find("attn_norm"), svg.npos);
  expect_well_formed(plot_tensor_errors("q", "base", {}));
}

TEST(Plot, IsWrittenWholeAndAPathIsTriedBefore) {
  const test::TempFolder folder;
  const std::string path = folder.file("p.svg");
  require_picture_path(path);
  EXPECT_THROW(test::read_file(path), std::runtime_error);
  write_picture(path, "<svg/>");
  require_picture_path(path);
  EXPECT_EQ(test::read_file(path), "<svg/>");
  write_picture(path, "<svg></svg>");
  EXPECT_EQ(test::read_file(path), "<svg></svg>");
  EXPECT_THROW(require_picture_path(folder.file("none/p.svg")), Error);
}

}  // namespace
}  // namespace quern
