#include "convert/convert.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "quant/gguf_writer.h"
#include "quant/machine/stop_signal.h"
#include "quant/parallel.h"
#include "quant/vocabulary.h"
#include "tests/convert/convert_calls.h"
#include "tests/support/paths.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::error_code;
using test::error_of;
using test::Gguf;
using test::kData;
using test::kTiny;
using test::name_of;
using test::run;
using test::TempFolder;
using test::TestTensor;
using test::Twins;

// Embedding and output, norm, and three layers: two norms, q and o, k and v, gate, up and down.
constexpr uint64_t kTinyWeights =
    2 * 1024 * 256 + 256 + 3 * (2 * 256 + 2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256);

std::vector<float> floats_of_bf16(const std::string& bytes) {
  std::vector<float> values(bytes.size() / 2);
  block_format(DType::BF16)
      .decode(reinterpret_cast<const uint8_t*>(bytes.data()), values.size(), values.data());
  return values;
}

std::string encoded(DType dtype, const std::vector<float>& values) {
  const BlockFormat& format = block_format(dtype);
  std::string out(format.row_bytes(values.size()), '\0');
  format.encode(values.data(), values.size() / format.block_weights, reinterpret_cast<uint8_t*>(out.data()));
  return out;
}

class ConvertType : public testing::TestWithParam<Recipe> {};
INSTANTIATE_TEST_SUITE_P(Recipes, ConvertType, testing::ValuesIn(recipes().begin(), recipes().end()),
                         name_of);

TEST_P(ConvertType, WritesEveryTensorInTheRecipesFormat) {
  const TempFolder folder;
  const std::string path = folder.file("a.gguf");
  const ConvertReport report = run(kTiny, path, std::string(GetParam().name));
  const Gguf gguf(path);
  EXPECT_EQ(gguf.reader.tensors().size(), 3u + 9 * 3);
  EXPECT_EQ(report.file_bytes, fs::file_size(path));
  EXPECT_EQ(report.n_params, kTinyWeights);
  EXPECT_EQ(gguf.reader.require_uint("general.file_type", 0, 99), GetParam().file_type);
  std::vector<RecipeTensor> tensors;
  for (const TensorView& view : gguf.reader.tensors()) tensors.push_back({view.name, view.shape});
  const RecipeModel model{"llama", 3, 0, 8, 4};
  const std::vector<FormatChoice> choices = choose_formats(GetParam(), model, {}, tensors);
  uint64_t tensor_bytes = 0;
  for (size_t i = 0; i < report.tensors.size(); ++i) {
    const ConvertedTensor& converted = report.tensors[i];
    const TensorView& view = gguf.reader.tensors()[i];
    EXPECT_EQ(view.name, converted.name);
    EXPECT_EQ(view.shape, converted.shape);
    EXPECT_EQ(view.dtype, converted.to);
    EXPECT_EQ(view.dtype, choices[i].dtype);
    EXPECT_EQ(view.n_bytes, converted.bytes_out);
    tensor_bytes += view.n_bytes;
  }
  EXPECT_EQ(report.tensor_bytes, tensor_bytes);
}

TEST_P(ConvertType, ReportsTheErrorThatTheFormatTakes) {
  const TempFolder folder;
  const ConvertReport report = run(kTiny, folder.file("a.gguf"), std::string(GetParam().name));
  ASSERT_FALSE(report.tensors.empty());
  for (const ConvertedTensor& tensor : report.tensors) {
    if (tensor.to == DType::F32 || tensor.to == DType::BF16) {
      EXPECT_EQ(tensor.relative_rms_error, 0) << tensor.name;
      continue;
    }
    // Rounding to n levels of a block's range errs by about range / n / sqrt(12); a block of 32 Gaussian
    // weights spans four standard deviations.
    const double bits = 8.0 * static_cast<double>(tensor.bytes_out) /
                        static_cast<double>(Shape(tensor.shape)[0] * tensor.shape[1]);
    EXPECT_GT(tensor.relative_rms_error, 0) << tensor.name;
    EXPECT_LT(tensor.relative_rms_error, 3.0 / std::exp2(std::floor(bits) - 1)) << tensor.name;
  }
}

