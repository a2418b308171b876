// What the loader expects a model and a session to take, beside what they do take.
#include "runtime/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "convert/hf_config.h"
#include "quant/format_size.h"
#include "quant/machine/memory.h"
#include "tests/support/checkpoints.h"
#include "tests/support/models.h"
#include "tests/support/random_model.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

class MemoryOfAModel : public testing::TestWithParam<TensorLayout> {};

// 400 MB of Q4_0 in either layout, of which a good part is the output matrix, so that the test takes seconds.
// The whole context is evaluated, in whole micro-batches, and logits are asked for: all that is planned is
// used. Mapped weights count like copied ones.
TEST_P(MemoryOfAModel, IsWhatThePlanSaysAndNeverMore) {
  if (QUERN_SANITIZED) GTEST_SKIP() << "a sanitizer's own memory is counted too";
  if (available_memory() < uint64_t{2} << 30) GTEST_SKIP() << "needs 2 GiB of memory";
  const test::RandomModel shape{.n_layers = 10,
                                .dim = 2048,
                                .hidden_dim = 5632,
                                .n_heads = 16,
                                .n_kv_heads = 4,
                                .vocab_size = 130000,
                                .embedding = DType::Q4_0,
                                .matrices = DType::Q4_0,
                                .output = DType::Q4_0,
                                .tied = true,
                                .layout = GetParam()};
  const test::TempFolder folder;
  const std::string path = folder.file("model.gguf");
  test::write_random_model(shape, path);
  ASSERT_GT(std::filesystem::file_size(path), 400e6);

  restart_peak_memory();
  const uint64_t before = peak_memory();
  ModelOptions options;
  options.context = 1024;
  options.n_threads = 2;
  const auto model = test::open_model(path, options);
  Session session(*model);
  std::vector<int32_t> ids(options.context);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i % shape.vocab_size);
  session.eval(ids, 32, [](size_t, std::span<const float>) {});
  const double measured = static_cast<double>(peak_memory() - before);

  const MemoryPlan& plan = model->memory_plan();
  const double planned = static_cast<double>(plan.total());
  RecordProperty("planned_over_measured", std::to_string(planned / measured));
  EXPECT_GE(planned, measured) << format_size(plan.weights) << " weights, " << format_size(plan.kv)
                               << " cache, " << format_size(plan.scratch) << " scratch";
  EXPECT_LE(planned, 1.1 * measured) << format_size(plan.weights) << " weights, " << format_size(plan.kv)
                                     << " cache, " << format_size(plan.scratch) << " scratch";
}

// The layers of Gemma 3 4B, narrow between them: five of six have a window of 1,024.
TEST(MemoryOfWindows, TakesAQuarterOfAWholeCacheAtALongContext) {
  const std::string config =
      R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 32,)"
      R"( "intermediate_size": 32, "num_hidden_layers": 34, "num_attention_heads": 8,)"
      R"( "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 64, "max_position_embeddings": 131072,)"
      R"( "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 1024,)"
      R"( "query_pre_attn_scalar": 256})";
  std::vector<test::TestTensor> tensors;
  for (const DeclaredTensor& tensor :
       read_model_config(parse_json(config, "config"), ConfigDialect::kHuggingFace, "config").tensors) {
    if (tensor.optional || tensor.is_output) continue;
    uint64_t n = 1;
    for (const uint64_t d : tensor.shape) n *= d;
    tensors.push_back({tensor.source, "BF16", tensor.shape, std::string(2 * n, '\0')});
  }
  const test::TempFolder folder;
  folder.write("config.json", config);
  folder.write("model.safetensors", test::safetensors_file(tensors));
  ModelOptions options;
  options.context = 32768;
  const auto model = test::open_model(test::converted_folder(folder.path(), "bf16"), options);
  KvShape whole = model->kv_shape();
  const uint64_t bytes = whole.bytes();
  for (KvLayer& layer : whole.layers) layer.kept = 0;
  EXPECT_EQ(whole.bytes(), uint64_t{34} * 32768 * 2 * 4 * 256 * 2);
  EXPECT_LE(4 * bytes, whole.bytes());
}

INSTANTIATE_TEST_SUITE_P(Layouts, MemoryOfAModel, testing::Values(TensorLayout::kRows, TensorLayout::kPanels),
                         [](const auto& tested) { return std::string(to_string(tested.param)); });

}  // namespace
}  // namespace quern
