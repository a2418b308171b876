#include "convert/tokenizer_json.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>

#include "convert/rank_vocabulary.h"
#include "convert/tokenizer_file.h"
#include "quant/byte_level.h"
#include "quant/error.h"
#include "quant/pre_tokenizer.h"
#include "tests/runtime/tokenizer/vocabulary_files.h"
#include "tests/support/paths.h"

namespace quern::test {
namespace {

using nlohmann::json;
using Ids = std::vector<TokenId>;

Vocabulary read(const json& document, const std::string& pre_tokenizer = {}, const Notice& notice = {}) {
  return read_tokenizer_json(document.dump(), "tokenizer.json", pre_tokenizer, notice);
}

std::span<const uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Written by tokenizers 0.23: tokenizers of 360 pieces with the parts that the families of the field have.
TEST(TokenizerJson, EncodesAsHuggingFacesTokenizersDo) {
  std::ifstream file(test_data("golden/tokenizer_json.jsonl"));
  size_t n_tokenizers = 0;
  for (std::string line; std::getline(file, line); ++n_tokenizers) {
    const json golden = json::parse(line);
    const Vocabulary vocabulary = read(golden["tokenizer"]);
    EXPECT_EQ(vocabulary.byte_pairs().pre_tokenizer, golden["pre"]) << golden["name"];
    for (const Vocabulary& form : {vocabulary, through_gguf(vocabulary)}) {
      const auto tokenizer = make_tokenizer(form);
      for (const json& text : golden["texts"]) {
        EXPECT_EQ(tokenizer->encode_document(text["text"].get<std::string>(), TextRole::kRawSpecial),
                  text["ids"].get<Ids>())
            << golden["name"] << ": " << text["text"];
      }
    }
  }
  EXPECT_EQ(n_tokenizers, 7u);
}

json small_tokenizer() {
  return json::parse(R"({
    "version": "1.0", "added_tokens": [{"id": 4, "content": "<end>", "special": true}],
    "normalizer": null, "post_processor": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}})");
}

TEST(TokenizerJson, FillsIdsThatNothingNames) {
  const Vocabulary vocabulary = read(small_tokenizer());
  EXPECT_EQ(vocabulary.pieces, (std::vector<std::string>{"a", "b", "ab", "[PAD3]", "<end>"}));
  EXPECT_EQ(vocabulary.types[3], TokenType::kUnused);
  EXPECT_EQ(vocabulary.types[4], TokenType::kControl);
}

TEST(TokenizerJson, OfTwoAddedTokensWithOneIdTheFirstCounts) {
  json document = small_tokenizer();
  document["added_tokens"].push_back({{"id", 4}, {"content", "<other>"}, {"special", false}});
  std::string notices;
  const Vocabulary vocabulary = read(document, {}, [&](std::string_view line) { notices += line; });
  EXPECT_EQ(vocabulary.pieces[4], "<end>");
  EXPECT_EQ(vocabulary.types[4], TokenType::kControl);
  EXPECT_TRUE(notices.starts_with(
      "tokenizer.json: added_tokens: token 4 is '<end>' and '<other>': the former counts (1 in all)"))
      << notices;
}

TEST(TokenizerJson, ReadsMergesInBothSpellings) {
  json document = small_tokenizer();
  document["model"]["merges"] = {"a b"};
  EXPECT_EQ(read(document).byte_pairs().merges, read(small_tokenizer()).byte_pairs().merges);
}

