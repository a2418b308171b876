#include "quant/vocabulary.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

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
    v.scores.push_back(-static_cast<float>(v.scores.size()));
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
  Vocabulary read(uint64_t rows, const Notice& notice = {}) const {
    return read_vocabulary(gguf_, rows, notice);
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
  EXPECT_EQ(w.scores, v.scores);
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
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(w.byte_ids[byte], byte + 3);
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
  for (const char* model : {"t5", "bert", "", "LLAMA"}) {
    metadata.set_string("tokenizer.ggml.model", model);
    expect_refused(metadata, fmt::format("tokenizer.ggml.model is '{}'", model));
  }
  metadata.set_string("tokenizer.ggml.model", "gpt2");
  for (const char* word : {"'gpt2'", "merges", "pre-tokenizer"}) expect_refused(metadata, word);
  metadata.set_u32("tokenizer.ggml.model", 1);
  expect_refused(metadata, "tokenizer.ggml.model");
  metadata.erase("tokenizer.ggml.model");
  expect_refused(metadata, "key 'tokenizer.ggml.model' is missing");
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

TEST(Vocabulary, RefusesArraysThatAreMissingOfAnotherTypeOrLength) {
  const std::vector<float> floats(kSize - 1);
  const std::vector<int32_t> ints(kSize - 1, 1);
  for (const char* name : {"tokens", "scores", "token_type"}) {
    const std::string key = "tokenizer.ggml."s + name;
    GgufMetadata metadata = to_metadata(small_vocabulary());
    metadata.erase(key);
    expect_refused(metadata, "key '" + key + "' is missing");
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
    v.scores[263] = score;
    expect_refused(v, "score of token 263");
    expect_refused(to_metadata(v), "tokenizer.ggml.scores");
  }
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
  for (const int32_t type : {0, 7, -1, INT32_MAX, INT32_MIN}) {
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
  expect_refused(missing, "byte token <0xAB> is missing");
}

TEST(Vocabulary, FindsByteTokensWhereverTheyAre) {
  Vocabulary v = small_vocabulary();
  std::swap(v.pieces[3], v.pieces[200]);
  v.pieces[259] = "<0xff>";  // ordinary text: of type normal
  v = read_back(to_metadata(v));
  EXPECT_EQ(v.byte_ids[0], 200);
  EXPECT_EQ(v.byte_ids[197], 3);
  EXPECT_EQ(v.byte_ids[255], 258);
}

TEST(Vocabulary, RefusesSpecialIdsOutOfRange) {
  for (const char* name : {"bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id"}) {
    const std::string key = "tokenizer.ggml."s + name;
    for (const uint32_t id : {264u, 0x80000000u, UINT32_MAX}) {
      GgufMetadata metadata = to_metadata(small_vocabulary());
      metadata.set_u32(key, id);
      expect_refused(metadata, key + ": expected an integer from 0 to 263");
    }
    GgufMetadata metadata = to_metadata(small_vocabulary());
    metadata.set_u32(key, 263);
    EXPECT_NO_THROW(read_back(metadata));
    metadata.set_string(key, "1");
    expect_refused(metadata, key);
  }
}

TEST(Vocabulary, RefusesDefaultIdsOutOfRange) {
  GgufMetadata metadata;
  metadata.set_string("tokenizer.ggml.model", "llama");
  metadata.set_strings("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "<s>"});
  metadata.set_floats("tokenizer.ggml.scores", std::vector<float>(2));
  metadata.set_int32s("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3});
  const VocabularyFile file(metadata);
  expect_error(ErrorCode::kMalformed, "tokenizer.ggml.eos_token_id is missing, and its default 2 is outside",
               [&] { file.read(2); });
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
