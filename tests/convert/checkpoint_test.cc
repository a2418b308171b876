#include "convert/checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/checkpoints.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::safetensors_file;
using test::TempFolder;
using test::TestTensor;

const std::string kConfig =
    R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12,)"
    R"( "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 5,)"
    R"( "max_position_embeddings": 16, "rms_norm_eps": 1e-05})";

TestTensor tensor(const std::string& name, const Shape& shape) {
  size_t n = 1;
  for (const uint64_t d : shape) n *= d;
  return {name, "BF16", shape, std::string(2 * n, '\x3c')};
}

std::vector<TestTensor> all_tensors() {
  const std::string layer = "model.layers.0.";
  return {tensor("model.embed_tokens.weight", {5, 8}),
          tensor("lm_head.weight", {5, 8}),
          tensor("model.norm.weight", {8}),
          tensor(layer + "input_layernorm.weight", {8}),
          tensor(layer + "self_attn.q_proj.weight", {8, 8}),
          tensor(layer + "self_attn.k_proj.weight", {4, 8}),
          tensor(layer + "self_attn.v_proj.weight", {4, 8}),
          tensor(layer + "self_attn.o_proj.weight", {8, 8}),
          tensor(layer + "post_attention_layernorm.weight", {8}),
          tensor(layer + "mlp.gate_proj.weight", {12, 8}),
          tensor(layer + "mlp.up_proj.weight", {12, 8}),
          tensor(layer + "mlp.down_proj.weight", {8, 12})};
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::vector<TestTensor> without(std::vector<TestTensor> tensors, const std::string& name) {
  EXPECT_EQ(std::erase_if(tensors, [&](const TestTensor& t) { return t.name == name; }), 1u);
  return tensors;
}

std::vector<TestTensor> with(std::vector<TestTensor> tensors, TestTensor extra) {
  std::erase_if(tensors, [&](const TestTensor& t) { return t.name == extra.name; });
  tensors.push_back(std::move(extra));
  return tensors;
}

// A folder with a single file.
void write_single(const TempFolder& folder, const std::vector<TestTensor>& tensors,
                  const std::string& config = kConfig) {
  folder.write("model.safetensors", safetensors_file(tensors));
  folder.write("config.json", config);
}

// Two shards and an index; `edit` may change its text.
void write_shards(
    const TempFolder& folder,
    const std::function<std::string(std::string)>& edit = [](const std::string& s) { return s; }) {
  const std::vector<TestTensor> tensors = all_tensors();
  const auto middle = tensors.begin() + 5;
  folder.write("model-00001-of-00002.safetensors", safetensors_file({tensors.begin(), middle}));
  folder.write("model-00002-of-00002.safetensors", safetensors_file({middle, tensors.end()}));
  size_t total = 0;
  std::string map;
  for (const TestTensor& t : tensors) {
    const bool first = &t < &*middle;
    map += (map.empty() ? "" : ", ") + ("\"" + t.name + "\": \"model-0000") + (first ? "1" : "2") +
           "-of-00002.safetensors\"";
    total += t.bytes.size();
  }
  folder.write(
      "model.safetensors.index.json",
      edit("{\"metadata\": {\"total_size\": " + std::to_string(total) + "}, \"weight_map\": {" + map + "}}"));
  folder.write("config.json", kConfig);
}

std::vector<std::string> notices;
void remember(std::string_view line) { notices.emplace_back(line); }

Checkpoint open(const TempFolder& folder) {
  notices.clear();
  return open_checkpoint(folder.path().string(), remember);
}

std::string error_of(const TempFolder& folder) {
  try {
    open(folder);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kMalformed);
    return e.what();
  }
  return "accepted";
}

void expect_error(const TempFolder& folder, const std::vector<std::string>& parts) {
  const std::string error = error_of(folder);
  for (const std::string& part : parts) EXPECT_NE(error.find(part), std::string::npos) << error;
}

