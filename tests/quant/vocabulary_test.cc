#include "quant/vocabulary.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "quant/byte_level.h"
#include "tests/quant/gguf_bytes.h"

namespace quern {
namespace {

using test::expect_error;
using test::FileBytes;
using namespace std::string_literals;

// <unk>, <s>, </s>, 256 bytes, "a" to "e".
Vocabulary small_vocabulary() {
  Vocabulary v;
  const auto add = [&](const std::string& piece, TokenType type) {
    v.pieces.push_back(piece);
    v.types.push_back(type);
    v.sentencepiece().scores.push_back(-static_cast<float>(v.sentencepiece().scores.size()));
  };
  add("<unk>", TokenType::kUnknown);
  add("<s>", TokenType::kControl);
  add("</s>", TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), TokenType::kByte);
  for (const char* piece : {"a", "b", "c", "d", "e"}) add(piece, TokenType::kNormal);
  v.unk = 0, v.bos = 1, v.eos = 2;
  return v;
}

GgufMetadata to_metadata(const Vocabulary& vocabulary) {
  GgufMetadata metadata;
  write_vocabulary(vocabulary, &metadata);
  return metadata;
}

// A GGUF file that holds nothing but this metadata.
class VocabularyFile {
 public:
  explicit VocabularyFile(const GgufMetadata& metadata)
      : bytes_(to_bytes(metadata)), gguf_(bytes_.bytes(), "vocabulary.gguf") {}
  const GgufReader& gguf() const { return gguf_; }
  Vocabulary read(uint64_t rows, const Notice& notice = {}, const std::string& pre_tokenizer = {}) const {
    return read_vocabulary(gguf_, rows, notice, pre_tokenizer);
  }

 private:
  static FileBytes to_bytes(const GgufMetadata& metadata) {
    FileBytes file;
    file.header(0, metadata.entries().size());
    for (const auto& entry : metadata.entries()) {
      file.text(entry.key).raw({reinterpret_cast<const char*>(entry.encoded.data()), entry.encoded.size()});
    }
    return file.pad(32);
  }

