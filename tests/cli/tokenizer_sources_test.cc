// Tokenizers of every kind, through the commands: known by what is in them, whatever they are called.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;

// A tokenizer.json of `n` pieces: "a", "b", "ab", fillers, and "<end>" last.
Json tokenizer_json(size_t n) {
  Json vocab = Json::object({{"a", 0}, {"b", 1}, {"ab", 2}});
  for (size_t id = 3; id + 1 < n; ++id) vocab.add("filler" + std::to_string(id), id);
  return Json::object(
      {{"version", "1.0"},
       {"added_tokens",
        Json::array({Json::object({{"id", n - 1}, {"content", "<end>"}, {"special", true}})})},
       {"normalizer", {}},
       {"post_processor", {}},
       {"pre_tokenizer",
        Json::object({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}})},
       {"model",
        Json::object(
            {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array({Json::array({"a", "b"})})}})}});
}

constexpr char kRanks[] = "YQ== 0\nYg== 1\nYWI= 2\n";

Json ids_of(const ProcessResult& result) {
  return result.exit_code == 0 ? Json::parse(result.out)["ids"] : Json(describe(result));
}

TEST(TokenizerSources, AreTakenByTheirContent) {
  const TempFolder folder;
  const std::string path = folder.write("tokenizer.model.v3", tokenizer_json(8).dump());
  EXPECT_EQ(ids_of(quern({"tokenize", path, "--json", "-p", "aba"})), Json::array({2, 0}));
  EXPECT_EQ(ids_of(quern({"tokenize", path, "--json", "-p", "a<end>"})), Json::array({0}));
  EXPECT_EQ(ids_of(quern({"tokenize", path, "--json", "--parse-special", "-p", "a<end>"})),
            Json::array({0, 7}));
}

TEST(TokenizerSources, ListOfRanksNeedsAPreTokenizer) {
  const TempFolder folder;
  const std::string path = folder.write("tokenizer.model", kRanks);
  const ProcessResult result = quern({"tokenize", path, "-p", "ab"});
  EXPECT_EQ(result.exit_code, 1) << describe(result);
  EXPECT_NE(result.err.find("--pre NAME"), std::string::npos) << describe(result);
  EXPECT_EQ(ids_of(quern({"tokenize", path, "--pre", "qwen2", "--json", "-p", "abb"})), Json::array({2, 1}));
}

TEST(TokenizerSources, FolderAddsWhatItsOtherFilesSay) {
  const TempFolder folder;
  folder.write("qwen.tiktoken", kRanks);
  folder.write("tokenizer_config.json", R"({"eos_token": "<|end|>", "added_tokens_decoder": {
    "3": {"content": "<|end|>", "special": true}}})");
  const std::string path = folder.path().string();
  EXPECT_EQ(
      ids_of(quern({"tokenize", path, "--pre", "qwen2", "--json", "--parse-special", "-p", "ab<|end|>"})),
      Json::array({2, 3}));
}

TEST(TokenizerSources, ConvertWritesATokenizerJsonAsTheFieldReadsIt) {
  const TempFolder folder;
  const fs::path source = folder.path() / "checkpoint";
  fs::copy(test_data("stories260k"), source);
  fs::remove(source / "tokenizer.model");
  folder.write("checkpoint/tokenizer.json", tokenizer_json(512).dump());
  folder.write("checkpoint/tokenizer_config.json", R"({"eos_token": "<end>"})");
  const std::string out = folder.file("out.gguf");
  const ProcessResult result = quern({"convert", source.string(), "-o", out, "--type", "f32"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(ids_of(quern({"tokenize", out, "--json", "--parse-special", "-p", "aba<end>"})),
            Json::array({2, 0, 511}));
  const ProcessResult run = quern({"run", out, "-p", "ab", "-n", "2", "--temp", "0"});
  EXPECT_EQ(run.exit_code, 0) << describe(run);
}

}  // namespace
}  // namespace quern::test