TEST(Checkpoint, OpensASingleFileInTheOrderOfGguf) {
  const TempFolder folder;
  write_single(folder, all_tensors());
  const Checkpoint checkpoint = open(folder);
  EXPECT_TRUE(notices.empty());
  EXPECT_EQ(checkpoint.layout, CheckpointLayout::kHuggingFace);
  std::vector<std::string> names;
  for (const CheckpointTensor& t : checkpoint.tensors) names.push_back(t.declared.gguf);
  EXPECT_EQ(names, (std::vector<std::string>{
                       "output.weight", "output_norm.weight", "token_embd.weight", "blk.0.attn_k.weight",
                       "blk.0.attn_norm.weight", "blk.0.attn_output.weight", "blk.0.attn_q.weight",
                       "blk.0.attn_v.weight", "blk.0.ffn_down.weight", "blk.0.ffn_gate.weight",
                       "blk.0.ffn_norm.weight", "blk.0.ffn_up.weight"}));
  EXPECT_EQ(checkpoint.tensors[3].declared.permuted_heads, 2u);
  EXPECT_EQ(checkpoint.tensors[6].declared.permuted_heads, 4u);
  EXPECT_EQ(checkpoint.tensors[7].declared.permuted_heads, 0u);
  EXPECT_EQ(checkpoint.tensors[8].view.shape, (Shape{8, 12}));
}

TEST(Checkpoint, BlocksAreOrderedByNumberNotByText) {
  EXPECT_TRUE(gguf_tensor_less("blk.2.ffn_up.weight", "blk.10.attn_k.weight"));
  EXPECT_TRUE(gguf_tensor_less("token_embd.weight", "blk.0.attn_k.weight"));
  EXPECT_FALSE(gguf_tensor_less("blk.3.a", "blk.3.a"));
}

TEST(Checkpoint, OpensShards) {
  const TempFolder folder;
  write_shards(folder);
  const Checkpoint checkpoint = open(folder);
  EXPECT_TRUE(notices.empty());
  EXPECT_EQ(checkpoint.files.files.size(), 2u);
  EXPECT_EQ(checkpoint.tensors.size(), 12u);
}

TEST(Checkpoint, MissingFilesAreNamed) {
  const TempFolder folder;
  expect_error(folder, {"model.safetensors", "consolidated"});
  folder.write("model.safetensors", safetensors_file(all_tensors()));
  expect_error(folder, {"config.json"});
  const TempFolder shards;
  write_shards(shards);
  fs::remove(shards.file("model-00002-of-00002.safetensors"));
  expect_error(shards, {"model-00002-of-00002.safetensors: file is missing"});
}

TEST(Checkpoint, HuggingFaceWinsAndItSaysSo) {
  const TempFolder folder;
  write_single(folder, all_tensors());
  folder.write("consolidated.safetensors", "not even read");
  folder.write("params.json", "not even read");
  EXPECT_EQ(error_of(folder), "accepted");
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("consolidated.safetensors"), std::string::npos);
}

TEST(Checkpoint, LayoutIsDecidedByNamesNotByFiles) {
  const TempFolder folder;
  folder.write("consolidated.safetensors", safetensors_file(all_tensors()));
  folder.write("params.json", R"({"dim": 8, "n_layers": 1, "head_dim": 2, "hidden_dim": 12, "n_heads": 4,)"
                              R"( "n_kv_heads": 2, "norm_eps": 1e-05, "vocab_size": 5})");
  const Checkpoint checkpoint = open(folder);
  EXPECT_EQ(checkpoint.layout, CheckpointLayout::kHuggingFace);
  EXPECT_EQ(checkpoint.files.dialect, ConfigDialect::kMistral);
}

TEST(Checkpoint, ForeignNamesAreRefused) {
  const TempFolder folder;
  write_single(folder, {tensor("transformer.wte.weight", {5, 8})});
  expect_error(folder, {"model.embed_tokens.weight", "tok_embeddings.weight"});
}