  const FileBytes bytes_;
  const GgufReader gguf_;
};

constexpr size_t kSize = 264;

Vocabulary read_back(const GgufMetadata& metadata, const Notice& notice = {}) {
  return VocabularyFile(metadata).read(kSize, notice);
}

void expect_refused(const GgufMetadata& metadata, std::string_view part) {
  expect_error(ErrorCode::kMalformed, part, [&] { read_back(metadata); });
  expect_error(ErrorCode::kMalformed, "vocabulary.gguf: ", [&] { read_back(metadata); });
}

void expect_refused(const Vocabulary& vocabulary, std::string_view part) {
  expect_refused(to_metadata(vocabulary), part);
  Vocabulary copy = vocabulary;
  expect_error(ErrorCode::kMalformed, part, [&] { check_vocabulary(copy, "tokenizer.model", {}); });
}

TEST(Vocabulary, ComesBackAsItWasWritten) {
  Vocabulary v = small_vocabulary();
  v.pad = 260;
  v.add_bos = false, v.add_eos = true, v.add_space_prefix = false, v.remove_extra_whitespaces = true;
  v.chat_template = "{{ cycler.__init__ }}";
  v.chat_format = "mistral-v1";
  const Vocabulary w = read_back(to_metadata(v), [](std::string_view line) { ADD_FAILURE() << line; });
  EXPECT_EQ(w.pieces, v.pieces);
  EXPECT_EQ(w.sentencepiece().scores, v.sentencepiece().scores);
  EXPECT_EQ(w.types, v.types);
  EXPECT_EQ(w.unk, 0);
  EXPECT_EQ(w.bos, 1);
  EXPECT_EQ(w.eos, 2);
  EXPECT_EQ(w.pad, 260);
  EXPECT_FALSE(w.add_bos);
  EXPECT_TRUE(w.add_eos);
  EXPECT_FALSE(w.add_space_prefix);
  EXPECT_TRUE(w.remove_extra_whitespaces);
  EXPECT_EQ(w.chat_template, v.chat_template);
  EXPECT_EQ(w.chat_format, v.chat_format);
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(w.sentencepiece().byte_ids[byte], byte + 3);
}

TEST(Vocabulary, WritesTheKeysInTheOrderOfOtherConverters) {
  const auto keys = [](const Vocabulary& v) {
    std::vector<std::string> out;
    const GgufMetadata metadata = to_metadata(v);
    for (const auto& entry : metadata.entries()) out.push_back(entry.key);
    return out;
  };
  Vocabulary v = small_vocabulary();
  const std::string p = "tokenizer.ggml.";
  EXPECT_EQ(keys(v),
            (std::vector<std::string>{p + "model", p + "pre", p + "tokens", p + "scores", p + "token_type",
                                      p + "bos_token_id", p + "eos_token_id", p + "unknown_token_id",
                                      p + "add_bos_token", p + "add_eos_token", p + "add_space_prefix"}));
  v.pad = 0;
  v.remove_extra_whitespaces = true;
  v.chat_template = "t";
  v.chat_format = "f";
  EXPECT_EQ(keys(v),
            (std::vector<std::string>{p + "model", p + "pre", p + "tokens", p + "scores", p + "token_type",
                                      p + "bos_token_id", p + "eos_token_id", p + "unknown_token_id",
                                      p + "padding_token_id", p + "add_bos_token", p + "add_eos_token",
                                      "tokenizer.chat_template", p + "add_space_prefix",
                                      p + "remove_extra_whitespaces", "quern.chat_format"}));
}

TEST(Vocabulary, HasDefaultsForWhatFilesLeaveOut) {
  GgufMetadata metadata = to_metadata(small_vocabulary());
  for (const char* key : {"bos_token_id", "eos_token_id", "unknown_token_id", "add_bos_token",
                          "add_eos_token", "add_space_prefix", "pre"}) {
    metadata.erase("tokenizer.ggml."s + key);
  }
  const Vocabulary v = read_back(metadata);
  EXPECT_EQ(v.bos, 1);
  EXPECT_EQ(v.eos, 2);
  EXPECT_EQ(v.unk, 0);
  EXPECT_EQ(v.pad, kNoToken);
  EXPECT_TRUE(v.add_bos);
  EXPECT_FALSE(v.add_eos);
  EXPECT_TRUE(v.add_space_prefix);
  EXPECT_FALSE(v.remove_extra_whitespaces);
  EXPECT_EQ(v.chat_template, "");
  EXPECT_EQ(v.chat_format, "");
}

TEST(Vocabulary, RefusesOtherModelsByName) {
  GgufMetadata metadata = to_metadata(small_vocabulary());
  for (const char* model : {"bert", "", "LLAMA"}) {
    metadata.set_string("tokenizer.ggml.model", model);
    expect_refused(metadata, fmt::format("tokenizer.ggml.model is '{}'", model));
  }
  metadata.set_u32("tokenizer.ggml.model", 1);
  expect_refused(metadata, "tokenizer.ggml.model");
  metadata.erase("tokenizer.ggml.model");
  expect_refused(metadata, "key 'tokenizer.ggml.model' is missing");
}

// Three pieces, of which one is merged.
Vocabulary byte_pairs(std::vector<std::string> merges) {
  Vocabulary v;
  v.model = "gpt2";
  v.pieces = {"a", "b", "ab"};
  v.types.assign(3, TokenType::kNormal);
  v.bos = v.eos = 2;
  v.add_bos = v.add_space_prefix = false;
  v.parts = BytePairParts{"smollm", std::move(merges), {}, {}, false};
  return v;
}

TEST(Vocabulary, OfBytePairsComesBackAsItWasWritten) {
  const GgufMetadata metadata = to_metadata(byte_pairs({"a b"}));
  EXPECT_FALSE(metadata.contains("tokenizer.ggml.scores"));
  const Vocabulary v = VocabularyFile(metadata).read(3);
  EXPECT_EQ(v.model, "gpt2");
  EXPECT_EQ(v.byte_pairs().pre_tokenizer, "smollm");
  EXPECT_EQ(v.byte_pairs().merges, std::vector<std::string>{"a b"});
  EXPECT_FALSE(v.add_bos);
  EXPECT_FALSE(v.add_space_prefix);
}

TEST(Vocabulary, OfBytePairsHasItsOwnDefaults) {
  const Vocabulary v = byte_pairs({"a b"});
  GgufMetadata metadata = to_metadata(v);
  for (const char* key : {"bos_token_id", "eos_token_id", "add_bos_token", "add_space_prefix", "pre"})
    metadata.erase("tokenizer.ggml."s + key);
  std::string notices;
  const Vocabulary w =
      VocabularyFile(metadata).read(v.size(), [&](std::string_view line) { notices += line; });
  EXPECT_EQ(w.bos, kNoToken);
  EXPECT_EQ(w.eos, kNoToken);
  EXPECT_EQ(w.unk, kNoToken);
  EXPECT_FALSE(w.add_bos);
  EXPECT_FALSE(w.add_space_prefix);
  EXPECT_EQ(w.byte_pairs().pre_tokenizer, "default");
  EXPECT_NE(notices.find("tokenizer.ggml.pre is missing"), std::string::npos) << notices;
}

TEST(Vocabulary, OfBytePairsRefusesAnUnknownPreTokenizerByName) {
  GgufMetadata metadata = to_metadata(byte_pairs({"a b"}));
  metadata.set_string("tokenizer.ggml.pre", "frobnicate");
  expect_error(ErrorCode::kMalformed, "tokenizer.ggml.pre is 'frobnicate', which is not known",
               [&] { VocabularyFile(metadata).read(3); });
  EXPECT_EQ(VocabularyFile(metadata).read(3, {}, "qwen2").byte_pairs().pre_tokenizer, "qwen2");
  expect_error(ErrorCode::kMalformed, "'qwen99', which is not known",
               [&] { VocabularyFile(metadata).read(3, {}, "qwen99"); });
}

TEST(Vocabulary, OfBytePairsAddsBosWhereItsPreTokenizerDoesAndTheFileDoesNotSay) {
  GgufMetadata metadata = to_metadata(byte_pairs({"a b"}));
  metadata.set_string("tokenizer.ggml.pre", "llama3");
  EXPECT_FALSE(VocabularyFile(metadata).read(3).add_bos);
  metadata.erase("tokenizer.ggml.add_bos_token");
  EXPECT_TRUE(VocabularyFile(metadata).read(3).add_bos);
  metadata.erase("tokenizer.ggml.bos_token_id");
  EXPECT_FALSE(VocabularyFile(metadata).read(3).add_bos);
}

TEST(Vocabulary, OfBytePairsTellsOfBytesWithoutAToken) {
  Vocabulary vocabulary = byte_pairs({"a b"});
  std::vector<std::string> bytes;
  for (char byte = ' '; byte <= '~'; ++byte)
    if (byte != 'a' && byte != 'b') bytes.push_back(byte_level_spelling(std::string(1, byte)));
  const auto notices_with = [&](size_t n_bytes) {
    Vocabulary changed = vocabulary;
    changed.pieces.insert(changed.pieces.end(), bytes.begin(), bytes.begin() + static_cast<int>(n_bytes));
    changed.types.resize(changed.pieces.size(), TokenType::kNormal);
    std::string notices;
    VocabularyFile(to_metadata(changed)).read(changed.size(), [&](std::string_view line) {
      notices += line;
    });
    return notices;
  };
  EXPECT_EQ(notices_with(bytes.size()).find("no token"), std::string::npos) << notices_with(bytes.size());
  EXPECT_NE(notices_with(bytes.size() - 1)
                .find("1 of the 95 printable bytes have no token, the first is '~': texts lose them"),
            std::string::npos)
      << notices_with(bytes.size() - 1);
}

TEST(Vocabulary, OfBytePairsTellsOfMergesThatNameNoToken) {
  std::string notices;
  VocabularyFile(to_metadata(byte_pairs({"a b", "zz qq", "b a"}))).read(3, [&](std::string_view line) {
    notices += line;
  });
  EXPECT_NE(
      notices.find("2 of 3 merges name what is no token and are left out; the first is merge 1, 'zz qq'"),
      std::string::npos)
      << notices;
}

TEST(Vocabulary, OfSentencePieceHasNoPreTokenizer) {
  expect_error(ErrorCode::kUsage, "--pre",
               [] { VocabularyFile(to_metadata(small_vocabulary())).read(264, {}, "qwen2"); });
}

TEST(Vocabulary, OfBytePairsNeedsMergesOfTwoParts) {
  const auto refused = [](const GgufMetadata& metadata, std::string_view part) {
    expect_error(ErrorCode::kMalformed, part, [&] { VocabularyFile(metadata).read(3); });
  };
  GgufMetadata metadata = to_metadata(byte_pairs({"a b"}));
  metadata.erase("tokenizer.ggml.merges");
  refused(metadata, "key 'tokenizer.ggml.merges' is missing");
  metadata.set_int32s("tokenizer.ggml.merges", std::vector<int32_t>{1});
  refused(metadata, "tokenizer.ggml.merges: expected an array of strings");
  for (const char* merge : {"", "ab", "ab ", " b"})
    refused(to_metadata(byte_pairs({"a b", merge})), fmt::format("merge 1 is '{}'", merge));
}

TEST(Vocabulary, OfAUnigramModelComesBackAsItWasWritten) {
  Vocabulary v = small_vocabulary();
  v.model = "t5";
  v.sentencepiece().scores[263] = -1.5f;
  GgufMetadata metadata = to_metadata(v);
  const Vocabulary w = read_back(metadata, [](std::string_view line) { ADD_FAILURE() << line; });
  EXPECT_EQ(w.model, "t5");
  EXPECT_TRUE(w.is_unigram());
  EXPECT_EQ(w.sentencepiece().scores, v.sentencepiece().scores);
  EXPECT_FALSE(w.remove_extra_whitespaces);
  metadata.set_strings("tokenizer.ggml.precompiled_charsmap", std::vector<std::string>{"a"});
  expect_refused(metadata, "tokenizer.ggml.precompiled_charsmap: expected an array of u8");
  const uint8_t bytes[] = {4, 0, 0, 0, 0, 0};
  metadata.set_value("tokenizer.ggml.precompiled_charsmap", {GgufType::kArray, GgufType::kU8, 6, bytes});
  expect_refused(metadata, "the normalizer's precompiled_charsmap: an array of 4 bytes in a map of 2");
  metadata.erase("tokenizer.ggml.precompiled_charsmap");
  metadata.erase("tokenizer.ggml.scores");
  expect_refused(metadata, "key 'tokenizer.ggml.scores' is missing");
  metadata.erase("tokenizer.ggml.remove_extra_whitespaces");
  expect_refused(metadata, "tokenizer.ggml.model is 't5' (SentencePiece unigram), but neither");
}

TEST(Vocabulary, TellsWhenAFileHasNoneOnPurpose) {
  GgufMetadata metadata;
  EXPECT_FALSE(has_no_vocabulary(VocabularyFile(metadata).gguf()));
  metadata.set_u32("tokenizer.ggml.model", 1);
  EXPECT_FALSE(has_no_vocabulary(VocabularyFile(metadata).gguf()));
  EXPECT_FALSE(has_no_vocabulary(VocabularyFile(to_metadata(small_vocabulary())).gguf()));
  metadata.set_string("tokenizer.ggml.model", "no_vocab");
  EXPECT_TRUE(has_no_vocabulary(VocabularyFile(metadata).gguf()));
  expect_refused(metadata, "the file carries no tokenizer");
}

std::vector<std::string> notices_of(const GgufMetadata& metadata, uint64_t rows = kSize) {
  std::vector<std::string> notices;
  VocabularyFile(metadata).read(rows, [&](std::string_view line) { notices.emplace_back(line); });
  return notices;
}

void expect_one_notice(const GgufMetadata& metadata, std::string_view part) {
  const std::vector<std::string> notices = notices_of(metadata);
  ASSERT_EQ(notices.size(), 1u) << part << testing::PrintToString(notices);
  EXPECT_NE(notices[0].find(part), std::string::npos) << notices[0];
  EXPECT_TRUE(notices[0].starts_with("vocabulary.gguf: ")) << notices[0];
}

TEST(Vocabulary, RefusesArraysOfAnotherTypeOrLength) {
  const std::vector<float> floats(kSize - 1);
  const std::vector<int32_t> ints(kSize - 1, 1);
  for (const char* name : {"tokens", "scores", "token_type"}) {
    const std::string key = "tokenizer.ggml."s + name;
    GgufMetadata metadata = to_metadata(small_vocabulary());
    metadata.erase(key);
    if (key.ends_with("tokens")) expect_refused(metadata, "key '" + key + "' is missing");
    metadata.set_u32(key, 1);
    expect_refused(metadata, key + ": expected an array");
    if (key.ends_with("scores")) {
      metadata.set_floats(key, floats);
    } else {
      metadata.set_floats(key, std::vector<float>(kSize));
      expect_refused(metadata, key + ": expected an array");
      metadata.set_int32s(key, ints);
    }
    expect_refused(metadata, key);
  }
}

TEST(Vocabulary, InsistsOnOneTokenForEachEmbeddingRow) {
  const VocabularyFile file(to_metadata(small_vocabulary()));
  EXPECT_EQ(file.read(kSize).size(), kSize);
  for (const uint64_t rows : {uint64_t{0}, kSize - 1, kSize + 1, uint64_t{1} << 40}) {
    expect_error(ErrorCode::kMalformed, "vocabulary of 264 tokens", [&] { file.read(rows); });
  }
  GgufMetadata empty = to_metadata(small_vocabulary());
  empty.set_strings("tokenizer.ggml.tokens", {});
  expect_refused(empty, "vocabulary of 0 tokens");
}

TEST(Vocabulary, RefusesScoresThatAreNotFinite) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float score : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
    Vocabulary v = small_vocabulary();
    v.sentencepiece().scores[263] = score;
    expect_refused(v, "score of token 263");
    expect_refused(to_metadata(v), "tokenizer.ggml.scores");
  }
}