TEST_P(ConvertType, BytesDoNotDependOnTheNumberOfThreads) {
  const TempFolder folder;
  const std::string type(GetParam().name);
  const ConvertReport one = run(kTiny, folder.file("1.gguf"), type, 1);
  const ConvertReport three = run(kTiny, folder.file("3.gguf"), type, 3);
  EXPECT_TRUE(test::read_file(folder.file("1.gguf")) == test::read_file(folder.file("3.gguf")));
  for (size_t i = 0; i < one.tensors.size(); ++i) {
    EXPECT_EQ(one.tensors[i].relative_rms_error, three.tensors[i].relative_rms_error);
  }
}

TEST_P(ConvertType, RequantizingAFloatFileGivesTheSameTensors) {
  const TempFolder folder;
  const std::string type(GetParam().name);
  run(kTiny, folder.file("f32.gguf"), "f32");
  run(folder.file("f32.gguf"), folder.file("requantized.gguf"), type);
  run(kTiny, folder.file("direct.gguf"), type);
  const Gguf requantized(folder.file("requantized.gguf")), direct(folder.file("direct.gguf"));
  ASSERT_EQ(requantized.reader.tensors().size(), direct.reader.tensors().size());
  for (const TensorView& tensor : direct.reader.tensors()) {
    EXPECT_TRUE(requantized.bytes_of(tensor.name) == direct.bytes_of(tensor.name)) << tensor.name;
  }
}

TEST_P(ConvertType, EveryTypeCanBeRequantized) {
  const TempFolder folder;
  run(kTiny, folder.file("a.gguf"), std::string(GetParam().name));
  const ConvertReport report = run(folder.file("a.gguf"), folder.file("b.gguf"), "q8_0");
  EXPECT_EQ(Gguf(folder.file("b.gguf")).reader.tensors().size(), report.tensors.size());
}

TEST(Convert, WritesMetadataInTheOrderOfTheReferenceConverter) {
  const TempFolder folder;
  run(kTiny, folder.file("a.gguf"), "q4_0");
  const Gguf gguf(folder.file("a.gguf"));
  std::vector<std::string> keys;
  for (const auto& pair : gguf.reader.metadata()) {
    if (!pair.key.starts_with("tokenizer.")) keys.emplace_back(pair.key);
  }
  EXPECT_EQ(keys, (std::vector<std::string>{
                      "general.architecture", "general.type", "general.name", "llama.block_count",
                      "llama.context_length", "llama.embedding_length", "llama.feed_forward_length",
                      "llama.attention.head_count", "llama.attention.head_count_kv", "llama.rope.freq_base",
                      "llama.attention.layer_norm_rms_epsilon", "llama.attention.key_length",
                      "llama.attention.value_length", "general.file_type", "llama.vocab_size",
                      "llama.rope.dimension_count", "general.quantization_version"}));
  EXPECT_EQ(gguf.reader.require_string("general.name"), "tiny-mistral");
  EXPECT_EQ(gguf.reader.require_uint("llama.rope.dimension_count", 0, 999), 64u);
  EXPECT_EQ(gguf.reader.find("llama.attention.layer_norm_rms_epsilon")->as_float(), double{1e-5f});
  EXPECT_EQ(gguf.reader.find("llama.rope.freq_base")->as_float(), 1e6);
}

TEST(Convert, NameIsTheFoldersHoweverItIsSpelled) {
  const TempFolder folder;
  run(kData + "/golden/../tiny-mistral/", folder.file("a.gguf"), "q8_0");
  EXPECT_EQ(Gguf(folder.file("a.gguf")).reader.require_string("general.name"), "tiny-mistral");
}

TEST(Convert, WindowAndHeadDimAreWritten) {
  const TempFolder folder;
  run(kData + "/random-window", folder.file("a.gguf"), "q8_0");
  const Gguf gguf(folder.file("a.gguf"));
  EXPECT_EQ(gguf.reader.require_uint("llama.attention.sliding_window", 0, 999), 16u);
  EXPECT_EQ(gguf.reader.require_uint("llama.attention.key_length", 0, 999), 32u);
  EXPECT_TRUE(has_no_vocabulary(gguf.reader));
}