TEST(Checkpoint, NamesOfAModuleAroundTheModelAreRefusedAsSuch) {
  std::vector<TestTensor> tensors = all_tensors();
  for (TestTensor& t : tensors) t.name.insert(0, "_orig_mod.");
  TempFolder folder;
  folder.write("config.json", kConfig);
  folder.write("model.safetensors", safetensors_file(tensors));
  const std::string error = error_of(folder);
  EXPECT_NE(error.find("'_orig_mod.model.embed_tokens.weight', expected model.embed_tokens.weight"),
            std::string::npos)
      << error;
  EXPECT_NE(error.find("put '_orig_mod.' before its names"), std::string::npos) << error;
}

TEST(Checkpoint, IndexAndShardsMustAgree) {
  struct Case {
    std::string from, to;
    std::vector<std::string> expected;
  };
  const std::vector<Case> cases = {
      {"weight_map", "weights", {"index.json", "weight_map"}},
      {"\"model.norm.weight\": \"", "\"model.norm.weight\": \"../", {"shard name"}},
      {"\"model.norm.weight\": \"", "\"model.norm.weight\": \"/tmp/", {"shard name"}},
      {"\"model.norm.weight\": \"model-00001-of-00002.safetensors\"",
       "\"model.norm.weight\": \"..\"",
       {"shard name"}},
      {"\"model.norm.weight\": \"", "\"model.norm.weight\": \"\\u001b[31m", {"shard name", "\\x1B[31m"}},
      {"\"model.norm.weight\": \"", "\"model.norm.weight\": \"\\u202e", {"shard name", "\\xE2\\x80\\xAE"}},
      {"\"model.norm.weight\": \"model-00001-of-00002.safetensors\"",
       "\"model.norm.weight\": 1",
       {"shard name"}},
      {"\"model.norm.weight\": \"model-00001", "\"model.norm.weight\": \"model-00002", {"model.norm.weight"}},
      {"\"weight_map\": {",
       "\"weight_map\": {\"model.layers.9.x\": \"model-00001-of-00002.safetensors\", ",
       {"model.layers.9.x"}},
  };
  for (const Case& c : cases) {
    const TempFolder folder;
    write_shards(folder, [&](const std::string& text) { return replaced(text, c.from, c.to); });
    expect_error(folder, c.expected);
  }
}

TEST(Checkpoint, FileNamesThatWouldMisleadATerminalAreRefused) {
  const TempFolder folder;
  folder.write("consolidated.\x1b[31m.safetensors", safetensors_file(all_tensors()));
  expect_error(folder, {"bad file name 'consolidated.\\x1B[31m.safetensors'"});
}

TEST(Checkpoint, WrongTotalSizeIsAWarning) {
  const TempFolder folder;
  write_shards(folder,
               [](const std::string& text) { return replaced(text, "total_size\": ", "total_size\": 9"); });
  EXPECT_EQ(error_of(folder), "accepted");
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("total_size"), std::string::npos);
}

TEST(Checkpoint, TensorInTwoShardsIsRefused) {
  const TempFolder folder;
  write_shards(folder);
  folder.write("model-00002-of-00002.safetensors", safetensors_file(all_tensors()));
  expect_error(folder, {"duplicate tensor", "model-00001-of-00002.safetensors"});
}