TEST(Vocabulary, MergesInTheOrderOfTheTokensWhereScoresAreMissing) {
  GgufMetadata metadata = to_metadata(small_vocabulary());
  metadata.erase("tokenizer.ggml.scores");
  expect_one_notice(metadata, "tokenizer.ggml.scores is missing");
  EXPECT_EQ(read_back(metadata).sentencepiece().scores, small_vocabulary().sentencepiece().scores);
}

TEST(Vocabulary, KnowsTokensByTheirSpellingWhereTypesAreMissing) {
  GgufMetadata metadata = to_metadata(small_vocabulary());
  metadata.erase("tokenizer.ggml.token_type");
  const std::vector<std::string> notices = notices_of(metadata);
  ASSERT_EQ(notices.size(), 2u);
  EXPECT_NE(notices[0].find("tokenizer.ggml.token_type is missing"), std::string::npos) << notices[0];
  EXPECT_NE(notices[1].find("the 256 that are spelled like <0x0A>"), std::string::npos) << notices[1];
  EXPECT_EQ(read_back(metadata).types, small_vocabulary().types);
}

TEST(Vocabulary, SpecialIdsAndEndsAreControlTokensWhereTypesAreMissing) {
  Vocabulary v = small_vocabulary();
  v.pieces[260] = "<|endoftext|>", v.pieces[261] = "<|im_end|>", v.pieces[262] = "<|im_start|>";
  v.bos = v.eos = 260;
  GgufMetadata metadata = to_metadata(v);
  metadata.erase("tokenizer.ggml.token_type");
  const Vocabulary w = read_back(metadata);
  EXPECT_EQ(w.types[260], TokenType::kControl);
  EXPECT_EQ(w.types[261], TokenType::kControl);
  EXPECT_EQ(w.types[262], TokenType::kNormal) << "nothing says otherwise";
  EXPECT_EQ(w.more_ends, std::vector<TokenId>{261});
}