TEST(Convert, QuantizesTheRowsInGgufsOrder) {
  const TempFolder folder;
  run(kTiny, folder.file("a.gguf"), "q4_0");
  const Gguf gguf(folder.file("a.gguf"));
  constexpr size_t kColumns = 256, kHeadDim = 64;
  int n_checked = 0;
  for (const TestTensor& tensor : test::read_safetensors_file(kTiny + "/model.safetensors")) {
    if (tensor.name == "model.layers.1.self_attn.v_proj.weight") {
      EXPECT_TRUE(gguf.bytes_of("blk.1.attn_v.weight") == encoded(DType::Q4_0, floats_of_bf16(tensor.bytes)));
      ++n_checked;
    }
    if (tensor.name != "model.layers.1.self_attn.k_proj.weight") continue;
    ++n_checked;
    const std::string bytes = gguf.bytes_of("blk.1.attn_k.weight");
    const size_t row_bytes = bytes.size() / tensor.shape[0];
    for (size_t row = 0; row < tensor.shape[0]; ++row) {
      const size_t head = row / kHeadDim, i = row % kHeadDim / 2, j = row % 2;
      const size_t source_row = head * kHeadDim + j * kHeadDim / 2 + i;
      const std::string source = tensor.bytes.substr(source_row * kColumns * 2, kColumns * 2);
      EXPECT_TRUE(bytes.substr(row * row_bytes, row_bytes) == encoded(DType::Q4_0, floats_of_bf16(source)))
          << row;
    }
  }
  EXPECT_EQ(n_checked, 2);
}

TEST(Convert, ReadsF16AndF32Sources) {
  // BF16 -> F32 is exact, so a source in F32 must give the same file; F16 the same where nothing was rounded.
  const TempFolder folder;
  std::vector<TestTensor> tensors = test::read_safetensors_file(kTiny + "/model.safetensors");
  for (TestTensor& tensor : tensors) {
    const std::vector<float> values = floats_of_bf16(tensor.bytes);
    tensor.dtype = tensor.shape.size() == 1 ? "F16" : "F32";
    tensor.bytes = encoded(tensor.shape.size() == 1 ? DType::F16 : DType::F32, values);
  }
  fs::create_directory(folder.file("tiny-mistral"));
  folder.write("tiny-mistral/model.safetensors", test::safetensors_file(tensors));
  for (const char* name : {"config.json", "tokenizer.model"}) {
    fs::copy_file(kTiny + "/" + name, folder.file("tiny-mistral/") + name);
  }
  run(folder.file("tiny-mistral"), folder.file("a.gguf"), "q4_0");
  run(kTiny, folder.file("b.gguf"), "q4_0");
  EXPECT_TRUE(test::read_file(folder.file("a.gguf")) == test::read_file(folder.file("b.gguf")));
}

TEST_F(Twins, MistralLayoutGivesTheSameTensors) {
  const TempFolder folder;
  run(mistral(), folder.file("mistral.gguf"), "q4_0");
  run(kTiny, folder.file("hugging-face.gguf"), "q4_0");
  const Gguf a(folder.file("mistral.gguf")), b(folder.file("hugging-face.gguf"));
  ASSERT_EQ(a.reader.tensors().size(), b.reader.tensors().size());
  for (const TensorView& tensor : b.reader.tensors()) {
    EXPECT_TRUE(a.bytes_of(tensor.name) == b.bytes_of(tensor.name)) << tensor.name;
  }
  EXPECT_EQ(a.reader.require_uint("llama.context_length", 0, 99999), 32768u);
  EXPECT_EQ(a.reader.find("llama.rope.freq_base")->as_float(), 1e6);
}

TEST_F(Twins, TiedModelHasNoOutputAndABetterEmbedding) {
  const TempFolder folder;
  run(tied(), folder.file("tied.gguf"), "q4_0");
  const Gguf gguf(folder.file("tied.gguf"));
  EXPECT_EQ(gguf.reader.find_tensor("output.weight"), nullptr);
  EXPECT_EQ(gguf.reader.find_tensor("token_embd.weight")->dtype, DType::Q6_K);
  EXPECT_EQ(gguf.reader.tensors().size(), 2u + 9 * 3);
}

