// GGUF files as other programs write them: tiny-mistral's, one thing changed that changes nothing. They give
// the logits of the unchanged file, bit for bit, and a notice where something is ignored; the same thing with
// a value that matters is refused by name.
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "quant/gguf_writer.h"
#include "tests/support/models.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

struct Tensor {
  GgufTensorInfo info;
  std::vector<uint8_t> bytes;
};

// A GGUF in pieces, to be changed and written.
struct File {
  GgufMetadata metadata;
  std::vector<Tensor> tensors;

  Tensor& at(const std::string& name) {
    for (Tensor& tensor : tensors)
      if (tensor.info.name == name) return tensor;
    throw std::runtime_error("no tensor " + name);
  }
  void add(const std::string& name, size_t n, float value) {
    std::vector<uint8_t> bytes(n * sizeof value);
    for (size_t i = 0; i < n; ++i) std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
    tensors.push_back({{name, DType::F32, {n}, TensorLayout::kRows}, bytes});
  }
};

File read_file(const std::string& path) {
  const MappedFile mapped(path);
  const GgufReader gguf(mapped.bytes(), path);
  File file;
  for (const GgufReader::KeyValue& pair : gguf.metadata()) file.metadata.set_value(pair.key, pair.value);
  for (const TensorView& view : gguf.tensors())
    file.tensors.push_back(
        {{view.name, view.dtype, view.shape, view.layout}, {view.data, view.data + view.n_bytes}});
  return file;
}

void write_file(const std::string& path, const File& file) {
  std::vector<GgufTensorInfo> infos;
  for (const Tensor& tensor : file.tensors) infos.push_back(tensor.info);
  const GgufPlan plan(file.metadata, infos);
  GgufWriter writer(path, plan, file.metadata, true);
  for (size_t i = 0; i < file.tensors.size(); ++i) writer.write_tensor(i, 0, file.tensors[i].bytes);
  writer.finish();
}

// An array of u32, as some writers have it.
void set_u32s(GgufMetadata* metadata, const std::string& key, const std::vector<uint32_t>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(uint32_t));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  metadata->set_value(key, GgufValue{GgufType::kArray, GgufType::kU32, values.size(), bytes});
}

// A matrix of floats a power of two smaller, and the factor of its products that makes up for it.
void move_into_scale(File& file, const std::string& matrix, float factor) {
  Tensor& tensor = file.at(matrix + ".weight");
  for (size_t at = 0; at < tensor.bytes.size(); at += sizeof(float)) {
    float weight;
    std::memcpy(&weight, tensor.bytes.data() + at, sizeof weight);
    weight /= factor;
    std::memcpy(tensor.bytes.data() + at, &weight, sizeof weight);
  }
  file.add(matrix + ".scale", 1, factor);
}

struct Variant {
  std::string name;
  std::function<void(File&)> change;
  std::string notice;  // a part of the line that must be said; empty: nothing has to be
};

struct Refused {
  std::string name;
  std::function<void(File&)> change;
  std::string error;  // a part of the message
};

const std::string kType = "f32";

std::vector<std::string> notices;
std::unique_ptr<Model> load(const std::string& path) {
  notices.clear();
  return Model::load(path, {}, [](std::string_view line) { notices.emplace_back(line); });
}

class HarmlessVariant : public testing::TestWithParam<Variant> {};

TEST_P(HarmlessVariant, GivesTheLogitsOfTheUnchangedFile) {
  const std::string original = test::converted("tiny-mistral", kType);
  File file = read_file(original);
  GetParam().change(file);
  const test::TempFolder folder;
  const std::string path = folder.file("changed.gguf");
  write_file(path, file);
  const std::vector<int32_t> ids = {1, 500, 600, 700};
  const auto model = load(path);
  const std::vector<std::string> said = notices;
  EXPECT_EQ(test::all_logits(*model, ids, 4, 4), test::all_logits(*load(original), ids, 4, 4));
  const bool heard = std::any_of(said.begin(), said.end(), [](const std::string& line) {
    return line.find(GetParam().notice) != line.npos;
  });
  EXPECT_TRUE(heard) << fmt::format("{}", fmt::join(said, "\n"));
}