TEST(Vocabulary, KnowsByteTokensByTheirSpellingWhereNoneHasTheType) {
  Vocabulary v = small_vocabulary();
  for (TokenType& type : v.types)
    if (type == TokenType::kByte) type = TokenType::kNormal;
  expect_one_notice(to_metadata(v), "no byte tokens by type");
  EXPECT_EQ(read_back(to_metadata(v)).types, small_vocabulary().types);
  EXPECT_EQ(read_back(to_metadata(v)).sentencepiece().byte_ids[255], 258);
}

TEST(Vocabulary, DoesWithoutByteTokensWhereUnkCanStandForAByte) {
  Vocabulary v = small_vocabulary();
  for (size_t id = 3; id < 259; ++id) {
    v.pieces[id] = fmt::format("piece {}", id);
    v.types[id] = TokenType::kNormal;
  }
  EXPECT_EQ(read_back(to_metadata(v)).sentencepiece().byte_ids[0], kNoToken);
  v.unk = kNoToken;
  expect_error(ErrorCode::kMalformed, "byte token <0x00> is missing, and there is no unk",
               [&] { check_vocabulary(v, "test", {}); });
}

TEST(Vocabulary, TakesUndefinedTypesForOrdinaryTokens) {
  GgufMetadata metadata = to_metadata(small_vocabulary());
  std::vector<int32_t> types;
  for (const TokenType type : small_vocabulary().types) types.push_back(static_cast<int32_t>(type));
  types[262] = types[263] = 0;
  metadata.set_int32s("tokenizer.ggml.token_type", types);
  expect_one_notice(metadata, "2 tokens are of type 0 (undefined)");
  EXPECT_EQ(read_back(metadata).types[263], TokenType::kNormal);
}

