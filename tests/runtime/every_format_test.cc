// Whole models of every format that can be decoded, whether quern writes it or not: they load on every
// instruction set, and each gives the reference's bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "kernels/dispatch.h"
#include "quant/panel_layout.h"
#include "tests/support/models.h"
#include "tests/support/random_model.h"
#include "tests/support/temp_folder.h"
#include "tests/support/weight_blocks.h"

namespace quern {
namespace {

class WholeModel : public testing::TestWithParam<DType> {
 protected:
  // A file whose matrices are all of this format. tied: the table of embeddings is multiplied too.
  std::string write(TensorLayout layout, bool tied) const {
    test::RandomModel model;
    model.n_layers = 1;
    model.hidden_dim = 256;
    model.embedding = model.matrices = model.output = GetParam();
    model.layout = layout;
    model.tied = tied;
    std::string path = folder_.file("model.gguf");
    std::filesystem::remove(path);
    test::write_random_model(model, path);
    return path;
  }

  static std::vector<float> logits(const std::string& path, const std::string& isa, int n_threads,
                                   size_t chunk) {
    ModelOptions options;
    options.isa = isa;
    options.n_threads = n_threads;
    options.context = 64;
    const auto model = test::open_model(path, options);
    std::vector<int32_t> ids(19);
    for (size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<int32_t>(i * 31 % model->hparams().vocab_size);
    return test::all_logits(*model, ids, chunk, 512);
  }

  static void expect_same_bits_on_every_set(const std::string& path, const std::vector<float>& expected) {
    for (const KernelSetRow& row : kernel_sets()) {
      if (!row.supported(cpu_features())) continue;
      for (const auto& [n_threads, chunk] : {std::pair(1, size_t{19}), {3, size_t{19}}, {2, size_t{1}}}) {
        const std::vector<float> found = logits(path, row.set->name, n_threads, chunk);
        ASSERT_EQ(found.size(), expected.size());
        EXPECT_EQ(std::memcmp(found.data(), expected.data(), expected.size() * sizeof(float)), 0)
            << row.set->name << ", " << n_threads << " threads, pieces of " << chunk;
      }
    }
  }

  test::TempFolder folder_;
};

TEST_P(WholeModel, HasTheSameBitsOnEverySet) {
  for (const bool tied : {false, true}) {
    if (QUERN_SANITIZED && tied) continue;
    const std::string path = write(TensorLayout::kRows, tied);
    const std::vector<float> expected = logits(path, "scalar", 1, 19);
    // A model that has nothing to say would agree with everything.
    const auto [low, high] = std::minmax_element(expected.begin(), expected.end());
    ASSERT_TRUE(std::isfinite(*low) && std::isfinite(*high));
    ASSERT_GT(*high - *low, 0.5f);
    expect_same_bits_on_every_set(path, expected);
  }
}

TEST_P(WholeModel, HasTheSameBitsFromAFileOfPanels) {
  if (!has_panel_layout(GetParam())) GTEST_SKIP() << "no panels";
  const std::vector<float> expected = logits(write(TensorLayout::kRows, false), "scalar", 1, 19);
  expect_same_bits_on_every_set(write(TensorLayout::kPanels, false), expected);
}

INSTANTIATE_TEST_SUITE_P(Formats, WholeModel, testing::ValuesIn(test::decodable_formats()),
                         [](const auto& tested) { return std::string(block_format(tested.param).name); });

}  // namespace
}  // namespace quern