TEST_F(Twins, UntiedModelWithoutOutputIsRefused) {
  const TempFolder folder;
  fs::copy_file(kTiny + "/config.json", tied() + "/config.json", fs::copy_options::overwrite_existing);
  const std::string error = error_of([&] { run(tied(), folder.file("a.gguf"), "q4_0"); });
  EXPECT_NE(error.find("'lm_head.weight' is missing (tie_word_embeddings is not true, so"), std::string::npos)
      << error;
  EXPECT_EQ(error_code, ErrorCode::kMalformed);
  test::write_tied_twin(kTiny, tied());
}

TEST(Convert, KeepsUnknownMetadataOfAGguf) {
  const TempFolder folder;
  run(kTiny, folder.file("a.gguf"), "f32");
  const Gguf a(folder.file("a.gguf"));
  GgufMetadata metadata;
  metadata.set_string("other.first", "kept");
  for (const auto& pair : a.reader.metadata()) metadata.set_value(pair.key, pair.value);
  const std::vector<float> numbers = {1.5f, -0.0f};
  metadata.set_floats("other.numbers", numbers);
  metadata.set_u32("general.alignment", 64);
  std::vector<GgufTensorInfo> infos;
  for (const TensorView& tensor : a.reader.tensors())
    infos.push_back({tensor.name, tensor.dtype, tensor.shape});
  const GgufPlan plan(metadata, infos, 64);
  GgufWriter writer(folder.file("b.gguf"), plan, metadata, false);
  for (size_t i = 0; i < infos.size(); ++i) {
    const TensorView& tensor = a.reader.tensors()[i];
    writer.write_tensor(i, 0, {tensor.data, tensor.n_bytes});
  }
  writer.finish();

  run(folder.file("b.gguf"), folder.file("c.gguf"), "q4_0");
  const Gguf b(folder.file("b.gguf")), c(folder.file("c.gguf"));
  EXPECT_EQ(c.reader.alignment(), 64u);
  std::vector<std::string> expected, found;
  const auto line = [](const GgufReader::KeyValue& pair) {
    return std::string(pair.key) + std::string(pair.value.payload.begin(), pair.value.payload.end());
  };
  const auto rewritten = [](std::string_view key) {
    return key == "general.file_type" || key == "general.quantization_version";
  };
  for (const auto& pair : b.reader.metadata()) {
    if (!rewritten(pair.key)) expected.push_back(line(pair));
  }
  for (const auto& pair : c.reader.metadata()) {
    if (!rewritten(pair.key)) found.push_back(line(pair));
  }
  EXPECT_EQ(found, expected);
  EXPECT_EQ(c.reader.require_uint("general.file_type", 0, 99), 2u);
}

TEST(Convert, MendsANameOfAGgufThatIsNotUtf8) {
  const TempFolder folder;
  run(kTiny, folder.file("a.gguf"), "f32");
  std::string bytes = test::read_file(folder.file("a.gguf"));
  const size_t name = bytes.find("tiny-mistral", bytes.find("general.name"));
  ASSERT_NE(name, std::string::npos);
  bytes.replace(name, 2, "\xFF\xFE");
  std::string notices;
  ConvertCallbacks callbacks;
  callbacks.notice = [&](std::string_view line) { notices += line; };
  run(folder.write("b.gguf", bytes), folder.file("c.gguf"), "q4_0", 2, callbacks);
  EXPECT_EQ(Gguf(folder.file("c.gguf")).reader.require_string("general.name"), "\uFFFD\uFFFDny-mistral");
  EXPECT_NE(notices.find("general.name is not UTF-8: written as '"), std::string::npos) << notices;
}

TEST(Convert, TakesTheTokenizerOutOfAGgufWhenAsked) {
  const TempFolder folder;
  run(kTiny, folder.file("a.gguf"), "f32");
  ConvertOptions options;
  options.source = folder.file("a.gguf");
  options.output = folder.file("b.gguf");
  options.no_tokenizer = true;
  options.n_threads = 1;
  convert(options, {});
  const Gguf b(folder.file("b.gguf"));
  EXPECT_TRUE(has_no_vocabulary(b.reader));
  EXPECT_EQ(b.reader.find("tokenizer.ggml.tokens"), nullptr);
  EXPECT_NE(b.reader.find("llama.block_count"), nullptr);
}