TEST(Vocabulary, RefusesTypesOtherThan1To6) {
  GgufMetadata metadata = to_metadata(small_vocabulary());
  std::vector<int32_t> types;
  for (const TokenType type : small_vocabulary().types) types.push_back(static_cast<int32_t>(type));
  for (const int32_t type : {1, 2, 3, 4, 5}) {
    types[263] = type;
    metadata.set_int32s("tokenizer.ggml.token_type", types);
    EXPECT_EQ(static_cast<int32_t>(read_back(metadata).types[263]), type);
  }
  for (const int32_t type : {7, -1, INT32_MAX, INT32_MIN}) {
    types[263] = type;
    metadata.set_int32s("tokenizer.ggml.token_type", types);
    expect_refused(metadata, fmt::format("tokenizer.ggml.token_type: type of token 263 is {}", type));
  }
}

TEST(Vocabulary, ReadsByteTokensStrictly) {
  for (const char* piece :
       {"<0xZZ>", "<0x", "", "<0x0>", "<0x000>", "<0xff>", "<0X00>", "<0x-1>", "<0x 1>", "<0x00> "}) {
    Vocabulary v = small_vocabulary();
    v.pieces[3] = piece;
    expect_refused(v, fmt::format("byte token 3 is '{}'", piece));
  }
}

