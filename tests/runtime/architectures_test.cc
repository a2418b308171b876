// Every architecture against transformers in float64 (tests/data/architectures.tar.xz): a random checkpoint
// of each, converted, with the likelihoods of a short and a long text, the last logits and the greedy
// continuation. And the promise of exactness on the same models.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "convert/checkpoint_source.h"
#include "convert/convert.h"
#include "kernels/cpu_device.h"
#include "kernels/dispatch.h"
#include "runtime/generate.h"
#include "runtime/perplexity.h"
#include "tests/support/checkpoints.h"
#include "tests/support/json.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"
#include "tests/support/two_devices.h"

namespace quern {
namespace {

using test::Json;

const std::string kFolder = test::unpacked_data("architectures");

std::vector<std::string> all_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder))
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class Architectures : public testing::TestWithParam<std::string> {
 protected:
  std::string folder() const { return kFolder + "/" + GetParam(); }
  std::string file(const std::string& type, TensorLayout layout = TensorLayout::kRows) const {
    return test::converted_folder(folder(), type, layout);
  }
  // A model whose context is as long as what it is asked about: LongRoPE's factors depend on that.
  std::unique_ptr<Model> open(const std::string& path, uint64_t context, const std::string& isa = "",
                              int n_threads = 2, KvType kv = KvType::kF32) const {
    ModelOptions options;
    options.kv = kv;
    options.context = context;
    options.isa = isa;
    options.n_threads = n_threads;
    return test::open_model(path, options);
  }
};

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, Architectures, testing::ValuesIn(all_names()), test_name);

// Tensors that are made of others, too.
TEST_P(Architectures, AreReadFromTheirFolderAsTheirBf16File) {
  const MappedFile bytes(file("bf16"));
  const GgufReader converted(bytes.bytes(), bytes.path());
  ConvertOptions options;
  options.source = folder();
  options.no_tokenizer = true;
  options.n_threads = 2;
  const auto source = open_checkpoint_as_bf16(options, {});
  ASSERT_EQ(source->gguf().tensors().size(), converted.tensors().size());
  for (const TensorView& tensor : source->gguf().tensors()) {
    const TensorView* const expected = converted.find_tensor(tensor.name);
    ASSERT_NE(expected, nullptr) << tensor.name;
    ASSERT_EQ(tensor.n_bytes, expected->n_bytes) << tensor.name;
    source->load(tensor);
    EXPECT_EQ(std::memcmp(tensor.data, expected->data, tensor.n_bytes), 0) << tensor.name;
    source->release(tensor);
  }
}

