#include "runtime/tokenizer/word_splitter.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <set>
#include <string>

#include "quant/error.h"
#include "tests/support/json.h"
#include "tests/support/paths.h"
#include "tests/support/random_text.h"

namespace quern::test {
namespace {

std::vector<std::string_view> words_of(const PreTokenizer& row, std::string_view text) {
  std::vector<std::string_view> words;
  WordSplitter(row).split(text, &words);
  return words;
}

std::vector<std::string_view> words_of(std::string_view name, std::string_view text) {
  return words_of(*find_pre_tokenizer(name), text);
}

using Words = std::vector<std::string_view>;

TEST(PreTokenizers, AreFoundByNameAndAliasAndStandOnce) {
  std::set<std::string_view> names;
  for (const PreTokenizer& row : pre_tokenizers()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_EQ(find_pre_tokenizer(row.name), &row);
    for (const std::string_view alias : row.aliases) {
      EXPECT_TRUE(names.insert(alias).second) << alias;
      EXPECT_EQ(find_pre_tokenizer(alias), &row);
    }
  }
  EXPECT_EQ(find_pre_tokenizer("no-such-name"), nullptr);
  EXPECT_EQ(find_pre_tokenizer(""), nullptr);
}

TEST(PreTokenizers, KnowTheNamesOfTheField) {
  for (const char* const name :
       {"default",      "gpt-2",         "llama-bpe",        "llama3",  "llama-v3",    "qwen2",
        "qwen35",       "smollm",        "tekken",           "gpt-4o",  "llama4",      "falcon",
        "falcon3",      "mpt",           "starcoder",        "refact",  "command-r",   "olmo",
        "stablelm2",    "phi-2",         "exaone",           "exaone4", "glm4",        "lfm2",
        "seed-coder",   "chatglm-bpe",   "deepseek-r1-qwen", "gemma4",  "deepseek-v3", "granite-docling",
        "deepseek-llm", "deepseek-coder"})
    EXPECT_NE(find_pre_tokenizer(name), nullptr) << name;
}

// Written by tokenizers 0.23 from the definitions in the models' tokenizer.json.
TEST(WordSplitter, CutsAsHuggingFacesTokenizersDo) {
  std::ifstream file(test_data("golden/word_splits.jsonl"));
  size_t n_texts = 0;
  for (std::string line; std::getline(file, line); ++n_texts) {
    const Json golden = Json::parse(line);
    const std::string text = golden["text"];
    for (const auto& [name, lengths] : golden["word_bytes"].members()) {
      std::vector<size_t> found;
      for (const std::string_view word : words_of(name, text)) found.push_back(word.size());
      EXPECT_EQ(found, lengths.get<std::vector<size_t>>()) << name << ": " << golden["text"];
    }
  }
  EXPECT_EQ(n_texts, 250u);
}

TEST(WordSplitter, LosesNothingOfAnyText) {
  std::mt19937 random(7);
  for (const PreTokenizer& row : pre_tokenizers()) {
    for (int n = 0; n < 50; ++n) {
      const std::string text = random_text(random, 40);
      std::string joined;
      for (const std::string_view word : words_of(row, text)) {
        EXPECT_FALSE(word.empty());
        joined += word;
      }
      EXPECT_EQ(joined, text) << row.name;
    }
  }
}

// What is known of ASCII without running a pattern is what the pattern says.
TEST(WordSplitter, KnowsAsciiWordsAsThePatternsDo) {
  const std::vector<std::string> parts = {
      " ",    " ", "  ",      "a",      "b",   "Z", "is", "Word",   "USA",    "iPhone", "'",  "'s", "'S",
      "'ll",  ".", ",",       "<",      "@-@", "_", "/",  "1",      "234",    "\n",     "\r", "\t", "\x01",
      "\x7F", "é", "e\u0301", "\u017F", "ǅ",   "ʰ", "你", "\u00A0", "\u2028", "…",      "٣",  "½",  "K"};
  std::mt19937 random(11);
  for (const PreTokenizer& row : pre_tokenizers()) {
    std::vector<SplitStep> steps(row.steps.begin(), row.steps.end());
    for (SplitStep& step : steps) step.ascii_words = AsciiWords::kNone;
    PreTokenizer patterns_alone = row;
    patterns_alone.steps = steps;
    const WordSplitter splitter(row), reference(patterns_alone);
    for (int n = 0; n < 2'000; ++n) {
      std::string text;
      for (size_t i = 1 + random() % 12; i > 0; --i) text += parts[random() % parts.size()];
      std::vector<std::string_view> words, expected;
      splitter.split(text, &words);
      reference.split(text, &expected);
      ASSERT_EQ(words, expected) << row.name << ": " << text;
    }
  }
}

// U+180E was white space until Unicode 6.3, and is to PCRE2.
TEST(WordSplitter, TakesWhiteSpaceForWhatUnicodeTakesForIt) {
  EXPECT_EQ(words_of("gpt-2", "a\u180E\u180Eb"), (Words{"a", "\u180E\u180E", "b"}));
  EXPECT_EQ(words_of("gpt-2", "a\u0085\u0085b"), (Words{"a", "\u0085", "\u0085", "b"}));
  EXPECT_EQ(words_of("gpt-2", "a \u180Eb"), (Words{"a", " \u180E", "b"}));
  EXPECT_EQ(with_white_space_of_unicode(R"(\\s[^\s\p{L}]\S)").find(R"(\\s[^\x09)"), 0u);
}

// U+017F is an s without regard to case, for tiktoken and tokenizers too.
TEST(WordSplitter, FoldsTheLongS) {
  EXPECT_EQ(words_of("llama-bpe", "it'\u017F so"), (Words{"it", "'\u017F", " so"}));
  EXPECT_EQ(words_of("gpt-2", "it'\u017F so"), (Words{"it", "'", "\u017F", " so"}));
}

TEST(WordSplitter, CutsFalconsBytesInsideACharacter) {
  EXPECT_EQ(words_of("falcon", "a\u00BD1234"), (Words{"a", "\xC2", "\xBD", "123", "4"}));
}

TEST(WordSplitter, TakesTimeInProportionToTheText) {
  for (const PreTokenizer& row : pre_tokenizers()) {
    for (const char* const unit : {"a", "A", " ", "\n", "1", "'", "\u6F22", "\u0301", " a", "Aa", "\t \n"}) {
      std::string text;
      while (text.size() < 200'000) text += unit;
      size_t bytes = 0;
      for (const std::string_view word : words_of(row, text)) bytes += word.size();
      EXPECT_EQ(bytes, text.size()) << row.name;
    }
  }
}

}  // namespace
}  // namespace quern::test