TEST(Vocabulary, WantsEachByteExactlyOnce) {
  Vocabulary twice = small_vocabulary();
  twice.pieces[3] = "<0x7F>";
  expect_refused(twice, "byte token <0x7F> stands twice");
  Vocabulary missing = small_vocabulary();
  missing.types[3 + 0xAB] = TokenType::kNormal;
  expect_refused(missing, "byte token <0xAB> is missing, and others are there");
}

TEST(Vocabulary, FindsByteTokensWhereverTheyAre) {
  Vocabulary v = small_vocabulary();
  std::swap(v.pieces[3], v.pieces[200]);
  v.pieces[259] = "<0xff>";  // ordinary text: of type normal
  v = read_back(to_metadata(v));
  EXPECT_EQ(v.sentencepiece().byte_ids[0], 200);
  EXPECT_EQ(v.sentencepiece().byte_ids[197], 3);
  EXPECT_EQ(v.sentencepiece().byte_ids[255], 258);
}

TEST(Vocabulary, DropsSpecialIdsOutOfRange) {
  const Vocabulary usual = small_vocabulary();
  struct Case {
    const char* name;
    TokenId Vocabulary::*id;
  };
  const Case cases[] = {{"bos_token_id", &Vocabulary::bos},     {"eos_token_id", &Vocabulary::eos},
                        {"eot_token_id", &Vocabulary::eot},     {"eom_token_id", &Vocabulary::eom},
                        {"unknown_token_id", &Vocabulary::unk}, {"padding_token_id", &Vocabulary::pad}};
  for (const Case& c : cases) {
    const std::string key = "tokenizer.ggml."s + c.name;
    for (const uint32_t id : {264u, 0x80000000u, UINT32_MAX}) {
      GgufMetadata metadata = to_metadata(usual);
      metadata.set_u32(key, id);
      expect_one_notice(metadata,
                        fmt::format("{} is {}, outside the vocabulary of 264 tokens: ignored", key, id));
      EXPECT_EQ(read_back(metadata).*c.id, usual.*c.id) << key;  // its default
    }
    GgufMetadata metadata = to_metadata(usual);
    const int32_t negative = -1;
    metadata.set_value(
        key,
        {GgufType::kI32, GgufType::kU8, 1, {reinterpret_cast<const uint8_t*>(&negative), sizeof(negative)}});
    expect_one_notice(metadata, key + " is -1");
    metadata.set_u32(key, 263);
    EXPECT_EQ(read_back(metadata).*c.id, 263) << key;
    metadata.set_string(key, "1");
    expect_refused(metadata, key + ": expected an integer");
  }
}