const std::vector<Variant> kHarmless = {
    {"HeadDim", [](File& f) { f.metadata.set_u32("llama.attention.head_dim", 64); }, ""},
    {"LayerNormEpsilon", [](File& f) { f.metadata.set_f32("llama.attention.layer_norm_epsilon", 1e-5f); },
     "llama.attention.layer_norm_epsilon is ignored"},
    {"IdleScale", [](File& f) { f.metadata.set_f32("llama.logit_scale", 1); },
     "llama.logit_scale is ignored"},
    {"QuantizationVersion1", [](File& f) { f.metadata.set_u32("general.quantization_version", 1); },
     "general.quantization_version is 1"},
    {"QuantizationVersionAsText", [](File& f) { f.metadata.set_string("general.quantization_version", "2"); },
     "general.quantization_version is of type string and ignored"},
    {"NameAsANumber", [](File& f) { f.metadata.set_u32("general.name", 7); },
     "general.name is of type u32, expected a string: ignored"},
    {"FileTypeAsText", [](File& f) { f.metadata.set_string("general.file_type", "Q8_0"); },
     "general.file_type is of type string"},
    {"OuterOnesOfTheEmbedding",
     [](File& f) {
       f.at("token_embd.weight").info.shape = {1, 1, 1024, 256};
     },
     ""},
    {"OuterOnesOfAMatrix",
     [](File& f) {
       f.at("blk.0.attn_q.weight").info.shape = {1, 1, 256, 256};
     },
     ""},
    {"OuterOneOfANorm",
     [](File& f) {
       f.at("output_norm.weight").info.shape = {1, 256};
     },
     ""},
    {"HeadCountPerLayer",
     [](File& f) {
       f.metadata.set_int32s("llama.attention.head_count", std::vector<int32_t>{4, 4, 4});
     },
     ""},
    {"HeadCountKvPerLayer",
     [](File& f) {
       set_u32s(&f.metadata, "llama.attention.head_count_kv", {2, 2, 2});
     },
     ""},
    {"FeedForwardPerLayer",
     [](File& f) {
       f.metadata.set_int32s("llama.feed_forward_length", std::vector<int32_t>{512, 512, 512});
     },
     ""},
    {"LinearScalingByOne",
     [](File& f) {
       f.metadata.set_string("llama.rope.scaling.type", "linear");
       f.metadata.set_f32("llama.rope.scaling.factor", 1);
     },
     "llama.rope.scaling (linear) is ignored"},
    {"ScalingByZero", [](File& f) { f.metadata.set_f32("llama.rope.scaling.factor", 0); },
     "llama.rope.scaling (none) is ignored"},
    {"FactorWithoutScaling",
     [](File& f) {
       f.metadata.set_string("llama.rope.scaling.type", "none");
       f.metadata.set_f32("llama.rope.scaling.factor", 2);
     },
     "llama.rope.scaling.factor is 2 and ignored"},
    {"OldFactorBesideTheNewOne",
     [](File& f) {
       f.metadata.set_f32("llama.rope.scaling.factor", 1);
       f.metadata.set_f32("llama.rope.scale_linear", 2);
     },
     "llama.rope.scale_linear is 2 and ignored"},
    {"RopeFrequenciesOfOne", [](File& f) { f.add("rope_freqs.weight", 32, 1); }, ""},
    {"BiasOfZeros", [](File& f) { f.add("blk.0.attn_q.bias", 256, 0); }, ""},
    {"StoredFrequencies", [](File& f) { f.add("blk.0.attn_rot_embd", 32, 0.5f); }, "blk.0.attn_rot_embd"},
    {"ScalesOfMatrices",
     [](File& f) {
       for (const char* matrix : {"blk.0.attn_q", "blk.1.attn_output", "blk.2.ffn_up", "blk.2.ffn_down"})
         move_into_scale(f, matrix, 4);
       move_into_scale(f, "output", 0.5f);
     },
     ""},
    {"InputScale", [](File& f) { f.add("blk.0.attn_q.input_scale", 1, 0.01f); }, "blk.0.attn_q.input_scale"},
    {"LeftOverWindow", [](File& f) { f.metadata.set_u32("llama.attention.sliding_window", 2); },
     "llama.attention.sliding_window is 2 and ignored"},
};