TEST(Checkpoint, PlaceholdersOfDownloadsAreNamed) {
  const TempFolder folder;
  write_shards(folder);
  folder.write("model-00002-of-00002.safetensors",
               "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
  expect_error(folder, {"model-00002-of-00002.safetensors", "git-lfs"});
  write_shards(folder);
  folder.write("config.json", "<html></html>");
  expect_error(folder, {"config.json", "HTML"});
}

TEST(Checkpoint, EveryTensorMustBeThere) {
  for (const TestTensor& t : all_tensors()) {
    const TempFolder folder;
    write_single(folder, without(all_tensors(), t.name));
    expect_error(folder, {t.name});
  }
}

TEST(Checkpoint, MissingLayerPointsAtTheirNumber) {
  const TempFolder folder;
  write_single(folder, all_tensors(), replaced(kConfig, "num_hidden_layers\": 1", "num_hidden_layers\": 2"));
  expect_error(folder, {"model.layers.1.", "num_hidden_layers = 2"});
}

TEST(Checkpoint, TensorsThatMayChangeTheFunctionAreRefusedByName) {
  for (const char* name :
       {"model.layers.0.input_layernorm.bias", "model.layers.0.self_attn.q_norm.weight",
        "model.layers.1.mlp.up_proj.weight", "lm_head.bias", "my_freqs_cis", "model.scores.weight"}) {
    const TempFolder folder;
    write_single(folder, with(all_tensors(), tensor(name, {8})));
    expect_error(folder, {"unknown tensor", name});
  }
}

TEST(Checkpoint, TensorsThatCannotChangeTheFunctionAreNamedAndLeftOut) {
  for (const char* name :
       {"rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.original_inv_freq", "model.layers.0.self_attn.rotary_emb.cos_cached",
        "model.layers.0.self_attn.rotary_emb.sin_cached", "rope.freqs", "freqs_cis",
        "model.layers.0.self_attn.masked_bias", "model.layers.0.self_attn.bias", "model.position_ids",
        "v_head.summary.weight", "model.v_head.bias", "score.weight",
        "model.layers.0.self_attn.core_attention._extra_state"}) {
    const TempFolder folder;
    write_single(folder, with(all_tensors(), tensor(name, {8})));
    const Checkpoint checkpoint = open(folder);
    EXPECT_EQ(checkpoint.tensors.size(), 12u);
    ASSERT_EQ(checkpoint.unwritten.size(), 1u) << name;
    EXPECT_EQ(checkpoint.unwritten[0].name, name);
    EXPECT_EQ(checkpoint.unwritten[0].file, "model.safetensors");
    ASSERT_EQ(notices.size(), 1u);
    EXPECT_NE(notices[0].find(std::string("not written: ") + name), std::string::npos) << notices[0];
  }
}

// Only where the configuration says that there are any, and not beyond those.
TEST(Checkpoint, LayersThatGuessFurtherTokensAreLeftOut) {
  const std::string guessing = replaced(kConfig, "\"num_hidden_layers\": 1",
                                        "\"num_hidden_layers\": 1, \"num_nextn_predict_layers\": 2");
  const TempFolder folder;
  for (const char* name : {"model.layers.1.eh_proj.weight", "model.layers.2.mlp.up_proj.weight"}) {
    write_single(folder, with(all_tensors(), tensor(name, {8})), guessing);
    EXPECT_EQ(open(folder).tensors.size(), 12u);
    ASSERT_EQ(notices.size(), 1u) << name;
    EXPECT_NE(notices[0].find("guesses further tokens"), std::string::npos) << notices[0];
    write_single(folder, with(all_tensors(), tensor(name, {8})));
    expect_error(folder, {"unknown tensor", name});
  }
  for (const char* name :
       {"model.layers.3.eh_proj.weight", "model.layers.0.eh_proj.weight", "model.layers.1"}) {
    write_single(folder, with(all_tensors(), tensor(name, {8})), guessing);
    expect_error(folder, {"unknown tensor", name});
  }
}

TEST(Checkpoint, OneNoticeNamesTheSameTensorOfEveryLayer) {
  const TempFolder folder;
  std::vector<TestTensor> tensors = all_tensors();
  for (const int layer : {0, 1, 10})
    tensors.push_back(
        tensor("model.layers." + std::to_string(layer) + ".self_attn.rotary_emb.inv_freq", {1}));
  write_single(folder, tensors);
  EXPECT_EQ(open(folder).unwritten.size(), 3u);
  EXPECT_EQ(notices,
            std::vector<std::string>{"not written: 3 tensors model.layers.*.self_attn.rotary_emb.inv_freq "
                                     "(computed, not stored)"});
}

TEST(Checkpoint, TensorsLeftOutForOneReasonAreEachNamed) {
  const TempFolder folder;
  write_single(folder, with(with(all_tensors(), tensor("model.rotary_emb.inv_freq", {1})),
                            tensor("model.rotary_emb.original_inv_freq", {1})));
  EXPECT_EQ(open(folder).unwritten.size(), 2u);
  EXPECT_EQ(notices, (std::vector<std::string>{
                         "not written: model.rotary_emb.inv_freq (computed, not stored)",
                         "not written: model.rotary_emb.original_inv_freq (computed, not stored)"}));
}

TEST(Checkpoint, BiasesCountUnlessTheyAreZero) {
  TestTensor bias = tensor("model.layers.0.input_layernorm.bias", {8});
  const std::string biased = replaced(kConfig, "{", "{\"attention_bias\": true, ");
  for (const std::string& config : {kConfig, biased}) {
    const TempFolder folder;
    bias.bytes.assign(16, '\0');
    bias.bytes[1] = '\x80';  // -0
    write_single(folder, with(all_tensors(), bias), config);
    EXPECT_EQ(error_of(folder), "accepted");
    EXPECT_NE(notices.at(0).find("input_layernorm.bias (a bias of zeros)"), std::string::npos);
    bias.bytes[15] = '\x01';
    write_single(folder, with(all_tensors(), bias), config);
    expect_error(folder, {"unknown tensor", "input_layernorm.bias"});
  }
  const TempFolder folder;
  write_single(folder, all_tensors(), biased);
  expect_error(folder, {"attention_bias = true", "no bias is in the folder"});
}

TEST(Checkpoint, TiedModelLeavesOutACopyOfItsEmbedding) {
  const std::string tied = replaced(kConfig, "{", "{\"tie_word_embeddings\": true, ");
  for (const bool present : {true, false}) {
    const TempFolder folder;
    write_single(folder, present ? all_tensors() : without(all_tensors(), "lm_head.weight"), tied);
    const Checkpoint checkpoint = open(folder);
    EXPECT_TRUE(checkpoint.config.tied);
    EXPECT_EQ(checkpoint.tensors.size(), 11u);
    EXPECT_EQ(checkpoint.tensors.front().declared.gguf, "output_norm.weight");
    EXPECT_EQ(checkpoint.unwritten.size(), present ? 1u : 0u);
    EXPECT_EQ(notices.size(), present ? 1u : 0u);
  }
}

TEST(Checkpoint, TiedModelKeepsAnOutputMatrixOfItsOwn) {
  const std::string tied = replaced(kConfig, "{", "{\"tie_word_embeddings\": true, ");
  TestTensor head = tensor("lm_head.weight", {5, 8});
  head.bytes.back() ^= 1;
  const TempFolder folder;
  write_single(folder, with(all_tensors(), head), tied);
  const Checkpoint checkpoint = open(folder);
  EXPECT_FALSE(checkpoint.config.tied);
  EXPECT_EQ(checkpoint.tensors.front().declared.gguf, "output.weight");
  EXPECT_TRUE(checkpoint.unwritten.empty());
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("lm_head.weight differs from model.embed_tokens.weight"), std::string::npos)
      << notices[0];
}

