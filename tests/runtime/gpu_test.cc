// Models whose last layers run on an emulated GPU (or a real one: tests/support/test_gpu.h): the CPU's bits
// at every split, and what the plan says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "kernels/cuda/emulation/emulation.h"
#include "kernels/cuda/gpu.h"
#include "kernels/split_device.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"
#include "tests/support/random_model.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_gpu.h"

namespace quern {
namespace {

constexpr uint64_t kContext = 150;

ModelOptions on_gpu(const std::string& gpu, std::optional<uint64_t> n_layers, KvType kv = KvType::kF16) {
  ModelOptions options;
  options.kv = kv;
  options.context = kContext;
  options.n_threads = 2;
  options.gpu = gpu;
  options.gpu_layers = n_layers;
  return options;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// A prompt, then token by token; across an edge of tiles of keys.
std::vector<float> logits_of(const Model& model, const std::vector<int32_t>& ids) {
  Session session(model);
  std::vector<float> logits;
  const auto keep = [&](size_t, std::span<const float> z) {
    logits.insert(logits.end(), z.begin(), z.end());
  };
  const size_t prompt = ids.size() - 3;
  session.eval(std::span(ids).first(prompt), 5, keep);
  for (size_t i = prompt; i < ids.size(); ++i) session.eval(std::span(ids).subspan(i, 1), 1, keep);
  return logits;
}

struct GpuCase {
  std::string model, type;
  KvType kv = KvType::kF16;
};
std::string case_name(const testing::TestParamInfo<GpuCase>& info) {
  std::string name = info.param.model + "_" + info.param.type;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

class OnGpu : public testing::TestWithParam<GpuCase> {};

TEST_P(OnGpu, LogitsAreTheCpusAtEverySplit) {
  const std::string path = test::converted(GetParam().model, GetParam().type);
  const auto cpu = test::open_model(path, on_gpu("none", {}, GetParam().kv));
  const std::vector<int32_t> ids = test::random_ids(*cpu, 70, 5);
  const std::vector<float> expected = logits_of(*cpu, ids);
  for (uint64_t n = 0; n <= cpu->hparams().n_layers; ++n) {
    const auto model = test::open_model(path, on_gpu(test::test_gpu_name(), n, GetParam().kv));
    EXPECT_EQ(model->gpu().placement.n_moved, n);
    EXPECT_TRUE(same_bits(logits_of(*model, ids), expected)) << n << " layers on the GPU";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, OnGpu,
                         testing::Values(GpuCase{"tiny-mistral", "q4_0"}, GpuCase{"tiny-mistral", "q4_k_m"},
                                         GpuCase{"tiny-mistral", "bf16", KvType::kQ8_0},
                                         GpuCase{"stories260k", "q8_0"},
                                         GpuCase{"stories260k", "f32", KvType::kF32},
                                         GpuCase{"random-window", "q8_0"},
                                         GpuCase{"random-window", "f16", KvType::kF32}),
                         case_name);

TEST(OnGpus, TwoOfThemGiveTheCpusBitsAtEverySplit) {
  const std::string path = test::converted("tiny-mistral", "q8_0");
  const auto cpu = test::open_model(path, on_gpu("none", {}));
  const std::vector<int32_t> ids = test::random_ids(*cpu, 20, 6);
  const std::vector<float> expected = logits_of(*cpu, ids);
  for (uint64_t n = 1; n <= cpu->hparams().n_layers; ++n) {
    const auto model = test::open_model(path, on_gpu(test::test_gpu_name() + "," + test::test_gpu_name(), n));
    const std::vector<size_t>& places = model->gpu().placement.places.layers;
    EXPECT_TRUE(std::is_sorted(places.begin(), places.end()));
    if (n > 1) {
      EXPECT_EQ(places.back(), 2u);
    }
    EXPECT_TRUE(same_bits(logits_of(*model, ids), expected)) << n << " layers on GPUs";
  }
}

TEST(OnGpus, OrderOfThreadsChangesNoBit) {
  using cuda::emulation::Order;
  const std::string path = test::converted("stories260k", "q8_0");
  const auto cpu = test::open_model(path, on_gpu("none", {}));
  const std::vector<int32_t> ids = test::random_ids(*cpu, 20, 7);
  const std::vector<float> expected = logits_of(*cpu, ids);
  const auto model = test::open_model(path, on_gpu(test::test_gpu_name(), UINT64_MAX));
  for (const Order order : {Order::kDescending, Order::kRandom}) {
    cuda::emulation::set_order(order);
    EXPECT_TRUE(same_bits(logits_of(*model, ids), expected));
  }
  cuda::emulation::set_order(Order::kAscending);
}

// Positions are in no argument: steps of generation are one graph, up to the edge of a segment of attention,
// and each step that it is launched for has the CPU's bits.
TEST(OnGpus, StepsOfGenerationAreOneGraph) {
  const test::TempFolder folder;
  const std::string path = folder.file("model.gguf");
  test::write_random_model(
      {.n_layers = 3, .dim = 64, .hidden_dim = 96, .n_heads = 2, .n_kv_heads = 1, .vocab_size = 96}, path);
  const auto options = [](const char* gpu) {
    ModelOptions of = on_gpu(gpu, {});
    of.context = 1100;
    return of;
  };
  const auto cpu = test::open_model(path, options("none"));
  const auto gpu = test::open_model(path, options("emulated"));
  ASSERT_EQ(gpu->gpu().placement.n_moved, 3u);
  const std::vector<int32_t> ids = test::random_ids(*cpu, 530, 12);
  Session here(*cpu), there(*gpu);
  const auto step = [&](size_t begin, size_t n) {
    const auto part = std::span(ids).subspan(begin, n);
    const std::span<const float> expected = here.eval(part), found = there.eval(part);
    EXPECT_TRUE(same_bits({found.begin(), found.end()}, {expected.begin(), expected.end()})) << begin;
  };
  step(0, 500);
  const cuda::GraphCounts before = cuda::graph_counts();
  for (size_t i = 500; i < 512; ++i) step(i, 1);
  EXPECT_EQ(cuda::graph_counts().made - before.made, 1);
  EXPECT_EQ(cuda::graph_counts().launched - before.launched, 11);
  for (size_t i = 512; i < 530; ++i) step(i, 1);  // two segments
  EXPECT_EQ(cuda::graph_counts().made - before.made, 2);
  EXPECT_EQ(cuda::graph_counts().launched - before.launched, 11 + 17);
}

TEST(OnGpus, AFileOfPanelsAndATiedEmbeddingGiveTheSameBits) {
  const test::TempFolder folder;
  for (const TensorLayout layout : {TensorLayout::kRows, TensorLayout::kPanels}) {
    test::RandomModel random;
    random.matrices = DType::Q6_K;
    random.embedding = DType::Q4_K;
    random.tied = true;
    random.layout = layout;
    const std::string path = folder.file(std::string(to_string(layout)) + ".gguf");
    test::write_random_model(random, path);
    const auto cpu = test::open_model(path, on_gpu("none", {}));
    const std::vector<int32_t> ids = test::random_ids(*cpu, 20, 8);
    const std::vector<float> expected = logits_of(*cpu, ids);
    for (const uint64_t n : {1, 2})
      EXPECT_TRUE(
          same_bits(logits_of(*test::open_model(path, on_gpu(test::test_gpu_name(), n)), ids), expected))
          << n;
  }
}

// --- every architecture ---

const std::string kFolder = test::unpacked_data("architectures");

std::vector<std::string> all_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder))
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class ArchitecturesOnGpu : public testing::TestWithParam<std::string> {};

// Layers without kernels there stay on the CPU, between others that moved.
TEST_P(ArchitecturesOnGpu, HaveTheCpusBits) {
  const std::string path = test::converted_folder(kFolder + "/" + GetParam(), "q8_0");
  const auto cpu = test::open_model(path, on_gpu("none", {}, KvType::kF32));
  const std::vector<int32_t> ids = test::random_ids(*cpu, 20, 9);
  const std::vector<float> expected = logits_of(*cpu, ids);
  const KvShape& shape = cpu->kv_shape();
  const auto n_recurrent = std::count_if(shape.layers.begin(), shape.layers.end(),
                                         [](const KvLayer& layer) { return layer.state_floats != 0; });
  const uint64_t n_layers = cpu->hparams().n_layers;
  for (uint64_t n = 1; n <= n_layers; ++n) {
    if (QUERN_SANITIZED && n != 1 && n != n_layers) continue;
    const auto model = test::open_model(path, on_gpu(test::test_gpu_name(), n, KvType::kF32));
    const uint64_t n_movable = n_layers - static_cast<uint64_t>(n_recurrent);
    EXPECT_EQ(model->gpu().placement.n_moved, std::min(n, n_movable));
    EXPECT_TRUE(same_bits(logits_of(*model, ids), expected)) << n << " layers on the GPU";
  }
}

std::string architecture_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, ArchitecturesOnGpu, testing::ValuesIn(all_names()), architecture_name);

// --- the plan ---

std::vector<std::string> notices_of(const std::string& path, const ModelOptions& options) {
  std::vector<std::string> lines;
  (void)Model::load(path, options, [&](std::string_view line) { lines.emplace_back(line); });
  return lines;
}
bool holds(const std::vector<std::string>& lines, std::string_view part) {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const std::string& line) { return line.find(part) != std::string::npos; });
}

