// Ids that other programs gave to the same texts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "tests/runtime/tokenizer/vocabulary_files.h"
#include "tests/support/json.h"
#include "tests/support/paths.h"
#include "tests/support/random_text.h"

namespace quern::test {
namespace {

using Ids = std::vector<TokenId>;

// A vocabulary, and the family of golden/bpe_tokens.jsonl whose library it equals.
struct GoldenFamily {
  const char* family;
  const char* file;
  const char* pre_tokenizer = "";  // of a list of ranks
  bool has_all_bytes = true;
};

void PrintTo(const GoldenFamily& golden, std::ostream* out) {
  *out << golden.family << " (" << golden.file << ")";
}

class GoldenFamilies : public testing::TestWithParam<GoldenFamily> {};

void expect_golden_ids(const Tokenizer& tokenizer, const std::string& family) {
  std::ifstream file(test_data("golden/bpe_tokens.jsonl"));
  size_t n_texts = 0;
  for (std::string line; std::getline(file, line);) {
    const Json golden = Json::parse(line);
    if (golden["family"] != family) continue;
    ++n_texts;
    const std::string text = golden["text"];
    // What a user wrote: "<|endoftext|>" is text there.
    const Ids ids = tokenizer.encode(text, TextRole::kMessage);
    EXPECT_EQ(ids, golden["ids"].get<Ids>()) << golden["text"];
    EXPECT_EQ(tokenizer.decode(ids), text);
  }
  EXPECT_EQ(n_texts, 178u);
}

TEST_P(GoldenFamilies, EncodesAsItsOwnLibraryAndDecodesToTheSameText) {
  const auto path = find_vocabulary_file(GetParam().file);
  if (!path) GTEST_SKIP() << how_to_get(GetParam().file);
  expect_golden_ids(*load_tokenizer(*path, GetParam().pre_tokenizer), GetParam().family);
}

// What `convert` writes of a tokenizer that is no GGUF.
TEST_P(GoldenFamilies, EncodesTheSameOutOfAGgufFile) {
  const auto path = find_vocabulary_file(GetParam().file);
  if (!path) GTEST_SKIP() << how_to_get(GetParam().file);
  expect_golden_ids(*make_tokenizer(through_gguf(read_vocabulary_of(*path, GetParam().pre_tokenizer))),
                    GetParam().family);
}

TEST_P(GoldenFamilies, GivesAnyBytesBack) {
  const auto path = find_vocabulary_file(GetParam().file);
  if (!path) GTEST_SKIP() << how_to_get(GetParam().file);
  if (!GetParam().has_all_bytes) GTEST_SKIP() << "the vocabulary has no piece for some bytes";
  const auto tokenizer = load_tokenizer(*path, GetParam().pre_tokenizer);
  std::mt19937 random(11);
  for (int round = 0; round < 200; ++round) {
    const std::string bytes = random_bytes(random, 1 + random() % 200) + random_text(random, 8);
    std::string back;
    for (const TokenId id : tokenizer->encode(bytes, TextRole::kMessage)) back += tokenizer->decoded(id).text;
    EXPECT_EQ(back, bytes);
  }
}

constexpr GoldenFamily kGoldenFamilies[] = {
    {"gpt2", "ggml-vocab-gpt-2.gguf"},
    {"qwen2", "ggml-vocab-qwen2.gguf"},
    {"qwen2", "qwen.tiktoken", "qwen2"},
    {"smollm", "smollm2.gguf", "", false},
    {"tekken", "tekken_240911.json"},
    {"tekken", "tekken_240718.json"},
    {"llama3", "ggml-vocab-llama-bpe.gguf"},
    {"llama3", "llama3/tokenizer.model", "llama-bpe"},
    {"llama4", "llama4/tokenizer.model", "gpt-4o"},
    {"deepseek", "deepseek/tokenizer.json"},
};
INSTANTIATE_TEST_SUITE_P(All, GoldenFamilies, testing::ValuesIn(kGoldenFamilies), [](const auto& suite_info) {
  std::string name = suite_info.param.file;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
  return name;
});

// The pairs of files beside llama.cpp's vocabularies: texts, and their ids by Hugging Face's tokenizers.
class VocabularyPairs : public testing::TestWithParam<const char*> {};

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t at = 0;
  for (size_t next; (next = text.find(separator, at)) != std::string::npos; at = next + separator.size())
    parts.push_back(text.substr(at, next - at));
  if (at < text.size()) parts.push_back(text.substr(at));
  return parts;
}

TEST_P(VocabularyPairs, EncodesEveryTextToTheIdsBesideIt) {
  const std::string name = "ggml-vocab-" + std::string(GetParam()) + ".gguf";
  const auto path = find_vocabulary_file(name);
  if (!path) GTEST_SKIP() << how_to_get(name);
  const auto tokenizer = load_tokenizer(*path);
  const std::vector<std::string> texts = split(read_file(*path + ".inp"), "\n__ggml_vocab_test__\n");
  const std::vector<std::string> lines = split(read_file(*path + ".out"), "\n");
  ASSERT_EQ(texts.size(), lines.size());
  EXPECT_EQ(texts.size(), GetParam() == std::string("qwen35") ? 50u : 46u);
  for (size_t i = 0; i < texts.size(); ++i) {
    Ids expected;
    std::istringstream numbers(lines[i]);
    for (TokenId id; numbers >> id;) expected.push_back(id);
    EXPECT_EQ(tokenizer->encode(texts[i], TextRole::kRaw), expected) << texts[i];
  }
}

INSTANTIATE_TEST_SUITE_P(All, VocabularyPairs,
                         testing::Values("gpt-2", "qwen2", "command-r", "deepseek-coder", "deepseek-llm",
                                         "falcon", "gemma-4", "llama-bpe", "llama-spm", "mpt", "phi-3",
                                         "qwen35", "refact", "starcoder"),
                         [](const auto& suite_info) {
                           std::string name = suite_info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

uint64_t fnv1a(const Ids& ids) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const TokenId id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash ^= static_cast<uint32_t>(id) >> shift & 0xFF;
      hash *= 0x100000001B3u;
    }
  }
  return hash;
}

