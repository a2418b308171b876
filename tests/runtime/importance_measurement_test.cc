#include "runtime/importance_measurement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "convert/convert.h"
#include "quant/error.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"

namespace quern {
namespace {

constexpr uint64_t kContext = 64, kChunks = 3;

std::vector<int32_t> some_tokens() {
  std::vector<int32_t> tokens(kContext * kChunks + 10);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(3 + i * 37 % 1000);
  return tokens;
}

std::unique_ptr<Model> open(int n_threads = 2) {
  ModelOptions options;
  options.context = kContext;
  options.n_threads = n_threads;
  return test::open_model(test::converted("tiny-mistral", "f32"), options);
}

std::map<std::string, ImportanceSums> measure(const Model& model, uint64_t max_chunks = 0) {
  std::map<std::string, ImportanceSums> by_name;
  for (ImportanceSums& sums : measure_importance(model, some_tokens(), {kContext, max_chunks}, {}, {}))
    by_name[sums.tensor] = std::move(sums);
  return by_name;
}

std::vector<float> floats_of(const Model& model, const std::string& name) {
  const TensorView& view = *model.gguf().find_tensor(name);
  std::vector<float> values(view.n_elements());
  block_format(view.dtype).decode(view.data, values.size(), values.data());
  return values;
}

// The first matrices are multiplied with the normed embeddings, which need no model.
TEST(ImportanceMeasurement, SumsTheSquaresOfWhatAMatrixIsMultipliedWith) {
  const auto model = open();
  const std::map<std::string, ImportanceSums> measured = measure(*model);
  const std::vector<float> embedding = floats_of(*model, "token_embd.weight"),
                           norm = floats_of(*model, "blk.0.attn_norm.weight");
  const size_t dim = norm.size();
  std::vector<double> expected(dim);
  std::vector<int32_t> tokens = some_tokens();
  for (uint64_t t = 0; t < kContext * kChunks; ++t) {
    const int32_t id = t % kContext == 0 ? model->tokenizer().vocabulary().bos : tokens[t];
    const float* row = &embedding[static_cast<size_t>(id) * dim];
    double square = 0;
    for (size_t i = 0; i < dim; ++i) square += static_cast<double>(row[i]) * row[i];
    const double scale = 1 / std::sqrt(square / static_cast<double>(dim) + 1e-5);
    for (size_t i = 0; i < dim; ++i) expected[i] += std::pow(row[i] * scale * norm[i], 2);
  }
  const ImportanceSums& q = measured.at("blk.0.attn_q.weight");
  ASSERT_EQ(q.columns, dim);
  for (size_t i = 0; i < dim; ++i) EXPECT_NEAR(q.sums[i], expected[i], 1e-4 * expected[i] + 1e-9) << i;
}

TEST(ImportanceMeasurement, KnowsEveryMatrixOfTheLayers) {
  const auto model = open();
  const std::map<std::string, ImportanceSums> measured = measure(*model);
  EXPECT_EQ(measured.size(), 3u * 7);
  for (const auto& [name, sums] : measured) {
    EXPECT_TRUE(name.starts_with("blk.")) << name;
    EXPECT_EQ(sums.counts, (std::vector<uint64_t>{kContext * kChunks})) << name;
    EXPECT_EQ(sums.columns, model->gguf().find_tensor(name)->columns()) << name;
  }
  EXPECT_EQ(measured.at("blk.1.attn_q.weight").sums, measured.at("blk.1.attn_v.weight").sums);
  EXPECT_EQ(measured.at("blk.2.ffn_gate.weight").sums, measured.at("blk.2.ffn_up.weight").sums);
  EXPECT_NE(measured.at("blk.1.attn_q.weight").sums, measured.at("blk.2.attn_q.weight").sums);
  EXPECT_EQ(measure(*model, 2).at("blk.0.attn_q.weight").counts.front(), 2 * kContext);
}

// What convert --imatrix asks the file for: of all architectures, each matrix that it would quantize, a stack
// of matrices (experts, or heads) with as many counts.
TEST(ImportanceMeasurement, KnowsWhatConvertAsksForOfEveryArchitecture) {
  constexpr uint64_t kShort = 24;
  size_t n_models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(test::unpacked_data("architectures"))) {
    if (!entry.is_directory()) continue;
    SCOPED_TRACE(entry.path().filename().string());
    ++n_models;
    ConvertOptions pure;
    pure.source = test::converted_folder(entry.path().string(), "f32");
    pure.type = "q8_0";
    pure.formats.pure = true;
    pure.dry_run = true;
    pure.n_threads = 1;
    ModelOptions options;
    options.context = kShort;
    options.n_threads = 1;
    const auto model = test::open_model(pure.source, options);
    std::map<std::string, ImportanceSums> measured;
    for (ImportanceSums& sums :
         measure_importance(*model, test::random_ids(*model, 2 * kShort, 1), {kShort, 2}, {}, {}))
      measured[sums.tensor] = std::move(sums);
    size_t n_wanted = 0;
    for (const ConvertedTensor& tensor : convert(pure, {}).tensors) {
      if (tensor.wanted != DType::Q8_0 || tensor.name == "output.weight" ||
          tensor.name.ends_with("token_embd.weight"))
        continue;
      ++n_wanted;
      const auto found = measured.find(tensor.name);
      ASSERT_NE(found, measured.end()) << tensor.name;
      EXPECT_EQ(found->second.columns, tensor.shape.back()) << tensor.name;
      EXPECT_EQ(found->second.counts.size(), tensor.shape.size() == 3 ? tensor.shape.front() : 1)
          << tensor.name;
    }
    EXPECT_GT(n_wanted, 0u);
  }
  EXPECT_GT(n_models, 50u);
}

// The heads' own matrices of deepseek2: each is multiplied with its columns of every row.
TEST(ImportanceMeasurement, TellsHeadsApart) {
  ModelOptions options;
  options.context = kContext;
  const auto model = test::open_model(
      test::converted_folder(test::unpacked_data("architectures/deepseek3"), "f32"), options);
  size_t n_found = 0;
  for (const ImportanceSums& sums :
       measure_importance(*model, test::random_ids(*model, 2 * kContext, 1), {kContext, 2}, {}, {})) {
    if (!sums.tensor.ends_with("attn_k_b.weight") && !sums.tensor.ends_with("attn_v_b.weight")) continue;
    SCOPED_TRACE(sums.tensor);
    ++n_found;
    EXPECT_EQ(sums.counts, std::vector<uint64_t>(model->hparams().n_heads, 2 * kContext));
    const auto head = [&](size_t h) { return std::span(sums.sums).subspan(h * sums.columns, sums.columns); };
    for (size_t h = 1; h < sums.counts.size(); ++h) EXPECT_FALSE(std::ranges::equal(head(h), head(0))) << h;
  }
  EXPECT_GT(n_found, 0u);
}

TEST(ImportanceMeasurement, DoesNotDependOnThreadsNorStayWithTheModel) {
  const auto one = open(1), two = open(2);
  const std::map<std::string, ImportanceSums> expected = measure(*one);
  ASSERT_FALSE(expected.empty());
  for (const Model* model : {two.get(), one.get()}) {
    const std::map<std::string, ImportanceSums> found = measure(*model);
    EXPECT_EQ(found.size(), expected.size());
    for (const auto& [name, sums] : found) EXPECT_EQ(sums.sums, expected.at(name).sums) << name;
  }
}

TEST(ImportanceMeasurement, WantsTwoChunksAtLeastAndCanBeStopped) {
  const auto model = open();
  const std::vector<int32_t> tokens = some_tokens();
  try {
    measure_importance(*model, std::span(tokens).first(2 * kContext - 1), {kContext}, {}, {});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
  }
  const std::atomic<bool> stop = true;
  EXPECT_TRUE(measure_importance(*model, tokens, {kContext}, {}, stop).empty());
}

}  // namespace
}  // namespace quern