// Six layers of about a MiB each, and an emulated GPU with room for about half of them.
class GpuPlan : public testing::Test {
 protected:
  void SetUp() override {
    test::RandomModel random;
    random.n_layers = kLayers;
    random.hidden_dim = 1024;
    test::write_random_model(random, path_);
  }
  std::string with_room_for_half(ModelOptions options = on_gpu("emulated", {})) const {
    options.gpu = "emulated";
    const auto all = test::open_model(path_, options);
    const Placement::Taken& taken = all->gpu().placement.taken[0];
    const uint64_t bytes = taken.fixed + (taken.weights + taken.cache) / 2;
    return "emulated:" + std::to_string(bytes * 16 / 15 / (1 << 20) + 1);  // a sixteenth is left alone
  }

  static constexpr size_t kLayers = 6;
  const test::TempFolder folder_;
  const std::string path_ = folder_.file("model.gguf");
};

TEST_F(GpuPlan, AutoTakesWhatFitsAndSaysSo) {
  const auto all = test::open_model(path_, on_gpu("emulated", {}));
  EXPECT_EQ(all->gpu().placement.n_moved, kLayers);
  EXPECT_EQ(all->memory_plan().kv, 0u);  // of the host
  const std::string half = with_room_for_half();
  const auto few = test::open_model(path_, on_gpu(half, {}));
  EXPECT_GT(few->gpu().placement.n_moved, 1u);
  EXPECT_LT(few->gpu().placement.n_moved, kLayers);
  EXPECT_GT(few->memory_plan().kv, 0u);
  EXPECT_TRUE(holds(notices_of(path_, on_gpu(half, {})), "more do not fit"));
  EXPECT_EQ(test::open_model(path_, on_gpu("emulated:1", {}))->gpu().placement.n_moved, 0u);
}