TEST(Checkpoint, IndexMayNameWhatNoModelNeeds) {
  const TempFolder folder;
  write_shards(folder, [](const std::string& text) {
    return replaced(text, "\"weight_map\": {",
                    "\"weight_map\": {\"model.layers.0.self_attn.rotary_emb.inv_freq\": "
                    "\"model-00001-of-00002.safetensors\", ");
  });
  EXPECT_EQ(error_of(folder), "accepted");
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("inv_freq"), std::string::npos);
}

TEST(Checkpoint, TensorThatTheIndexLeavesOutCountsAllTheSame) {
  const TempFolder folder;
  write_shards(folder, [](const std::string& text) {
    return replaced(text, "\"model.norm.weight\": \"model-00001-of-00002.safetensors\", ", "");
  });
  EXPECT_EQ(open(folder).tensors.size(), 12u);
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("does not name tensor 'model.norm.weight'"), std::string::npos) << notices[0];
}

TEST(Checkpoint, OpensNumberedShardsWithoutAnIndex) {
  const TempFolder folder;
  write_shards(folder);
  fs::remove(folder.file("model.safetensors.index.json"));
  EXPECT_EQ(open(folder).tensors.size(), 12u);
  EXPECT_TRUE(notices.empty());
  fs::remove(folder.file("model-00002-of-00002.safetensors"));
  expect_error(folder, {"model-00002-of-00002.safetensors: file is missing"});
}