const std::vector<Refused> kHarmful = {
    {"HeadDim", [](File& f) { f.metadata.set_u32("llama.attention.head_dim", 32); },
     "llama.attention.head_dim"},
    {"UnknownKey", [](File& f) { f.metadata.set_f32("llama.attention.temperature", 1); },
     "llama.attention.temperature"},
    {"Scale", [](File& f) { f.metadata.set_f32("llama.logit_scale", 0.5f); }, "llama.logit_scale"},
    {"MoreThanOuterOnes",
     [](File& f) {
       f.at("token_embd.weight").info.shape = {2, 512, 256};
     },
     "token_embd.weight"},
    {"LayersThatDiffer",
     [](File& f) {
       f.metadata.set_int32s("llama.feed_forward_length", std::vector<int32_t>{512, 512, 256});
     },
     "layers that differ"},
    {"TooFewLayers",
     [](File& f) {
       f.metadata.set_int32s("llama.attention.head_count", std::vector<int32_t>{4, 4});
     },
     "one for each layer"},
    {"NegativePerLayer",
     [](File& f) {
       f.metadata.set_int32s("llama.attention.head_count_kv", std::vector<int32_t>{-2, -2, -2});
     },
     "llama.attention.head_count_kv"},
    {"LongRope", [](File& f) { f.metadata.set_string("llama.rope.scaling.type", "longrope"); }, "longrope"},
    {"ScaleOfNothing", [](File& f) { f.add("blk.7.attn_q.scale", 1, 1); }, "blk.7.attn_q.scale"},
    {"ScaleOfEveryRow", [](File& f) { f.add("blk.0.attn_q.scale", 256, 1); }, "expected 1 float"},
    {"ScaleOfTheEmbedding", [](File& f) { f.add("token_embd.scale", 1, 1); }, "token_embd.scale"},
    {"BiasOfNothing", [](File& f) { f.add("blk.7.attn_q.bias", 256, 0); }, "blk.7.attn_q.bias"},
};

class HarmfulVariant : public testing::TestWithParam<Refused> {};

TEST_P(HarmfulVariant, IsRefusedByName) {
  File file = read_file(test::converted("tiny-mistral", kType));
  GetParam().change(file);
  const test::TempFolder folder;
  const std::string path = folder.file("changed.gguf");
  write_file(path, file);
  try {
    load(path);
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kMalformed);
    EXPECT_NE(std::string(e.what()).find(GetParam().error), std::string::npos) << e.what();
  }
}

INSTANTIATE_TEST_SUITE_P(Files, HarmlessVariant, testing::ValuesIn(kHarmless),
                         [](const auto& tested) { return tested.param.name; });
INSTANTIATE_TEST_SUITE_P(Files, HarmfulVariant, testing::ValuesIn(kHarmful),
                         [](const auto& tested) { return tested.param.name; });

TEST(OtherWriters, AScaleThatIsNoNumberIsDamage) {
  File file = read_file(test::converted("tiny-mistral", kType));
  file.add("blk.0.attn_q.scale", 1, NAN);
  const test::TempFolder folder;
  write_file(folder.file("changed.gguf"), file);
  try {
    load(folder.file("changed.gguf"));
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kIntegrity);
    EXPECT_NE(std::string(e.what()).find("blk.0.attn_q.scale"), std::string::npos) << e.what();
  }
}

TEST(OtherWriters, WindowOfQuernsOwnKeyIsApplied) {
  File file = read_file(test::converted("tiny-mistral", kType));
  file.metadata.set_u32("quern.attention.sliding_window", 2);
  const test::TempFolder folder;
  write_file(folder.file("window.gguf"), file);
  const auto model = load(folder.file("window.gguf"));
  EXPECT_EQ(model->network().attention(0).window, 2u);
  const std::vector<int32_t> ids = {1, 500, 600, 700};
  EXPECT_NE(test::all_logits(*model, ids, 4, 4),
            test::all_logits(*load(test::converted("tiny-mistral", kType)), ids, 4, 4));
}

TEST(OtherWriters, QuantizationVersion1IsRefusedWhereATensorIsQuantized) {
  File file = read_file(test::converted("tiny-mistral", "q4_0"));
  file.metadata.set_u32("general.quantization_version", 1);
  const test::TempFolder folder;
  write_file(folder.file("v1.gguf"), file);
  EXPECT_THROW(load(folder.file("v1.gguf")), Error);
}

TEST(OtherWriters, ZerosAtTheEndAreNamedAtLoad) {
  File file = read_file(test::converted("tiny-mistral", "q4_0"));
  std::vector<uint8_t>& bytes = file.at("blk.1.ffn_up.weight").bytes;
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 2), bytes.end(), uint8_t{0});
  const test::TempFolder folder;
  write_file(folder.file("zeros.gguf"), file);
  load(folder.file("zeros.gguf"));
  const bool heard = std::any_of(notices.begin(), notices.end(), [](const std::string& line) {
    return line.find("blk.1.ffn_up.weight (rows 256 to 511)") != line.npos;
  });
  EXPECT_TRUE(heard) << fmt::format("{}", fmt::join(notices, "\n"));
}

}  // namespace
}  // namespace quern