// A copy of tiny-mistral in a folder of the test's own.
std::string copy_of_tiny(const TempFolder& folder) {
  fs::copy(kTiny, folder.file("tiny"), fs::copy_options::recursive);
  return folder.file("tiny");
}

Vocabulary vocabulary_of(const std::string& source, const std::string& output,
                         const ConvertCallbacks& callbacks = {}) {
  run(source, output, "q8_0", 2, callbacks);
  const Gguf gguf(output);
  return read_vocabulary(gguf.reader, 1024, {});
}

TEST(Convert, TakesTheTokenizerAndWhatItsConfigAdds) {
  const TempFolder folder;
  const std::string source = copy_of_tiny(folder);
  const Vocabulary plain = vocabulary_of(source, folder.file("a.gguf"));
  EXPECT_EQ(plain.size(), 1024u);
  EXPECT_TRUE(plain.add_bos);
  EXPECT_FALSE(plain.add_eos);
  EXPECT_EQ(plain.chat_template, "");

  ConvertCallbacks callbacks;
  callbacks.recognise_chat_format = [](const Vocabulary& vocabulary) {
    return vocabulary.chat_template == "{{ known }}" ? std::string("mistral-v1") : std::string();
  };
  folder.write("tiny/tokenizer_config.json",
               R"({"add_bos_token": false, "add_eos_token": true, "chat_template": "{{ known }}"})");
  const Vocabulary changed = vocabulary_of(source, folder.file("b.gguf"), callbacks);
  EXPECT_FALSE(changed.add_bos);
  EXPECT_TRUE(changed.add_eos);
  EXPECT_EQ(changed.chat_template, "{{ known }}");
  EXPECT_EQ(changed.chat_format, "mistral-v1");

  folder.write(
      "tiny/tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(vocabulary_of(source, folder.file("c.gguf"), callbacks).chat_template, "d");
  folder.write("tiny/chat_template.jinja", "newer");
  const Vocabulary newer = vocabulary_of(source, folder.file("d.gguf"), callbacks);
  EXPECT_EQ(newer.chat_template, "newer");
  EXPECT_EQ(newer.chat_format, "");
}

TEST(Convert, TakesTheNewestChatTemplateAndNamesOthers) {
  const TempFolder folder;
  const std::string source = copy_of_tiny(folder);
  std::vector<std::string> notices;
  ConvertCallbacks callbacks;
  callbacks.notice = [&](std::string_view line) {
    if (line.find("template") != std::string::npos) notices.emplace_back(line);
  };
  const auto taken = [&](const std::string& output) {
    notices.clear();
    return vocabulary_of(source, folder.file(output), callbacks).chat_template;
  };
  folder.write("tiny/chat_template.json", R"({"chat_template": "oldest"})");
  EXPECT_EQ(taken("a.gguf"), "oldest");
  EXPECT_TRUE(notices.empty()) << notices[0];
  folder.write("tiny/tokenizer_config.json", R"({"chat_template": "newer"})");
  folder.write("tiny/chat_template.jinja", "newer");
  EXPECT_EQ(taken("b.gguf"), "newer");
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(
      notices[0].find("chat_template.json: another chat template than chat_template.jinja's, which counts"),
      std::string::npos)
      << notices[0];
  // Templates for other purposes are left out, and named.
  folder.write(
      "tiny/chat_template.json",
      R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "newer"}]})");
  std::filesystem::create_directory(folder.file("tiny/additional_chat_templates"));
  folder.write("tiny/additional_chat_templates/tool_use.jinja", "t");
  EXPECT_EQ(taken("c.gguf"), "newer");
  ASSERT_EQ(notices.size(), 2u);
  EXPECT_NE(notices[0].find("additional_chat_templates: its chat templates are left out"), std::string::npos)
      << notices[0];
  EXPECT_NE(notices[1].find("'default' counts; left out: rag"), std::string::npos) << notices[1];
  std::filesystem::remove_all(folder.file("tiny/additional_chat_templates"));
  // What is no template does not stop a conversion.
  std::filesystem::remove(folder.file("tiny/chat_template.jinja"));
  std::filesystem::remove(folder.file("tiny/chat_template.json"));
  size_t n = 0;
  for (const char* value :
       {"5", "[]", R"([{"name": "tool_use", "template": "t"}])", R"([{"template": 1}])"}) {
    folder.write("tiny/tokenizer_config.json", fmt::format(R"({{"chat_template": {}}})", value));
    EXPECT_EQ(taken(fmt::format("c{}.gguf", n++)), "") << value;
    ASSERT_EQ(notices.size(), 2u) << value;
    EXPECT_NE(notices[0].find("tokenizer_config.json: chat_template is ignored"), std::string::npos)
        << notices[0];
  }
}