TEST_P(Architectures, EqualTransformersInFloat64) {
  const Json expected = Json::read(folder() + "/expected.json"),
             long_text = Json::read(folder() + "/expected_long.json");
  const double allowed = 2e-5 * std::max(1.0, expected["logits_spread"].get<double>());
  for (const char* type : {"f32", "bf16"}) {
    for (const Json* text : {&expected, &long_text}) {
      if (QUERN_SANITIZED && text == &long_text && type == std::string_view("bf16")) continue;
      const auto ids = (*text)["ids"].get<std::vector<int32_t>>();
      const auto nll = (*text)["nll"].get<std::vector<double>>();
      const auto model = open(file(type), ids.size());
      size_t scored = 0;
      measure_ids(*model, ids,
                  [&](uint64_t, uint64_t position, int32_t id, double found) {
                    ASSERT_EQ(id, ids[position]);
                    ASSERT_NEAR(found, nll[position - 1], allowed) << type << " position " << position;
                    ++scored;
                  },
                  {});
      EXPECT_EQ(scored, nll.size());
    }
    const auto ids = expected["ids"].get<std::vector<int32_t>>();
    const auto last = expected["logits_last"].get<std::vector<double>>();
    const auto greedy = expected["greedy"].get<std::vector<int32_t>>();
    const auto model = open(file(type), ids.size() + greedy.size());
    const std::vector<float> logits = test::all_logits(*model, ids, ids.size(), 512);
    for (size_t i = 0; i < last.size(); ++i)
      ASSERT_NEAR(logits[(ids.size() - 1) * last.size() + i], last[i], allowed) << type << " logit " << i;
    Session session(*model);
    CompletionOptions options;
    options.sampler.temperature = 0;
    options.max_tokens = static_cast<int64_t>(greedy.size());
    EXPECT_EQ(generate(session, ids, options, {}, {}, {}).tokens, greedy) << type;
  }
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_P(Architectures, HaveTheSameBitsForSetsThreadsAndCuttings) {
  constexpr size_t kTokens = 80;  // across an edge of tiles of keys, and windows of 12
  const Json long_text = Json::read(folder() + "/expected_long.json");
  auto ids = long_text["ids"].get<std::vector<int32_t>>();
  ids.resize(kTokens);
  for (const char* type : {"f32", "q8_0"}) {
    const std::vector<float> expected =
        test::all_logits(*open(file(type), kTokens, "scalar", 1), ids, kTokens, 512);
    for (const KernelSetRow& row : kernel_sets()) {
      if (!row.supported(cpu_features())) continue;
      if (QUERN_SANITIZED && row.set != &select_kernel_set()) continue;
      for (const int n_threads : {1, 3}) {
        if (QUERN_SANITIZED && n_threads == 1) continue;
        const auto model = open(file(type), kTokens, row.set->name, n_threads);
        const std::string name = fmt::format("{}, {}, {} threads", type, row.set->name, n_threads);
        EXPECT_TRUE(same_bits(test::all_logits(*model, ids, kTokens, 512), expected)) << name;
        EXPECT_TRUE(same_bits(test::all_logits(*model, ids, 7, 512), expected)) << name << ", pieces of 7";
        if (QUERN_SANITIZED) continue;
        EXPECT_TRUE(same_bits(test::all_logits(*model, ids, 1, 512), expected)) << name << ", single steps";
        EXPECT_TRUE(same_bits(test::all_logits(*model, ids, kTokens, 33), expected))
            << name << ", micro-batches of 33";
      }
    }
    const auto panels = open(file(type, TensorLayout::kPanels), kTokens);
    EXPECT_TRUE(same_bits(test::all_logits(*panels, ids, kTokens, 512), expected)) << type << ", panels";
  }
}

// Keys and values that the cache rounds are rounded alike, and read alike.
TEST_P(Architectures, HaveTheSameBitsInSmallerCaches) {
  constexpr size_t kTokens = QUERN_SANITIZED ? 24 : 80;
  auto ids = Json::read(folder() + "/expected_long.json")["ids"].get<std::vector<int32_t>>();
  ids.resize(kTokens);
  for (const KvType kv : {KvType::kF16, KvType::kQ8_0}) {
    const auto fits = [](const KvLayer& layer) { return layer.head_dim % kKvGroup == 0; };
    const std::vector<KvLayer> layers = open(file("q8_0"), kTokens)->kv_shape().layers;
    if (kv == KvType::kQ8_0 && !std::all_of(layers.begin(), layers.end(), fits)) continue;
    const std::vector<float> expected =
        test::all_logits(*open(file("q8_0"), kTokens, "scalar", 1, kv), ids, kTokens, 512);
    const auto model = open(file("q8_0"), kTokens, "", 2, kv);
    EXPECT_TRUE(same_bits(test::all_logits(*model, ids, kTokens, 512), expected)) << static_cast<int>(kv);
    EXPECT_TRUE(same_bits(test::all_logits(*model, ids, 7, 512), expected))
        << static_cast<int>(kv) << ", pieces of 7";
  }
}

// Layers on different devices, of different kernel sets, and rows of matrices split between these: whatever a
// device needs to be one of several is in its interface.
TEST_P(Architectures, HaveTheSameBitsOnTwoDevices) {
  constexpr size_t kTokens = 40;
  auto ids = Json::read(folder() + "/expected_long.json")["ids"].get<std::vector<int32_t>>();
  ids.resize(kTokens);
  for (const TensorLayout layout : {TensorLayout::kRows, TensorLayout::kPanels}) {
    const auto expected = test::all_logits(*open(file("q8_0", layout), kTokens), ids, kTokens, 512);
    test::TwoDevicesCounts counts;
    ModelOptions options;
    options.kv = KvType::kF32;
    options.context = kTokens;
    options.n_threads = 1;
    options.make_device = [&](const KernelSet& kernels, int n_threads, const Notice& notice) {
      return test::make_two_devices(make_cpu_device(kernels, n_threads, notice),
                                    make_cpu_device(select_kernel_set("scalar"), n_threads, notice), &counts);
    };
    const auto model = test::open_model(file("q8_0", layout), options);
    EXPECT_TRUE(same_bits(test::all_logits(*model, ids, kTokens, 512), expected));
    EXPECT_TRUE(same_bits(test::all_logits(*model, ids, 7, 512), expected)) << "pieces of 7";
    EXPECT_GT(counts.copied_buffers, 0u);
    EXPECT_GT(counts.split_products, 0u);
    if (model->hparams().n_layers > 1) {
      EXPECT_GT(std::min(counts.operations[0], counts.operations[1]), 0u);
    }
  }
}

TEST_P(Architectures, HaveTheSameBitsWhateverElseIsInTheBatch) {
  const Json long_text = Json::read(folder() + "/expected_long.json");
  const auto all = long_text["ids"].get<std::vector<int32_t>>();
  const auto model = open(file("q8_0"), 64);
  const size_t lengths[] = {40, 1, 17, 5, 33};
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> alone, together(std::size(lengths));
  for (const size_t n : lengths) {
    const auto begin = all.begin() + static_cast<ptrdiff_t>(7 * ids.size());
    ids.emplace_back(begin, begin + static_cast<ptrdiff_t>(n));
    alone.push_back(test::all_logits(*model, ids.back(), n, 512));
  }
  Engine engine(*model);
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<Work> work;
  for (size_t i = 0; i < ids.size(); ++i) {
    sequences.push_back(std::make_unique<Sequence>(*model));
    work.push_back({sequences[i].get(), ids[i], ids[i].size(), [&, i](size_t, std::span<const float> z) {
                      together[i].insert(together[i].end(), z.begin(), z.end());
                    }});
  }
  ASSERT_TRUE(engine.run(work));
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_TRUE(same_bits(together[i], alone[i])) << i;
}

TEST_P(Architectures, ForgetWhatIsTruncated) {
  const Json long_text = Json::read(folder() + "/expected_long.json");
  auto ids = long_text["ids"].get<std::vector<int32_t>>();
  if (QUERN_SANITIZED) ids.resize(200);
  const auto model = open(file("f32"), ids.size());
  const std::vector<float> expected = test::all_logits(*model, ids, ids.size(), 512);
  const size_t vocab = model->hparams().vocab_size;
  Session session(*model);
  session.eval(ids);
  for (const size_t position : {ids.size() - 3, ids.size() - 100, size_t{20}}) {
    session.truncate(position);
    size_t n_compared = 0;
    session.eval(std::span<const int32_t>(ids).subspan(position, 2), 2,
                 [&](size_t i, std::span<const float> z) {
                   const float* reference = expected.data() + (position + i) * vocab;
                   ASSERT_EQ(z.size(), vocab);
                   EXPECT_EQ(std::memcmp(z.data(), reference, z.size_bytes()), 0) << position + i;
                   ++n_compared;
                 });
    EXPECT_EQ(n_compared, 2u);
    session.eval(std::span<const int32_t>(ids).subspan(position + 2));
  }
}

// Recurrent layers keep the states of some positions: the next pass goes on from the nearest one.
class RecurrentStates : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Model> open(std::optional<uint64_t> state_bytes) const {
    ModelOptions options;
    options.kv = KvType::kF32;
    options.context = 2200;
    options.n_threads = 2;
    options.state_bytes = state_bytes;
    return test::open_model(test::converted_folder(kFolder + "/" + GetParam(), "f32"), options);
  }
  static std::vector<int32_t> some_ids(const Model& model) {
    std::vector<int32_t> ids(model.context());
    for (size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<int32_t>((i * i + 7 * i) % 101 % model.hparams().vocab_size);
    return ids;
  }
};
INSTANTIATE_TEST_SUITE_P(All, RecurrentStates, testing::Values("qwen35", "qwen35-moe", "lfm2"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(RecurrentStates, AreKeptAtMultiplesOf512WithinTheirMemory) {
  const auto none = open(0), all = open(std::nullopt);
  const uint64_t state = none->kv_shape().state_bytes();
  ASSERT_GT(state, 0u);
  const auto model = open(2 * state + state / 2);
  EXPECT_EQ(model->kv_shape().bytes(), none->kv_shape().bytes() + 2 * state);
  EXPECT_LE(all->kv_shape().bytes() - none->kv_shape().bytes(), none->kv_shape().bytes() / 4);
  EXPECT_LE(all->kv_shape().state_slots, KvShape::kStateRows + 4);  // as many as the context has
  const std::vector<int32_t> ids = some_ids(*model);
  const std::vector<float> expected = test::all_logits(*none, ids, ids.size(), 512);
  const size_t vocab = model->hparams().vocab_size;
  Engine engine(*model);
  Sequence sequence(*model);
  const auto say = [&](size_t n, StopFlag stop = {}) {
    const size_t begin = sequence.position();
    const Work work{
        &sequence, std::span(ids).subspan(begin, n), n, [&](size_t i, std::span<const float> z) {
          EXPECT_EQ(std::memcmp(z.data(), expected.data() + (begin + i) * vocab, z.size_bytes()), 0)
              << begin + i;
        }};
    return engine.run({&work, 1}, {.stop = stop});
  };
  ASSERT_TRUE(say(100));
  ASSERT_TRUE(say(2000));  // the oldest two of four states are dropped
  for (const auto& [position, kept] : {std::pair<size_t, size_t>{2099, 2048}, {2048, 2048}, {2040, 1536}}) {
    sequence.truncate(position);
    EXPECT_EQ(sequence.n_cached(), kept) << position;
    ASSERT_TRUE(say(30));
  }
  // A pass that is stopped within a layer's work loses nothing before it.
  std::atomic<bool> stop = false;
  observe_products(model->device(), [&](const DeviceMatrix&, std::span<const float* const>) { stop = true; });
  EXPECT_FALSE(say(60, stop));
  observe_products(model->device(), {});
  EXPECT_EQ(sequence.n_cached(), 2048u);
  ASSERT_TRUE(say(60));
  sequence.truncate(1600);
  EXPECT_EQ(sequence.n_cached(), 1536u);
  sequence.truncate(1500);
  EXPECT_EQ(sequence.n_cached(), 0u);
  ASSERT_TRUE(say(60));  // 36 of them end at a multiple, 24 follow
  sequence.truncate(1539);
  EXPECT_EQ(sequence.n_cached(), 1536u);
}

TEST_P(RecurrentStates, AreKeptAfterEachRowOfAPassOfFew) {
  const auto model = open(0);
  const std::vector<int32_t> ids = some_ids(*model);
  const std::vector<float> expected =
      test::all_logits(*model, std::vector(ids.begin(), ids.begin() + 100), 100, 512);
  const size_t vocab = model->hparams().vocab_size;
  for (const size_t rows : {2, 7, 16}) {
    Engine engine(*model);
    Sequence sequence(*model);
    const auto say = [&](size_t n) {
      const size_t begin = sequence.position();
      size_t n_compared = 0;
      const Work work{
          &sequence, std::span(ids).subspan(begin, n), n, [&](size_t i, std::span<const float> z) {
            EXPECT_EQ(std::memcmp(z.data(), expected.data() + (begin + i) * vocab, z.size_bytes()), 0)
                << rows << " rows, position " << begin + i;
            ++n_compared;
          }};
      ASSERT_TRUE(engine.run({&work, 1}));
      EXPECT_EQ(n_compared, n);
    };
    for (size_t back = 1; back < rows; ++back) {
      sequence.truncate(0);
      say(33);
      say(rows);
      sequence.truncate(sequence.position() - back);
      EXPECT_EQ(sequence.n_cached(), sequence.position());
      if (back + 1 < rows) {  // further, before anything is evaluated
        sequence.truncate(sequence.position() - 1);
        EXPECT_EQ(sequence.n_cached(), sequence.position());
      }
      say(1);
    }
    sequence.truncate(0);
    say(33);
    say(17);  // more than are kept
    sequence.truncate(49);
    EXPECT_EQ(sequence.n_cached(), 0u);
    say(3);
  }
}

// gpt-oss with experts in MXFP4, as published, and with the same weights in BF16: both tensors' names, and
// files that hold the same.
TEST(GptOss, InMxfp4IsTheModelOfItsWeights) {
  constexpr float kCodes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  const std::string source = kFolder + "/gpt-oss";
  std::vector<test::TestTensor> packed, plain;
  for (test::TestTensor& tensor : test::read_safetensors_file(source + "/model.safetensors")) {
    if (!tensor.name.ends_with("_proj") || tensor.name.find(".experts.") == std::string::npos) {
      packed.push_back(tensor);
      plain.push_back(std::move(tensor));
      continue;
    }
    // [experts, inputs, outputs] of floats; [experts, outputs, inputs / 32, 16] of bytes.
    const uint64_t n = tensor.shape[0], inputs = tensor.shape[1], outputs = tensor.shape[2];
    std::string blocks, scales, floats(tensor.bytes.size(), 0);
    for (uint64_t row = 0; row < n * outputs; ++row)
      for (uint64_t block = 0; block < inputs / 32; ++block) {
        const int exponent = static_cast<int>((row * 7 + block) % 5) - 6;
        scales.push_back(static_cast<char>(127 + exponent));
        for (uint64_t k = 0; k < 32; ++k) {
          const auto code = static_cast<uint8_t>((row * 5 + block * 3 + k * k * 11 + k) % 16);
          if (k % 2 == 0)
            blocks.push_back(static_cast<char>(code));
          else
            blocks.back() = static_cast<char>(blocks.back() | code << 4);
          const float value = std::ldexp(code < 8 ? kCodes[code] : -kCodes[code - 8], exponent);
          uint32_t bits;
          std::memcpy(&bits, &value, sizeof bits);
          const uint64_t at = (row / outputs * inputs + block * 32 + k) * outputs + row % outputs;
          floats[2 * at] = static_cast<char>(bits >> 16);
          floats[2 * at + 1] = static_cast<char>(bits >> 24);
        }
      }
    packed.push_back({tensor.name + "_blocks", "U8", {n, outputs, inputs / 32, 16}, blocks});
    packed.push_back({tensor.name + "_scales", "U8", {n, outputs, inputs / 32}, scales});
    plain.push_back({tensor.name, tensor.dtype, tensor.shape, floats});
  }
  const test::TempFolder folder;
  const Json config = Json::read(source + "/config.json");
  const auto packed_by = [&](const char* method) {
    Json changed = config, packing = Json::object({{"quant_method", method}});
    packing.add("modules_to_not_convert", Json::array({"lm_head"}));
    changed.add("quantization_config", packing);
    return changed.dump();
  };
  for (const auto& [name, tensors] : {std::pair("plain", plain), {"packed", packed}}) {
    std::filesystem::create_directory(folder.path() / name);
    folder.write(name + std::string("/model.safetensors"), test::safetensors_file(tensors));
    folder.write(name + std::string("/config.json"),
                 name == std::string("plain") ? config.dump() : packed_by("mxfp4"));
  }
  for (const char* type : {"f32", "mxfp4_moe"}) {
    const MappedFile a(test::converted_folder(folder.file("plain"), type)),
        b(test::converted_folder(folder.file("packed"), type));
    const GgufReader of_floats(a.bytes(), a.path()), of_bytes(b.bytes(), b.path());
    ASSERT_EQ(of_floats.tensors().size(), of_bytes.tensors().size());
    for (const TensorView& tensor : of_floats.tensors()) {
      const TensorView* const other = of_bytes.find_tensor(tensor.name);
      ASSERT_NE(other, nullptr) << tensor.name;
      ASSERT_EQ(other->n_bytes, tensor.n_bytes) << tensor.name;
      EXPECT_EQ(std::memcmp(other->data, tensor.data, tensor.n_bytes), 0) << type << ' ' << tensor.name;
    }
  }
  folder.write("packed/config.json", packed_by("fp8"));
  ConvertOptions options;
  options.source = folder.file("packed");
  options.output = folder.file("refused.gguf");
  options.type = "f32";
  options.no_tokenizer = true;
  EXPECT_THROW(convert(options, {}), Error);
}

}  // namespace
}  // namespace quern