TEST(Checkpoint, TakesTheCompleteOneOfTwoCheckpoints) {
  const TempFolder folder;
  write_shards(folder);
  fs::remove(folder.file("model-00002-of-00002.safetensors"));
  folder.write("consolidated.safetensors", safetensors_file(all_tensors()));
  folder.write("params.json", R"({"dim": 8, "n_layers": 1, "head_dim": 2, "hidden_dim": 12, "n_heads": 4,)"
                              R"( "n_kv_heads": 2, "norm_eps": 1e-05, "vocab_size": 5})");
  const Checkpoint checkpoint = open(folder);
  EXPECT_EQ(checkpoint.files.dialect, ConfigDialect::kMistral);
  ASSERT_EQ(notices.size(), 2u);
  EXPECT_NE(notices[0].find("model-00002-of-00002.safetensors: file is missing"), std::string::npos)
      << notices[0];
  EXPECT_EQ(checkpoint.files.unread, std::vector<std::string>{"model-00001-of-00002.safetensors"});
}

TEST(Checkpoint, FilesThatAreNotReadAreNamed) {
  const TempFolder folder;
  write_shards(folder);
  folder.write("model-fp16.safetensors", "not even read");
  EXPECT_EQ(open(folder).files.unread, std::vector<std::string>{"model-fp16.safetensors"});
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("model-fp16.safetensors beside it is ignored"), std::string::npos) << notices[0];
}

// transformers would apply it: whoever expects that must hear of it.
TEST(Checkpoint, AnAdapterBesideTheModelIsNamed) {
  const TempFolder folder;
  write_single(folder, all_tensors());
  folder.write("adapter_model.safetensors", "not even read");
  EXPECT_EQ(open(folder).files.unread, std::vector<std::string>{"adapter_model.safetensors"});
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("adapter_model.safetensors beside it is ignored"), std::string::npos)
      << notices[0];
}

TEST(Checkpoint, DimensionsOfOneAtTheEndsSayNothing) {
  const TempFolder folder;
  write_single(folder, with(with(all_tensors(), tensor("model.norm.weight", {1, 8})),
                            tensor("model.layers.0.mlp.up_proj.weight", {12, 8, 1})));
  const Checkpoint checkpoint = open(folder);
  EXPECT_EQ(checkpoint.tensors.size(), all_tensors().size());
  for (const CheckpointTensor& t : checkpoint.tensors) EXPECT_EQ(t.view.shape, t.declared.shape);
}

TEST(Checkpoint, ShapesAndTypesAreChecked) {
  const TempFolder folder;
  write_single(folder, with(all_tensors(), tensor("model.layers.0.mlp.up_proj.weight", {8, 12})));
  expect_error(folder,
               {"up_proj", "expected shape [12, 8] = [intermediate_size, hidden_size]", "found [8, 12]"});
  write_single(folder, with(all_tensors(), {"model.norm.weight", "F64", {8}, std::string(64, '\0')}));
  expect_error(folder, {"model.norm.weight", "dtype F64"});
  write_single(folder, all_tensors(), replaced(kConfig, "vocab_size\": 5", "vocab_size\": 6"));
  expect_error(folder, {"vocab_size"});
}