TEST(Vocabulary, HasNoDefaultIdsOutOfRange) {
  GgufMetadata metadata;
  metadata.set_string("tokenizer.ggml.model", "llama");
  metadata.set_strings("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "a"});
  metadata.set_floats("tokenizer.ggml.scores", std::vector<float>(2));
  metadata.set_int32s("tokenizer.ggml.token_type", std::vector<int32_t>{2, 1});
  EXPECT_EQ(VocabularyFile(metadata).read(2).eos, kNoToken);
}

TEST(Vocabulary, KeepsFurtherEndsAndWhatStripsWhiteSpace) {
  Vocabulary v = small_vocabulary();
  v.eot = 260, v.eom = 261;
  v.more_ends = {262, 263};
  v.strips_left = {1};
  v.strips_right = {2, 263};
  v.types[260] = TokenType::kUserDefined;
  v.sentencepiece().user_defined = {260};
  const Vocabulary w = read_back(to_metadata(v), [](std::string_view line) { ADD_FAILURE() << line; });
  EXPECT_EQ(w.eot, 260);
  EXPECT_EQ(w.eom, 261);
  EXPECT_EQ(w.more_ends, v.more_ends);
  EXPECT_EQ(w.strips_left, v.strips_left);
  EXPECT_EQ(w.strips_right, v.strips_right);
  EXPECT_EQ(w.sentencepiece().user_defined, v.sentencepiece().user_defined);
}

TEST(Vocabulary, DropsListedIdsOutOfRangeAndRefusesOtherLists) {
  for (const char* key : {"quern.tokenizer.end_token_ids", "quern.tokenizer.lstrip_token_ids",
                          "quern.tokenizer.rstrip_token_ids", "quern.tokenizer.sentencepiece_user_defined"}) {
    GgufMetadata metadata = to_metadata(small_vocabulary());
    metadata.set_uint32s(key, std::vector<uint32_t>{264});
    expect_one_notice(metadata, key + ": 264 is outside the vocabulary of 264 tokens: ignored"s);
    metadata.set_int32s(key, std::vector<int32_t>{1});
    expect_refused(metadata, key + ": expected an array of u32"s);
  }
}

TEST(Vocabulary, EndsAtControlTokensSpelledLikeEndsWhereTheFileNamesNone) {
  for (const char* spelling : {"<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<turn|>", "<|end|>",
                               "<|eom_id|>", "<|tool_response>"}) {
    Vocabulary v = small_vocabulary();
    v.pieces[262] = spelling;
    EXPECT_EQ(read_back(to_metadata(v)).more_ends, std::vector<TokenId>{}) << "an ordinary token";
    v.types[262] = TokenType::kControl;
    EXPECT_EQ(read_back(to_metadata(v)).more_ends, std::vector<TokenId>{262}) << spelling;
    v.eot = 263;
    EXPECT_EQ(read_back(to_metadata(v)).more_ends, std::vector<TokenId>{}) << "the file names one";
  }
  Vocabulary gemma = small_vocabulary();  // as llama.cpp writes it
  gemma.pieces[262] = "<|tool_response>";
  gemma.pieces[263] = "<|tool_call>";
  gemma.types[262] = gemma.types[263] = TokenType::kUserDefined;
  EXPECT_EQ(read_back(to_metadata(gemma)).more_ends, std::vector<TokenId>{262});
  Vocabulary harmony = small_vocabulary();  // there <|end|> ends one message of several
  harmony.pieces[262] = "<|end|>";
  harmony.pieces[263] = "<|return|>";
  harmony.types[262] = harmony.types[263] = TokenType::kControl;
  EXPECT_EQ(read_back(to_metadata(harmony)).more_ends, std::vector<TokenId>{});
}

TEST(Vocabulary, KnowsPhi3sAddedTokensByTheModelsName) {
  Vocabulary v = small_vocabulary();
  v.pieces[262] = "<|user|>";
  v.pieces[263] = "<|endoftext|>";
  v.types[262] = v.types[263] = TokenType::kControl;
  GgufMetadata metadata = to_metadata(v);
  EXPECT_EQ(read_back(metadata).strips_right, std::vector<TokenId>{});
  metadata.set_string("general.name", "Phi-3-mini");
  EXPECT_EQ(read_back(metadata).strips_right, (std::vector<TokenId>{2, 262}));
}

TEST(Vocabulary, IgnoresAChatTemplateOfAnotherType) {
  GgufMetadata metadata = to_metadata(small_vocabulary());
  metadata.set_u32("tokenizer.chat_template", 7);
  expect_one_notice(metadata, "tokenizer.chat_template is of type u32");
  EXPECT_EQ(read_back(metadata).chat_template, "");
}

TEST(Vocabulary, ChecksSpecialIdsWhereverTheyCameFrom) {
  const auto refused = [](std::string_view part, const std::function<void(Vocabulary&)>& change) {
    Vocabulary v = small_vocabulary();
    change(v);
    expect_error(ErrorCode::kMalformed, part, [&] { check_vocabulary(v, "tokenizer.model", {}); });
  };
  refused("tokenizer.model: bos id 264", [](Vocabulary& v) { v.bos = 264; });
  refused("eos id -2", [](Vocabulary& v) { v.eos = -2; });
  refused("unk id 99999", [](Vocabulary& v) { v.unk = 99999; });
  refused("pad id 264", [](Vocabulary& v) { v.pad = 264; });
  refused("there is no bos id", [](Vocabulary& v) { v.bos = kNoToken; });
  refused("there is no eos id", [](Vocabulary& v) { v.eos = kNoToken, v.add_eos = true; });
  refused("empty vocabulary", [](Vocabulary& v) { v = Vocabulary(); });
  Vocabulary none_added = small_vocabulary();
  none_added.bos = none_added.eos = kNoToken;
  none_added.add_bos = false;
  EXPECT_NO_THROW(check_vocabulary(none_added, "tokenizer.model", {}));
}

TEST(Vocabulary, AcceptsUnknownTokensOfTypeControl) {
  Vocabulary v = small_vocabulary();
  v.types[0] = TokenType::kControl;
  EXPECT_EQ(read_back(to_metadata(v)).unk, 0);
}

TEST(Vocabulary, InsistsOnBools) {
  for (const char* name :
       {"add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"}) {
    GgufMetadata metadata = to_metadata(small_vocabulary());
    metadata.set_u32("tokenizer.ggml."s + name, 1);
    expect_refused(metadata, fmt::format("tokenizer.ggml.{}: expected a bool, found u32 1", name));
  }
}

TEST(Vocabulary, LimitsTheLengthOfATokenOnly) {
  Vocabulary v = small_vocabulary();
  v.pieces[263] = std::string(65536, 'x');
  v.pieces[262] = "nul\0inside"s;
  v.pieces[261] = "\xFF\xFE";
  EXPECT_EQ(read_back(to_metadata(v)).pieces, v.pieces);
  v.pieces[263] += 'x';
  expect_refused(v, "token 263 has 65537 bytes");
}

TEST(Vocabulary, WarnsOfDuplicatesOnce) {
  Vocabulary v = small_vocabulary();
  v.pieces[261] = v.pieces[262] = v.pieces[263] = "a";
  std::vector<std::string> notices;
  read_back(to_metadata(v), [&](std::string_view line) { notices.emplace_back(line); });
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_EQ(notices[0],
            "vocabulary.gguf: duplicate token 'a' (ids 259 and 261; 3 in all): the lowest id is used");
}

}  // namespace
}  // namespace quern