TEST(TokenizerJson, ReadsGemmasPiecesAsCharacters) {
  json document = small_tokenizer();
  document["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
  document["pre_tokenizer"] = {{"type", "Split"},
                               {"pattern", {{"String", " "}}},
                               {"behavior", "MergedWithPrevious"},
                               {"invert", false}};
  document["model"]["byte_fallback"] = true;
  document["model"]["vocab"]["<0x41>"] = 3;
  const Vocabulary vocabulary = read(document);
  EXPECT_EQ(vocabulary.model, "gemma4");
  EXPECT_EQ(vocabulary.types[3], TokenType::kByte);
  EXPECT_EQ(make_tokenizer(vocabulary)->encode("abA", TextRole::kRaw), (Ids{2, 3}));
}

// Expected ids: tokenizers 0.23 with the same document.
TEST(TokenizerJson, FindsTokensThatAreNormalizedInNormalizedText) {
  json document = small_tokenizer();
  json& vocab = document["model"]["vocab"] = json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocab[byte_level_spelling(std::string(1, static_cast<char>(byte)))] = byte;
  document["model"]["merges"] = json::array();
  document["normalizer"] = {{"type", "NFC"}};
  const auto added = [](int id, const char* content, bool normalized) {
    return json{{"id", id}, {"content", content}, {"special", false}, {"normalized", normalized}};
  };
  document["added_tokens"] = {added(256, "caf\u00E9", true), added(257, "nai\u0308f", true),
                              added(258, "<raw>", false), added(259, "<n>", true),
                              added(260, "re\u0301", false)};
  struct Case {
    const char* text;
    Ids ids;
  };
  const std::vector<Case> cases = {{"cafe\u0301!", {256, '!'}},
                                   {"caf\u00E9!", {256, '!'}},
                                   {"na\u00EFf", {257}},
                                   {"nai\u0308f", {257}},
                                   {"<n>\u0338", {'<', 'n', 0xE2, 0x89, 0xAF}},
                                   {"<raw>\u0338", {258, 0xCC, 0xB8}},
                                   {"<n>x", {259, 'x'}},
                                   {"re\u0301s", {260, 's'}},
                                   {"r\u00E9s", {'r', 0xC3, 0xA9, 's'}},
                                   {"<raw>cafe\u0301<n>", {258, 256, 259}}};
  const Vocabulary vocabulary = read(document);
  for (const Vocabulary& form : {vocabulary, through_gguf(vocabulary)}) {
    const auto tokenizer = make_tokenizer(form);
    for (const Case& c : cases) EXPECT_EQ(tokenizer->encode(c.text, TextRole::kRaw), c.ids) << c.text;
    // What a message says is text, and spells none of them, whatever the template wrote before it.
    EXPECT_EQ(
        tokenizer->encode(std::vector<TextSpan>{{"<n>", TextRole::kTemplate}, {"<n>", TextRole::kMessage}}),
        (Ids{259, '<', 'n', '>'}));
  }
  Vocabulary odd = vocabulary;  // as others may write it: the list names a token that is no added one
  odd.types[256] = TokenType::kNormal;
  EXPECT_EQ(make_tokenizer(odd)->encode("caf\u00E9", TextRole::kRaw), (Ids{'c', 'a', 'f', 0xC3, 0xA9}));
  document["normalizer"] = nullptr;  // then all of them are looked for in the text as it is
  EXPECT_EQ(make_tokenizer(read(document))->encode("<n>\u0338", TextRole::kRaw), (Ids{259, 0xCC, 0xB8}));
}

struct Refusal {
  const char* name;
  std::function<void(json&)> change;
  const char* reason;
};

TEST(TokenizerJson, RefusesWhatItDoesNotDoAndSaysWhy) {
  const Refusal refusals[] = {
      {"unigram", [](json& d) { d["model"]["type"] = "Unigram"; }, "model is 'Unigram'"},
      {"word pieces", [](json& d) { d["model"]["type"] = "WordPiece"; }, "model is 'WordPiece'"},
      {"word ends", [](json& d) { d["model"]["end_of_word_suffix"] = "</w>"; }, "model.end_of_word_suffix"},
      {"lower case",
       [](json& d) {
         d["normalizer"] = {{"type", "Lowercase"}};
       },
       "Lowercase"},
      {"bert",
       [](json& d) {
         d["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
       },
       "BertPreTokenizer"},
      {"llama 2",
       [](json& d) {
         d["pre_tokenizer"] = {
             {"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "first"}, {"split", false}};
       },
       "SentencePiece's merges written as BPE; only the tokenizer.model that they come from is read"},
      {"no words", [](json& d) { d["pre_tokenizer"] = nullptr; }, "cut into words by nothing"},
      {"own pattern",
       [](json& d) {
         d["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "x+"}}}, {"behavior", "Isolated"}};
       },
       "cut into words by 'x+', which no known pre-tokenizer does (override: --pre NAME)"},
      {"processor",
       [](json& d) {
         d["post_processor"] = {{"type", "BertProcessing"}};
       },
       "BertProcessing"},
      {"no model", [](json& d) { d.erase("model"); }, "without a model"},
      {"same id twice", [](json& d) { d["model"]["vocab"]["b"] = 0; }, "have the id 0"},
      {"huge id", [](json& d) { d["model"]["vocab"]["b"] = 1u << 30; }, "the id 1073741824"},
      {"id of text", [](json& d) { d["model"]["vocab"]["b"] = "1"; }, "must be an id"},
      {"merge of one", [](json& d) { d["model"]["merges"] = {"ab"}; }, "merge 0 is 'ab'"},
      {"merge of three",
       [](json& d) {
         d["model"]["merges"] = json::array({json::array({"a", "b", "c"})});
       },
       "expected two parts"},
      {"merge with a space",
       [](json& d) {
         d["model"]["merges"] = json::array({json::array({"a b", "c"})});
       },
       "no way to write down"},
      {"merges of numbers", [](json& d) { d["model"]["merges"] = 7; }, "must be a list"},
      {"added token", [](json& d) { d["added_tokens"][0].erase("content"); }, "content must be a string"},
  };
  for (const Refusal& refusal : refusals) {
    json document = small_tokenizer();
    refusal.change(document);
    try {
      read(document);
      ADD_FAILURE() << refusal.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMalformed);
      EXPECT_NE(std::string(error.what()).find(refusal.reason), std::string::npos) << error.what();
    }
  }
  json document = small_tokenizer();
  document["pre_tokenizer"] = nullptr;
  EXPECT_EQ(read(document, "qwen2").byte_pairs().pre_tokenizer, "qwen2");
}

TEST(TokenizerFile, IsKnownByWhatIsInItAndNeverByItsName) {
  const auto kind = [](const std::string& text) { return recognise_tokenizer_file(bytes_of(text)); };
  EXPECT_EQ(kind("GGUF...."), TokenizerFile::kGguf);
  EXPECT_EQ(kind(small_tokenizer().dump(2)), TokenizerFile::kTokenizerJson);
  EXPECT_EQ(kind(R"({"config": {"default_vocab_size": 3}, "vocab": [{"rank": 0, "token_bytes": "AA=="}]})"),
            TokenizerFile::kTekken);
  EXPECT_EQ(kind("IQ== 0\nIg== 1\n"), TokenizerFile::kRanks);
  EXPECT_EQ(kind("\x0A\x0E\x0A"), TokenizerFile::kSentencePiece);
  EXPECT_EQ(kind(""), TokenizerFile::kSentencePiece);
}

TEST(TokenizerFile, OfAnotherEncodingIsRefusedAsSuch) {
  const std::string text = small_tokenizer().dump();
  std::string utf16 = "\xFF\xFE";
  for (const char c : text) utf16 += {c, '\0'};
  const std::pair<std::string, const char*> cases[] = {
      {utf16, "is UTF-16, expected UTF-8"}, {"\xEF\xBB\xBF" + text, "begins with a byte order mark"}};
  for (const auto& [bytes, reason] : cases) {
    try {
      read_tokenizer_file(bytes_of(bytes), "t.json", {}, {});
      FAIL() << reason;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMalformed);
      EXPECT_NE(std::string_view(error.what()).find(reason), std::string_view::npos) << error.what();
    }
  }
}

// "a" 0, "b" 1, "ab" 2.
constexpr char kRanks[] = "YQ== 0\nYg== 1\nYWI= 2\n";

TEST(RankFile, GivesTokensAndEveryWayToMergeThem) {
  const Vocabulary vocabulary = read_rank_file(kRanks, "ranks", "qwen2", {});
  EXPECT_EQ(vocabulary.pieces, (std::vector<std::string>{"a", "b", "ab"}));
  EXPECT_EQ(vocabulary.byte_pairs().merges, std::vector<std::string>{"a b"});
  const BytePairParts parts = merges_of_ranks({"a", "b", "aa", "ab", "aab"}, "gpt-2");
  EXPECT_EQ(parts.merges, (std::vector<std::string>{"a a", "a b", "a ab", "aa b"}));
  EXPECT_EQ(parts.ranks, (std::vector<uint32_t>{2, 3, 4, 4}));
}

TEST(RankFile, NeedsAPreTokenizerAndSoundLines) {
  const auto refused = [](const char* text, const char* pre_tokenizer, ErrorCode code, const char* reason) {
    try {
      read_rank_file(text, "ranks", pre_tokenizer, {});
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    }
  };
  refused(kRanks, "", ErrorCode::kUsage, "--pre NAME");
  refused("YQ== 0\nYg==\n", "qwen2", ErrorCode::kMalformed, "line 2 is 'Yg=='");
  refused("YQ== 0\nY= 1\n", "qwen2", ErrorCode::kMalformed, "line 2");
  refused("YQ== 0\nYg== 2\n", "qwen2", ErrorCode::kMalformed, "rank 2 is beyond");
  refused("YQ== 0\nYg== 0\n", "qwen2", ErrorCode::kMalformed, "rank 0 stands twice");
  refused("YQ== 0\nYQ== 1\n", "qwen2", ErrorCode::kMalformed, "tokens 0 and 1 are the same bytes, 'a'");
  refused("YQ== 99999999999999999999\n", "qwen2", ErrorCode::kMalformed, "line 1");
  refused(kRanks, "frobnicate", ErrorCode::kMalformed, "'frobnicate', which is not known");
}

json small_tekken() {
  return {{"config",
           {{"pattern", find_pre_tokenizer("tekken")->steps[0].pattern},
            {"default_vocab_size", 24},
            {"default_num_special_tokens", 21}}},
          {"vocab",
           {{{"rank", 0}, {"token_bytes", "YQ=="}, {"token_str", "a"}},
            {{"rank", 1}, {"token_bytes", "Yg=="}, {"token_str", "b"}},
            {{"rank", 2}, {"token_bytes", "YWI="}, {"token_str", "ab"}},
            {{"rank", 3}, {"token_bytes", "YWE="}, {"token_str", "aa"}}}}};
}

TEST(TekkenJson, PutsTheSpecialTokensFirstAndCountsTheEntriesThatCount) {
  const Vocabulary vocabulary = read_tekken_json(small_tekken().dump(), "tekken.json", "", {});
  EXPECT_EQ(vocabulary.size(), 24u);
  EXPECT_EQ(vocabulary.pieces[3], "[INST]");
  EXPECT_EQ(vocabulary.pieces[19], "[TOOL_CONTENT]");
  EXPECT_EQ(vocabulary.pieces[20], "<SPECIAL_20>");
  EXPECT_EQ(vocabulary.pieces[23], "ab");
  EXPECT_EQ(vocabulary.byte_pairs().pre_tokenizer, "tekken");
  EXPECT_EQ(vocabulary.bos, 1);
  EXPECT_EQ(vocabulary.eos, 2);
  EXPECT_TRUE(vocabulary.add_bos);
}

TEST(TekkenJson, TakesTheSpecialTokensThatAFileLists) {
  json document = small_tekken();
  document["special_tokens"] = {{{"rank", 1}, {"token_str", "<s>"}, {"is_control", true}},
                                {{"rank", 5}, {"token_str", "[THINK]"}, {"is_control", false}}};
  const Vocabulary vocabulary = read_tekken_json(document.dump(), "tekken.json", "", {});
  EXPECT_EQ(vocabulary.pieces[5], "[THINK]");
  EXPECT_EQ(vocabulary.types[5], TokenType::kUserDefined);
  EXPECT_EQ(vocabulary.bos, 1);
  EXPECT_EQ(vocabulary.eos, kNoToken);
}

TEST(TekkenJson, RefusesWhatIsMalformed) {
  const Refusal refusals[] = {
      {"pattern", [](json& d) { d["config"]["pattern"] = "x"; }, "which no known pre-tokenizer has"},
      {"no config", [](json& d) { d.erase("config"); }, "without config"},
      {"no vocab", [](json& d) { d.erase("vocab"); }, "without vocab"},
      {"size", [](json& d) { d["config"]["default_vocab_size"] = 99; }, "config asks for 78"},
      {"sizes", [](json& d) { d["config"]["default_num_special_tokens"] = 24; }, "24 special tokens of 24"},
      {"rank", [](json& d) { d["vocab"][1]["rank"] = 7; }, "vocab[1]"},
      {"bytes", [](json& d) { d["vocab"][1]["token_bytes"] = "?"; }, "vocab[1]"},
      {"special",
       [](json& d) {
         d["special_tokens"] = {{{"rank", 21}, {"token_str", "x"}}};
       },
       "has rank 21"},
  };
  for (const Refusal& refusal : refusals) {
    json document = small_tekken();
    refusal.change(document);
    try {
      read_tekken_json(document.dump(), "tekken.json", "", {});
      ADD_FAILURE() << refusal.name;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(refusal.reason), std::string::npos) << error.what();
    }
  }
}

// What a damaged download may hold.
TEST(TokenizerFile, IsReadOrRefusedWhateverByteIsChanged) {
  std::mt19937 random(17);
  const std::pair<std::string, const char*> files[] = {
      {small_tokenizer().dump(), ""}, {small_tekken().dump(), ""}, {kRanks, "qwen2"}};
  for (const auto& [text, pre_tokenizer] : files) {
    int n_read = 0, n_refused = 0;
    for (int round = 0; round < 3000; ++round) {
      std::string damaged = text;
      for (size_t n = 1 + random() % 3; n > 0; --n)
        damaged[random() % damaged.size()] = static_cast<char>(random());
      if (random() % 4 == 0) damaged.resize(random() % damaged.size());
      try {
        const auto tokenizer =
            make_tokenizer(read_tokenizer_file(bytes_of(damaged), "file", pre_tokenizer, {}));
        tokenizer->decode(tokenizer->encode("ab <end> \xFF", TextRole::kRawSpecial));
        ++n_read;
      } catch (const Error&) {
        ++n_refused;
      }
    }
    EXPECT_GT(n_read, 0) << text;
    EXPECT_GT(n_refused, 0) << text;
  }
}

}  // namespace
}  // namespace quern::test