// As Gemma 3, Mistral 3 and Qwen3.5 are published.
TEST(Checkpoint, OfImagesTooGivesItsTextPart) {
  for (const char* prefixes : {"language_model.model.|language_model.", "model.language_model.|"}) {
    const std::string both = prefixes;
    const std::string model = both.substr(0, both.find('|')), head = both.substr(both.find('|') + 1);
    std::vector<TestTensor> tensors = all_tensors();
    for (TestTensor& t : tensors)
      t.name = t.name.starts_with("model.") ? model + t.name.substr(6) : head + t.name;
    tensors.push_back(tensor("vision_tower.layers.0.weight", {3, 3}));
    tensors.push_back(tensor("model.multi_modal_projector.linear.weight", {3, 3}));
    const TempFolder folder;
    write_single(
        folder, tensors,
        R"({"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",)"
        R"( "vision_config": {"hidden_size": 3}, "tie_word_embeddings": false, "text_config": )" +
            replaced(kConfig, R"("architectures": ["LlamaForCausalLM"])", R"("model_type": "llama")") + "}");
    const Checkpoint checkpoint = open(folder);
    EXPECT_EQ(checkpoint.tensors.size(), all_tensors().size()) << model;
    EXPECT_EQ(checkpoint.unwritten.size(), 2u) << model;
    EXPECT_TRUE(std::any_of(notices.begin(), notices.end(), [](const std::string& line) {
      return line.find("images and sound are left out") != std::string::npos;
    }));
  }
}

TEST(Checkpoint, OfImagesTooMayNotHoldATensorTwice) {
  const TempFolder folder;
  write_single(folder, with(all_tensors(), tensor("language_model.model.norm.weight", {8})),
               R"({"text_config": )" + kConfig + "}");
  EXPECT_NE(error_of(folder).find("holds a 'model.norm.weight' already"), std::string::npos);
}

// As GPT-2 is published: from the time before models had a head, with the masks of attention beside it.
TEST(Checkpoint, SavedWithoutTheModuleAroundItHasTheSameTensors) {
  const std::string layer = "h.0.";
  std::vector<TestTensor> tensors = {tensor("wte.weight", {5, 8}), tensor("wpe.weight", {16, 8}),
                                     tensor(layer + "attn.bias", {1, 1, 16, 16})};
  const std::pair<const char*, Shape> pairs[] = {{"ln_1", {8}},           {"attn.c_attn", {8, 24}},
                                                 {"attn.c_proj", {8, 8}}, {"ln_2", {8}},
                                                 {"mlp.c_fc", {8, 32}},   {"mlp.c_proj", {32, 8}}};
  for (const auto& [name, shape] : pairs) {
    tensors.push_back(tensor(layer + name + ".weight", shape));
    tensors.push_back(tensor(layer + name + ".bias", {shape.back()}));
  }
  tensors.push_back(tensor("ln_f.weight", {8}));
  tensors.push_back(tensor("ln_f.bias", {8}));
  const std::string config =
      R"({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",)"
      R"( "n_embd": 8, "n_head": 2, "n_layer": 1, "n_ctx": 16, "n_positions": 16, "vocab_size": 5,)"
      R"( "layer_norm_epsilon": 1e-05, "task_specific_params": {"text-generation": {"do_sample": true}}})";
  const TempFolder folder;
  write_single(folder, tensors, config);
  const Checkpoint checkpoint = open(folder);
  EXPECT_EQ(checkpoint.tensors.size(), tensors.size() - 1);
  ASSERT_EQ(checkpoint.unwritten.size(), 1u);
  EXPECT_EQ(checkpoint.unwritten[0].name, "transformer.h.0.attn.bias");
  // Names of both kinds are not one model's.
  tensors.push_back(tensor("transformer.wte.weight", {5, 8}));
  write_single(folder, tensors, config);
  expect_error(folder, {"is missing"});
}

}  // namespace
}  // namespace quern