// With the caches of several sequences fewer layers fit, and what was planned has room.
TEST_F(GpuPlan, CountsTheCachesOfAllSequences) {
  ModelOptions options = on_gpu("emulated", {}, KvType::kF32);
  options.context = 1024;
  options.gpu = with_room_for_half(options);
  const size_t one = test::open_model(path_, options)->gpu().placement.n_moved;
  options.n_sequences = 3;
  const auto model = test::open_model(path_, options);
  EXPECT_LT(model->gpu().placement.n_moved, one);
  const Engine engine(*model);
  std::vector<Sequence> sequences;
  for (int i = 0; i < 3; ++i) sequences.emplace_back(*model);
}

TEST_F(GpuPlan, ANumberThatDoesNotFitEndsWithTheTable) {
  try {
    (void)test::open_model(path_, on_gpu(with_room_for_half(), UINT64_MAX));
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResource);
    const std::string what = error.what();
    for (const char* part : {"not enough memory on the GPU", "layers", "needed", "0: GPU (emulated)"})
      EXPECT_NE(what.find(part), std::string::npos) << what;
  }
}

TEST(GpuOptions, LayersWithoutAGpuAreRefusedAndAutoIsNone) {
  const std::string path = test::converted("stories260k", "q8_0");
  EXPECT_EQ(test::open_model(path, on_gpu("none", {}))->gpu().placement.n_moved, 0u);
  try {
    (void)test::open_model(path, on_gpu("none", 1));
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResource);
  }
  for (const char* bad : {"emulated:", "emulated:x", "gpu", "0,", ","})
    EXPECT_THROW((void)test::open_model(path, on_gpu(bad, {})), Error) << bad;
}

}  // namespace
}  // namespace quern