TEST(Convert, WithoutATokenizerItSaysWhatIsThereInstead) {
  const TempFolder folder;
  const std::string source = copy_of_tiny(folder);
  fs::remove(source + "/tokenizer.model");
  ConvertOptions options;
  options.source = source;
  options.output = folder.file("a.gguf");
  options.n_threads = 1;
  EXPECT_NE(error_of([&] { convert(options, {}); }).find("no tokenizer (tokenizer.model, "),
            std::string::npos);
  EXPECT_EQ(error_code, ErrorCode::kMalformed);
  folder.write("tiny/vocab.json", "{}");
  folder.write("tiny/merges.txt", "#version: 0.2\n");
  EXPECT_NE(error_of([&] { convert(options, {}); }).find("vocab.json and merges.txt are an older form of"),
            std::string::npos);
  folder.write("tiny/tokenizer.json", "{}");
  EXPECT_NE(error_of([&] { convert(options, {}); }).find("tokenizer.json without a model"),
            std::string::npos);
  options.no_tokenizer = true;
  convert(options, {});
  EXPECT_TRUE(has_no_vocabulary(Gguf(options.output).reader));
}

TEST(Convert, VocabularyMustHaveOnePieceARow) {
  const TempFolder folder;
  const std::string source = copy_of_tiny(folder);
  fs::copy_file(kData + "/stories260k/tokenizer.model", source + "/tokenizer.model",
                fs::copy_options::overwrite_existing);
  const std::string error = error_of([&] { run(source, folder.file("a.gguf"), "q4_0"); });
  EXPECT_NE(error.find("512 pieces"), std::string::npos) << error;
  EXPECT_NE(error.find("vocab_size = 1024"), std::string::npos) << error;
}

TEST(Convert, NonFiniteWeightNamesTensorAndElement) {
  struct Case {
    const char* tensor;
    size_t element;
    const char* bf16;  // little-endian
    const char* word;
  };
  const Case cases[] = {{"model.embed_tokens.weight", 50, "\xC0\x7F", "nan"},
                        {"model.layers.2.mlp.up_proj.weight", 0, "\x80\x7F", "inf"},
                        {"model.layers.1.self_attn.q_proj.weight", 5 * 256 + 7, "\x80\xFF", "-inf"},
                        {"model.layers.1.self_attn.v_proj.weight", 64, "\x7F\x7F", "Q4_0 cannot hold"}};
  for (const Case& c : cases) {
    const TempFolder folder;
    const std::string source = copy_of_tiny(folder);
    std::vector<TestTensor> tensors = test::read_safetensors_file(kTiny + "/model.safetensors");
    for (TestTensor& tensor : tensors) {
      if (tensor.name == c.tensor) std::memcpy(tensor.bytes.data() + 2 * c.element, c.bf16, 2);
    }
    folder.write("tiny/model.safetensors", test::safetensors_file(tensors));
    const std::string error = error_of([&] { run(source, folder.file("a.gguf"), "q4_0"); });
    EXPECT_EQ(error_code, ErrorCode::kIntegrity) << error;
    for (const std::string& part : {std::string(c.tensor), fmt::format("element {} ", c.element),
                                    std::string(c.word), std::string("model.safetensors")}) {
      EXPECT_NE(error.find(part), std::string::npos) << part << ": " << error;
    }
    EXPECT_EQ(folder.names(), std::vector<std::string>{"tiny"});
  }
}

