#include "cli/inspection.h"

#include <gtest/gtest.h>

#include <string>

#include "quant/gguf_writer.h"
#include "tests/support/json.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

// A file with one tensor in Q8_0 and one in F32, and metadata of many types.
std::string write_model(const test::TempFolder& folder) {
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  metadata.set_string("evil", "\x1b[2J\xff");
  metadata.set_u32("llama.block_count", 1);
  metadata.set_f32("llama.eps", 1e-5f);
  metadata.set_bool("yes", true);
  metadata.set_strings("words", std::vector<std::string>(10, "w"));
  metadata.set_int32s("few", std::vector<int32_t>{-1, 2});
  const GgufPlan plan(metadata, {{"a", DType::Q8_0, {2, 32}}, {"b", DType::F32, {3}}});
  std::string path = folder.file("model.gguf");
  GgufWriter writer(path, plan, metadata, false);
  for (size_t i = 0; i < plan.tensors.size(); ++i)
    writer.write_tensor(i, 0, std::vector<uint8_t>(plan.sizes[i], 1));
  writer.finish();
  return path;
}

TEST(Inspection, CountsWeightsAndBytesByFormat) {
  const test::TempFolder folder;
  const Inspection inspection = inspect(write_model(folder), {});
  ASSERT_EQ(inspection.totals().size(), 2u);
  EXPECT_EQ(inspection.totals()[0].format, "Q8_0");
  EXPECT_EQ(inspection.totals()[0].bytes, 68u);
  EXPECT_EQ(inspection.total().n_elements, 67u);
  EXPECT_EQ(inspection.total().bytes, 80u);
  EXPECT_DOUBLE_EQ(bits_per_weight(inspection.totals()[0]), 8.5);
  EXPECT_EQ(bits_per_weight({}), 0);
}

TEST(Inspection, SaysWhyAFileDoesNotRun) {
  const test::TempFolder folder;
  const Inspection strange = inspect(write_model(folder), {});
  ASSERT_TRUE(strange.runs_not);
  const std::string text = render_text(strange);
  EXPECT_NE(text.find("  runs         no: " + *strange.runs_not + "\n"), std::string::npos) << text;
  EXPECT_NE(render_json(strange).find("\"runs\":false,\"runs_not\":\""), std::string::npos);
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "bert");
  const GgufPlan plan(metadata, {});
  GgufWriter(folder.file("bert.gguf"), plan, metadata, false).finish();
  EXPECT_TRUE(inspect(folder.file("bert.gguf"), {}).runs_not->starts_with("unsupported architecture 'bert'"));
  const Inspection runs = inspect(test::converted("stories260k", "q8_0"), {});
  EXPECT_EQ(runs.runs_not, "");
  EXPECT_NE(render_text(runs).find("  runs         yes\n"), std::string::npos);
  EXPECT_FALSE(inspect(test::test_data("tiny-mistral"), {}).runs_not);
}

TEST(Inspection, NamesThePanelsOfAFile) {
  const test::TempFolder folder;
  const GgufPlan plan({},
                      {{"a", DType::Q8_0, {17, 32}, TensorLayout::kPanels}, {"b", DType::Q8_0, {17, 32}}});
  const std::string path = folder.file("model.gguf");
  const GgufMetadata metadata;
  GgufWriter(path, plan, metadata, false).finish();
  const Inspection inspection = inspect(path, {});
  ASSERT_EQ(inspection.totals().size(), 1u);
  EXPECT_DOUBLE_EQ(bits_per_weight(inspection.total()), 8.5);
  EXPECT_NE(render_text(inspection).find("Q8_0 p16"), std::string::npos);
  const auto parsed = test::Json::parse(render_json(inspection));
  EXPECT_EQ(parsed["tensors"][0]["layout"], "p16");
  EXPECT_EQ(parsed["tensors"][0]["format"], "Q8_0");
  EXPECT_EQ(parsed["tensors"][1]["layout"], "standard");
}

TEST(Inspection, JsonHoldsMetadataWithItsTypes) {
  const test::TempFolder folder;
  const auto parsed = test::Json::parse(render_json(inspect(write_model(folder), {})));
  EXPECT_EQ(parsed["kind"], "GGUF");
  EXPECT_EQ(parsed["version"], 3);
  const auto& metadata = parsed["metadata"];
  EXPECT_EQ(metadata["general.architecture"]["value"], "llama");
  EXPECT_EQ(metadata["llama.block_count"]["value"], 1);
  EXPECT_EQ(metadata["llama.eps"]["value"], 1e-5);
  EXPECT_EQ(metadata["yes"]["value"], true);
  EXPECT_EQ(metadata["words"]["value"]["count"], 10);
  EXPECT_EQ(metadata["words"]["value"]["first"].size(), 8u);
  EXPECT_EQ(metadata["few"]["value"]["first"], (std::vector<int>{-1, 2}));
  EXPECT_EQ(metadata["few"]["type"], "i32[2]");
  EXPECT_EQ(parsed["tensors"][0]["shape"], (std::vector<int>{2, 32}));
}

TEST(Inspection, TextIsSafeForATerminal) {
  const test::TempFolder folder;
  const std::string text = render_text(inspect(write_model(folder), {}));
  EXPECT_NE(text.find("\\x1B[2J\\xFF"), std::string::npos) << text;
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_NE(text.find("string[10]"), std::string::npos);
  EXPECT_NE(text.find("w, ..."), std::string::npos);
}

TEST(Inspection, CheckpointFolderShowsItsConfiguration) {
  const auto parsed = test::Json::parse(render_json(inspect(test::test_data("tiny-mistral"), {})));
  EXPECT_EQ(parsed["kind"], "checkpoint");
  EXPECT_EQ(parsed["layout"], "Hugging Face");
  EXPECT_TRUE(parsed["metadata"].contains("hidden_size"));
  EXPECT_EQ(parsed["formats"][0]["format"], "BF16");
  EXPECT_EQ(parsed["tensors"][0]["file"], "model.safetensors");
}

}  // namespace
}  // namespace quern