// llama.cpp's llama-tokenize gives these ids too: 309,187, with the SHA-256
// b8586d3a07fd2b8218954d3d500a544fdab59baebeded5a7418b3010ef4d80a2 as little-endian u32. The last newline
// counts.
TEST(SmolLm2, EncodesWikiTextIdForId) {
  const auto tokenizer = load_tokenizer(*find_vocabulary_file("smollm2.gguf"));
  const std::string text = read_file(*find_vocabulary_file("wikitext2-test.txt"));
  const Ids ids = tokenizer->encode(text, TextRole::kRaw);
  EXPECT_EQ(ids.size(), 309187u);
  EXPECT_EQ(fnv1a(ids), 0xE37583ABB572B062u);
  EXPECT_EQ(tokenizer->decode(ids), text);
}

// llama.cpp's converter wrote that file from Hugging Face's form of the same list of ranks.
TEST(Llama3, MergesOfItsRanksAreThoseOfLlamaCppsFile) {
  const auto ranks = find_vocabulary_file("llama3/tokenizer.model");
  const auto gguf = find_vocabulary_file("ggml-vocab-llama-bpe.gguf");
  if (!ranks || !gguf) GTEST_SKIP() << how_to_get("llama3/tokenizer.model");
  const Vocabulary ours = read_vocabulary_of(*ranks, "llama-bpe"), theirs = read_vocabulary_of(*gguf);
  EXPECT_EQ(ours.byte_pairs().merges, theirs.byte_pairs().merges);
  EXPECT_TRUE(std::equal(ours.pieces.begin(), ours.pieces.end(), theirs.pieces.begin()));
}

}  // namespace
}  // namespace quern::test