TEST(Convert, FallbackIsToldAndStrictRefusesIt) {
  const TempFolder folder;
  std::vector<std::string> lines;
  ConvertCallbacks callbacks;
  callbacks.notice = [&](std::string_view line) { lines.emplace_back(line); };
  run(kData + "/stories260k", folder.file("a.gguf"), "q4_0", 2, callbacks);
  ASSERT_FALSE(lines.empty());
  EXPECT_NE(lines.back().find("'blk.4.ffn_down.weight': 172 columns"), std::string::npos) << lines.back();
  EXPECT_NE(lines.back().find("F16"), std::string::npos) << lines.back();

  ConvertOptions options;
  options.source = kData + "/stories260k";
  options.output = folder.file("b.gguf");
  options.strict = true;
  options.n_threads = 1;
  EXPECT_NE(error_of([&] { convert(options, {}); }).find("columns"), std::string::npos);
  EXPECT_EQ(error_code, ErrorCode::kUsage);
  EXPECT_FALSE(fs::exists(options.output));
}

TEST(Convert, DryRunPlansTheSameFileAndWritesNothing) {
  const TempFolder folder;
  ConvertOptions options;
  options.source = kTiny;
  options.output = folder.file("a.gguf");
  options.n_threads = 1;
  options.dry_run = true;
  const ConvertReport plan = convert(options, {});
  EXPECT_TRUE(folder.names().empty());
  EXPECT_TRUE(std::isnan(plan.tensors[0].relative_rms_error));
  options.dry_run = false;
  convert(options, {});
  EXPECT_EQ(plan.file_bytes, fs::file_size(options.output));
}

TEST(Convert, InterruptionKeepsTheOldTarget) {
  const TempFolder folder;
  folder.write("a.gguf", "old");
  for (const auto& [tensors, n_threads] : {std::pair(0, 1), {1, 1}, {5, 1}, {30, 1}, {0, 2}, {7, 2}}) {
    int left = tensors;
    ConvertCallbacks callbacks;
    callbacks.on_tensor = [&](const ConvertedTensor&) { --left; };
    callbacks.stop = [&] { return left <= 0; };
    ConvertOptions options;
    options.source = kTiny;
    options.output = folder.file("a.gguf");
    options.n_threads = n_threads;
    options.force = true;
    EXPECT_THROW(convert(options, callbacks), Interrupted) << tensors;
    EXPECT_EQ(test::read_file(folder.file("a.gguf")), "old");
    EXPECT_EQ(folder.names(), std::vector<std::string>{"a.gguf"});
  }
}

TEST(Convert, ProgressEndsWithEverythingRead) {
  const TempFolder folder;
  ConvertCallbacks callbacks;
  uint64_t last = 0, total = 0;
  size_t n_tensors = 0;
  callbacks.on_progress = [&](const ConvertProgress& progress) {
    EXPECT_GT(progress.bytes_done, last);
    last = progress.bytes_done;
    total = progress.bytes_total;
  };
  callbacks.on_tensor = [&](const ConvertedTensor&) { ++n_tensors; };
  const ConvertReport report = run(kTiny, folder.file("a.gguf"), "q4_0", 2, callbacks);
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, report.bytes_in);
  EXPECT_EQ(n_tensors, report.tensors.size());
}

// Within a parallel region OpenMP would give a loop of theirs one thread.
TEST(Convert, CallbacksAreCalledByTheCallingThreadAndMayUseThreads) {
  const TempFolder folder;
  ConvertCallbacks callbacks;
  const auto caller = std::this_thread::get_id();
  int n_calls = 0;
  const auto use_threads = [&] {
    ++n_calls;
    EXPECT_EQ(std::this_thread::get_id(), caller);
    std::atomic<int> n_here{0};
    ThreadPool(2).broadcast([&](int) noexcept {
      ++n_here;
      for (int i = 0; i < 5000 && n_here < 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    EXPECT_EQ(n_here, 2);
  };
  callbacks.on_progress = [&](const ConvertProgress& progress) {
    if (progress.tensor < 3) use_threads();
  };
  run(kTiny, folder.file("a.gguf"), "q4_0", 2, callbacks);
  EXPECT_GE(n_calls, 3);
}

TEST(Convert, OutputNeverReplacesAnInput) {
  const TempFolder folder;
  const std::string source = copy_of_tiny(folder);
  ConvertOptions options;
  options.source = source;
  options.force = true;
  options.n_threads = 1;
  for (const char* name : {"model.safetensors", "config.json", "tokenizer.model"}) {
    options.output = source + "/" + name;
    const std::string before = test::read_file(options.output);
    EXPECT_NE(error_of([&] { convert(options, {}); }).find("replace the input"), std::string::npos) << name;
    EXPECT_EQ(error_code, ErrorCode::kUsage);
    EXPECT_TRUE(test::read_file(options.output) == before) << name;
  }
  options.output = source + "/a.gguf";  // a place as good as any other, also the second time
  convert(options, {});
  convert(options, {});
  options.source = options.output;
  EXPECT_NE(error_of([&] { convert(options, {}); }).find("replace the input"), std::string::npos);
}

TEST(Convert, NamesWhatAKilledOneLeftOfItsTarget) {
  const TempFolder folder;
  const std::string left = folder.write("a.gguf.0123456789abcdef.tmp", "half a model");
  folder.write("b.gguf.0123456789abcdef.tmp", "of another");
  std::vector<std::string> notices;
  ConvertCallbacks callbacks;
  callbacks.notice = [&](std::string_view line) { notices.emplace_back(line); };
  run(kTiny, folder.file("a.gguf"), "q8_0", 2, callbacks);
  std::erase_if(notices, [](const std::string& line) { return line.find(".tmp") == line.npos; });
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_TRUE(notices[0].starts_with(left + ": left from a convert that was killed")) << notices[0];
}

TEST(Convert, ExistingTargetAndFoldersAreRefused) {
  const TempFolder folder;
  folder.write("a.gguf", "old");
  EXPECT_NE(error_of([&] { run(kTiny, folder.file("a.gguf"), "q4_0"); }).find("--force"), std::string::npos);
  EXPECT_EQ(error_code, ErrorCode::kUsage);
  error_of([&] { run(kTiny, folder.path().string(), "q4_0"); });
  EXPECT_EQ(error_code, ErrorCode::kUsage);
  EXPECT_EQ(folder.names(), std::vector<std::string>{"a.gguf"});
}

TEST(Convert, UnknownTypeListsTheKnownOnes) {
  const std::string error = error_of([] { run(kTiny, "never.gguf", "q4_9"); });
  EXPECT_EQ(error_code, ErrorCode::kUsage);
  for (const Recipe& recipe : recipes()) EXPECT_NE(error.find(recipe.name), std::string::npos) << error;
}

TEST(Convert, SourceThatIsNeitherFolderNorGgufIsRefused) {
  const TempFolder folder;
  error_of([&] { run(folder.file("absent"), folder.file("a.gguf"), "q4_0"); });
  EXPECT_EQ(error_code, ErrorCode::kIo);
  error_of([&] { run(kTiny + "/test.txt", folder.file("a.gguf"), "q4_0"); });
  EXPECT_EQ(error_code, ErrorCode::kMalformed);
}

// As llama-quantize does: norms, and Gemma 4's projection of the layers' own embeddings.
TEST(Convert, KeepsTheTypeOfWhatIsNotQuantized) {
  const TempFolder folder;
  const std::string source = test::unpacked_data("architectures/gemma4");
  for (const auto& [type, kept] :
       {std::pair("f16", DType::F16), {"bf16", DType::BF16}, {"f32", DType::F32}}) {
    SCOPED_TRACE(type);
    const std::string from = folder.file(std::string(type) + ".gguf"),
                      to = folder.file(std::string(type) + "-q8_0.gguf");
    run(source, from, type);
    run(from, to, "q8_0");
    const Gguf before(from), after(to);
    for (const auto& [name, dtype] :
         {std::pair("per_layer_model_proj.weight", kept), {"output_norm.weight", DType::F32}}) {
      const TensorView* const a = before.reader.find_tensor(name);
      const TensorView* const b = after.reader.find_tensor(name);
      ASSERT_TRUE(a != nullptr && b != nullptr) << name;
      EXPECT_EQ(a->dtype, dtype) << name;
      EXPECT_EQ(b->dtype, dtype) << name;
      ASSERT_EQ(a->n_bytes, b->n_bytes) << name;
      EXPECT_EQ(std::memcmp(a->data, b->data, a->n_bytes), 0) << name;
    }
    EXPECT_EQ(after.reader.find_tensor("blk.0.ffn_down.weight")->dtype, DType::Q8_0);
  }
}

}  // namespace
}  // namespace quern
