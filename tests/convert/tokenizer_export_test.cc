// What the small files of a folder add to a tokenizer.model: added tokens, padding, bos and eos.
#include "convert/tokenizer_export.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "convert/added_tokens.h"
#include "quant/byte_level.h"
#include "tests/convert/convert_calls.h"

namespace quern {
namespace {

using test::error_of;
using test::kTiny;
using test::TempFolder;

// tiny-mistral's tokenizer.model (1024 pieces) in a folder of its own, with an embedding of `n_rows`.
class Folder {
 public:
  Folder() { std::filesystem::copy_file(kTiny + "/tokenizer.model", folder_.file("tokenizer.model")); }

  void write(const std::string& name, const std::string& text) { folder_.write(name, text); }
  Vocabulary read(uint32_t n_rows = 1024) {
    ModelConfig config;
    config.vocab_size = n_rows;
    notices_.clear();
    return read_checkpoint_tokenizer(folder_.path().string(), config, nullptr,
                                     [&](std::string_view line) { notices_.emplace_back(line); });
  }
  const std::vector<std::string>& notices() const { return notices_; }
  bool has_notice(std::string_view part) const { return count_notices(part) > 0; }
  size_t count_notices(std::string_view part) const {
    return static_cast<size_t>(
        std::count_if(notices_.begin(), notices_.end(),
                      [part](const std::string& line) { return line.find(part) != line.npos; }));
  }
  // In place of the tokenizer.model: a tokenizer.json of the 256 bytes, these added tokens and what `more`
  // has.
  void write_byte_vocabulary(std::string_view added_tokens, std::string_view more = "") {
    std::filesystem::remove(folder_.file("tokenizer.model"));
    std::string vocab;
    for (int byte = 0; byte < 256; ++byte) {
      const std::string spelling = byte_level_spelling(std::string(1, static_cast<char>(byte)));
      const char* escape = spelling == "\"" || spelling == "\\" ? "\\" : "";
      vocab += fmt::format(R"({}"{}{}": {})", byte == 0 ? "" : ", ", escape, spelling, byte);
    }
    write("tokenizer.json", fmt::format(R"({{"added_tokens": {}, {} "pre_tokenizer":
        {{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}},
        "model": {{"type": "BPE", "vocab": {{{}}}, "merges": []}}}})",
                                        added_tokens, more, vocab));
  }

 private:
  const TempFolder folder_;
  std::vector<std::string> notices_;
};

constexpr const char* kDecoder = R"({"added_tokens_decoder": {
    "1024": {"content": "<|im_start|>", "special": true},
    "1025": {"content": "<|im_end|>", "special": true, "rstrip": true},
    "1026": {"content": "<think>", "special": false, "lstrip": true}}})";

TEST(AddedTokens, OfTheConfigAreControlOrAddedByTheirFlag) {
  Folder folder;
  folder.write("tokenizer_config.json", kDecoder);
  const Vocabulary v = folder.read(1027);
  ASSERT_EQ(v.size(), 1027u);
  EXPECT_EQ(v.pieces[1024], "<|im_start|>");
  EXPECT_EQ(v.types[1024], TokenType::kControl);
  EXPECT_EQ(v.types[1025], TokenType::kControl);
  EXPECT_EQ(v.types[1026], TokenType::kUserDefined);
  EXPECT_EQ(v.strips_right, std::vector<TokenId>{1025});
  EXPECT_EQ(v.strips_left, std::vector<TokenId>{1026});
  EXPECT_EQ(v.sentencepiece().scores.size(), 1027u);
  EXPECT_EQ(v.sentencepiece().user_defined, std::vector<TokenId>{});
  EXPECT_TRUE(folder.has_notice("1024 pieces, 3 added tokens, 0 unused rows of the embedding"));
}

TEST(AddedTokens, LeaveTheRestOfTheEmbeddingUnused) {
  Folder folder;
  folder.write("tokenizer_config.json", kDecoder);
  const Vocabulary v = folder.read(1088);
  ASSERT_EQ(v.size(), 1088u);
  EXPECT_EQ(v.pieces[1027], "[PAD1027]");
  for (size_t id = 1027; id < 1088; ++id) EXPECT_EQ(v.types[id], TokenType::kUnused) << id;
  EXPECT_TRUE(folder.has_notice("61 unused rows"));
}

TEST(AddedTokens, MayLeaveGapsAndNeedNoFile) {
  Folder folder;
  EXPECT_EQ(folder.read(1088).types[1024], TokenType::kUnused);
  folder.write("added_tokens.json", R"({"<a>": 1030})");
  const Vocabulary v = folder.read(1088);
  EXPECT_EQ(v.pieces[1029], "[PAD1029]");
  EXPECT_EQ(v.pieces[1030], "<a>");
  EXPECT_EQ(v.pieces[1031], "[PAD1031]");
}

TEST(AddedTokens, OfAddedTokensJsonAreSpecialWhereAnotherFileSaysSo) {
  Folder folder;
  folder.write("added_tokens.json",
               R"({"<|im_end|>": 1025, "<|im_start|>": 1024, "<tool>": 1026, "<pad>": 1027})");
  folder.write(
      "special_tokens_map.json",
      R"({"additional_special_tokens": ["<|im_start|>", {"content": "<|im_end|>"}], "pad_token": "<pad>"})");
  const Vocabulary v = folder.read(1028);
  EXPECT_EQ(v.pieces[1024], "<|im_start|>");
  EXPECT_EQ(v.types[1024], TokenType::kControl);
  EXPECT_EQ(v.types[1025], TokenType::kControl);
  EXPECT_EQ(v.types[1026], TokenType::kUserDefined);
  EXPECT_EQ(v.types[1027], TokenType::kControl);
}

TEST(AddedTokens, OfTokenizerJsonCountWhereNoOtherFileHasAny) {
  Folder folder;
  folder.write("tokenizer.json", R"({"model": {"vocab": {"a": 0}}, "added_tokens":
      [{"id": 1024, "content": "<x>", "special": true}, {"id": 1025, "content": "<y>", "special": false}]})");
  EXPECT_EQ(folder.read(1026).types[1024], TokenType::kControl);
  EXPECT_EQ(folder.read(1026).types[1025], TokenType::kUserDefined);
  folder.write("added_tokens.json", R"({"<z>": 1024})");
  EXPECT_EQ(folder.read(1026).pieces[1024], "<z>");
}

TEST(AddedTokens, OfTwoFilesAreJoinedAndContradictionsNamed) {
  Folder folder;
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"1024": {"content": "<a>"}}})");
  folder.write("added_tokens.json", R"({"<a>": 1024, "<b>": 1025})");
  EXPECT_EQ(folder.read(1026).pieces[1025], "<b>");
  EXPECT_FALSE(folder.has_notice("the former counts"));
  folder.write("added_tokens.json", R"({"<b>": 1024, "<c>": 1025})");
  const Vocabulary v = folder.read(1026);
  EXPECT_EQ(v.pieces[1024], "<a>");
  EXPECT_EQ(v.pieces[1025], "<c>");
  EXPECT_TRUE(
      folder.has_notice("token 1024 is '<a>' in tokenizer_config.json and '<b>' in added_tokens.json: "
                        "the former counts (1 in all)"));
}

TEST(AddedTokens, OfOneIdTheFirstCounts) {
  const std::string entries = R"([{"id": 1024, "content": "<a>"}, {"id": 1025, "content": "<b>"},
                                  {"id": 1024, "content": "<c>", "special": true}])";
  Folder folder;
  folder.write("tokenizer.json", R"({"added_tokens": )" + entries + "}");
  Vocabulary v = folder.read(1026);
  EXPECT_EQ(v.pieces[1024], "<a>");
  EXPECT_EQ(v.types[1024], TokenType::kUserDefined);
  EXPECT_TRUE(folder.has_notice(
      "tokenizer.json: added_tokens: token 1024 is '<a>' and '<c>': the former counts (1 in all)"));
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"1024": {"content": "<d>"},
      "01024": {"content": "<e>"}, "1025": {"content": "<b>"}}})");
  EXPECT_EQ(folder.read(1026).pieces[1024], "<d>");
  EXPECT_TRUE(folder.has_notice("added_tokens_decoder: token 1024 is '<d>' and '<e>': the former counts"));
  Folder plain;
  plain.write("added_tokens.json", R"({"<x>": 1024, "<y>": 1024})");
  EXPECT_EQ(plain.read(1025).pieces[1024], "<x>");
  EXPECT_TRUE(plain.has_notice("added_tokens.json: token 1024 is '<x>' and '<y>': the former counts"));
}

TEST(AddedTokens, OfOneIdInAVocabularysOwnFileAreNamedOnce) {
  Folder folder;
  folder.write_byte_vocabulary(R"([{"id": 256, "content": "<a>"}, {"id": 256, "content": "<b>"},
                                   {"id": 97, "content": "<z>"}])");
  const Vocabulary v = folder.read(257);
  EXPECT_EQ(v.pieces[256], "<a>");
  EXPECT_EQ(folder.count_notices("token 256 is '<a>' and '<b>': the former counts (1 in all)"), 1u);
  EXPECT_EQ(v.pieces[97], "<z>");
  EXPECT_EQ(folder.count_notices("token 97 is called '<z>', not '"), 1u);
}

TEST(AddedEnds, ConfigThatContradictsAPostProcessorCountsWithANotice) {
  Folder folder;
  folder.write_byte_vocabulary(R"([{"id": 256, "content": "<s>", "special": true}])",
                               R"("post_processor": {"type": "TemplateProcessing",
          "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
          "special_tokens": {"<s>": {"ids": [256]}}},)");
  EXPECT_TRUE(folder.read(257).add_bos);
  folder.write("tokenizer_config.json", R"({"add_bos_token": true, "add_eos_token": false})");
  EXPECT_TRUE(folder.read(257).add_bos);
  EXPECT_FALSE(folder.has_notice("add_"));
  folder.write("tokenizer_config.json", R"({"add_bos_token": false})");
  EXPECT_FALSE(folder.read(257).add_bos);
  EXPECT_EQ(folder.count_notices("add_bos_token is false, and "), 1u);
}

TEST(SpacePrefix, OfTheConfigCountsBesideATokenizerModelWithANotice) {
  Folder folder;
  EXPECT_TRUE(folder.read().add_space_prefix);
  for (const char* agreed : {R"({"add_prefix_space": null})", R"({"add_prefix_space": true})"}) {
    folder.write("tokenizer_config.json", agreed);
    EXPECT_TRUE(folder.read().add_space_prefix) << agreed;
    EXPECT_FALSE(folder.has_notice("add_prefix_space")) << agreed;
  }
  folder.write("tokenizer_config.json", R"({"add_prefix_space": false})");
  EXPECT_FALSE(folder.read().add_space_prefix);
  EXPECT_TRUE(folder.has_notice("tokenizer.model says true: the former counts"));
}

TEST(SpacePrefix, OfATokenizerJsonIsItsOwn) {
  Folder folder;
  folder.write_byte_vocabulary("[]");
  folder.write("tokenizer_config.json", R"({"add_prefix_space": true})");
  EXPECT_FALSE(folder.read(256).add_space_prefix);
}

TEST(AddedTokens, OfATokenizerJsonBeyondTheEmbeddingAreDropped) {
  Folder folder;
  folder.write_byte_vocabulary(
      R"([{"id": 256, "content": "<a>"}, {"id": 257, "content": "<b>", "rstrip": true},
                                   {"id": 260, "content": "<c>"}])");
  const Vocabulary v = folder.read(257);
  ASSERT_EQ(v.size(), 257u);
  EXPECT_EQ(v.pieces[256], "<a>");
  EXPECT_EQ(v.strips_right, std::vector<TokenId>{});
  EXPECT_TRUE(
      folder.has_notice("token 257 ('<b>') lies beyond the embedding's 257 rows: dropped (2 in all)"));
  // Pieces of text are not dropped.
  EXPECT_NE(error_of([&] { folder.read(255); }).find("261 pieces and"), std::string::npos);
}

TEST(AddedTokens, MarkAndRenamePiecesThatAreThere) {
  Folder folder;
  const Vocabulary plain = folder.read();
  const auto entry = [&](size_t id, const std::string& text, const char* special) {
    return fmt::format(R"("{}": {{"content": "{}", "special": {}}})", id, text, special);
  };
  ASSERT_EQ(plain.types[1000], TokenType::kNormal);
  folder.write("tokenizer_config.json",
               fmt::format(R"({{"added_tokens_decoder": {{{}, {}, {}, {}}}}})", entry(0, "<unk>", "true"),
                           entry(1000, "<new>", "true"), entry(1001, plain.pieces[1001], "false"),
                           entry(2, plain.pieces[2], "true")));
  const Vocabulary v = folder.read();
  EXPECT_EQ(v.types[0], TokenType::kUnknown);
  EXPECT_EQ(v.pieces[1000], "<new>");
  EXPECT_EQ(v.types[1000], TokenType::kControl);
  EXPECT_EQ(v.types[1001], TokenType::kUserDefined);
  EXPECT_TRUE(folder.has_notice("token 1000 is called '<new>', not"));
  EXPECT_FALSE(folder.has_notice("token 1001"));
}

// A field 1 (pieces) behind the others of a serialised model is one more piece.
std::string user_defined_piece(const std::string& text) {
  const std::string type = {0x18, 4};
  const std::string message = std::string{0x0A, static_cast<char>(text.size())} + text + type;
  return std::string{0x0A, static_cast<char>(message.size())} + message;
}

// The folder and the file that is written from it cut the same tokens: sentencepiece's rule is for pieces
// that are still its own.
TEST(AddedTokens, TakeUserDefinedPiecesOver) {
  const std::string model = test::read_file(kTiny + "/tokenizer.model");
  Folder folder;
  folder.write("tokenizer.model", model + user_defined_piece("<turn>") + user_defined_piece("<unused>") +
                                      user_defined_piece("<table>") + user_defined_piece("[PAD]"));
  EXPECT_EQ(folder.read(1028).sentencepiece().user_defined, (std::vector<TokenId>{1024, 1025, 1026, 1027}));
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {
      "1024": {"content": "<turn>", "special": true}, "1025": {"content": "<tool>", "special": false},
      "1026": {"content": "<table>", "special": false}}})");
  const Vocabulary v = folder.read(1028);
  EXPECT_EQ(v.types[1024], TokenType::kControl);
  EXPECT_EQ(v.pieces[1025], "<tool>");
  EXPECT_EQ(v.types[1025], TokenType::kUserDefined);
  EXPECT_EQ(v.sentencepiece().user_defined, (std::vector<TokenId>{1026, 1027}));
}

TEST(AddedTokens, BeyondTheEmbeddingAreDropped) {
  Folder folder;
  folder.write("tokenizer_config.json", kDecoder);
  EXPECT_EQ(folder.read(1024).size(), 1024u);
  EXPECT_TRUE(folder.has_notice(
      "token 1024 ('<|im_start|>') lies beyond the embedding's 1024 rows: dropped (3 in all)"));
}

TEST(AddedTokens, OfAnotherModelAreRefused) {
  Folder folder;
  for (const uint32_t n_rows : {1000u, 2048u}) {
    const std::string error = error_of([&] { folder.read(n_rows); });
    EXPECT_NE(error.find("1024 pieces and 0 added tokens"), std::string::npos) << error;
    EXPECT_NE(error.find(fmt::format("vocab_size = {}", n_rows)), std::string::npos) << error;
  }
}

TEST(AddedTokens, ThatAreMalformedAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"added_tokens_decoder": []})", "added_tokens_decoder must be an object"},
      {R"({"added_tokens_decoder": {"x": {"content": "a"}}})", "'x' is not a token id"},
      {R"({"added_tokens_decoder": {"1024": {"special": true}}})", "token 1024 has no content"},
      {R"({"added_tokens_decoder": {"4": {"content": "a"}}})", "byte token"}};
  for (const auto& [json, part] : cases) {
    Folder folder;
    folder.write("tokenizer_config.json", json);
    const std::string error = error_of([&] { folder.read(1025); });
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_EQ(test::error_code, ErrorCode::kMalformed);
  }
  Folder folder;
  for (const char* id : {"\"b\"", "\"1024\"", "-1", "1024.5", "null"}) {
    folder.write("added_tokens.json", fmt::format(R"({{"a": {}}})", id));
    EXPECT_NE(
        error_of([&] { folder.read(1025); }).find(fmt::format("the id of 'a' is {}, expected a whole", id)),
        std::string::npos)
        << id;
  }
  folder.write("added_tokens.json", R"({"a": 1024.0})");  // as some writers have all numbers
  EXPECT_EQ(folder.read(1025).pieces[1024], "a");
}

TEST(ChatTemplateFile, OfAnotherEncodingIsLeftOutAndAMarkIsNoPartOfIt) {
  Folder folder;
  folder.write("chat_template.jinja", "\xEF\xBB\xBF{{ messages }}");
  EXPECT_EQ(folder.read().chat_template, "{{ messages }}");
  EXPECT_TRUE(folder.has_notice("chat_template.jinja: the byte order mark at its start is left out"));
  folder.write("tokenizer_config.json", R"({"chat_template": "{{ 1 }}"})");
  folder.write("chat_template.jinja", std::string("\xFF\xFE{\0{\0", 6));
  EXPECT_EQ(folder.read().chat_template, "{{ 1 }}");
  EXPECT_TRUE(folder.has_notice("chat_template.jinja: ignored, it is UTF-16, expected UTF-8"));
  folder.write("chat_template.jinja", "{{ messages }} \xE9");
  EXPECT_EQ(folder.read().chat_template, "{{ 1 }}");
  EXPECT_TRUE(folder.has_notice("chat_template.jinja: ignored, it is not UTF-8"));
}

// ---- bos and eos ----

// Three control tokens behind the pieces: <A> 1024, <B> 1025, <C> 1026, <D> 1027.
class SpecialIds : public testing::Test {
 protected:
  SpecialIds() {
    folder_.write("added_tokens.json", R"({"<A>": 1024, "<B>": 1025, "<C>": 1026, "<D>": 1027})");
    folder_.write("special_tokens_map.json",
                  R"({"additional_special_tokens": ["<A>", "<B>", "<C>", "<D>"]})");
  }
  Vocabulary read() { return folder_.read(1028); }
  Folder folder_;
};

TEST_F(SpecialIds, AreThoseOfTokenizerModelWhereNothingElseIsSaid) {
  const Vocabulary v = read();
  EXPECT_EQ(v.bos, 1);
  EXPECT_EQ(v.eos, 2);
  EXPECT_EQ(v.eot, kNoToken);
  EXPECT_EQ(folder_.notices().size(), 1u);  // of the added tokens
}

TEST_F(SpecialIds, ComeFromTheFirstFileThatStatesThem) {
  folder_.write("config.json", R"({"bos_token_id": 1025, "eos_token_id": 1024})");
  EXPECT_EQ(read().eos, 1024);
  EXPECT_EQ(read().bos, 1025);
  EXPECT_TRUE(
      folder_.has_notice("tokenizer.model: eos is 2 ('</s>'), eos is 1024 ('<A>'): the latter counts"));
  folder_.write("generation_config.json", R"({"bos_token_id": 1026, "eos_token_id": 1027})");
  EXPECT_EQ(read().eos, 1027);
  EXPECT_EQ(read().bos, 1026);
  EXPECT_TRUE(folder_.has_notice("config.json: eos_token_id is 1024 ('<A>'), eos is 1027 ('<D>'): both end"));
  EXPECT_TRUE(
      folder_.has_notice("config.json: bos_token_id is 1025 ('<B>'), bos is 1026 ('<C>'): the latter"));
  folder_.write("tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": {"content": "<B>"}})");
  EXPECT_EQ(read().eos, 1025);
  EXPECT_EQ(read().bos, 1);
}

TEST_F(SpecialIds, OfTheSpecialTokensMapCountWhereNothingElseDoes) {
  const auto map = [](const char* eos) {
    return fmt::format(
        R"({{"additional_special_tokens": ["<A>", "<B>", "<C>", "<D>"], "bos_token": "<B>", "eos_token": {}}})",
        eos);
  };
  folder_.write("special_tokens_map.json", map(R"({"content": "<A>"})"));
  EXPECT_EQ(read().eos, 2);
  EXPECT_EQ(read().bos, 1);
  EXPECT_TRUE(folder_.has_notice(
      "special_tokens_map.json: eos_token is 1024 ('<A>'), eos is 2 ('</s>'): the latter"));
  EXPECT_TRUE(
      folder_.has_notice("special_tokens_map.json: bos_token is 1025 ('<B>'), bos is 1 ('<s>'): the latter"));
  // A tokenizer.json without a word on beginnings and ends.
  folder_.write_byte_vocabulary(R"([{"id": 256, "content": "<A>", "special": true},
                                    {"id": 257, "content": "<B>", "special": true}])");
  const Vocabulary v = folder_.read(258);
  EXPECT_EQ(v.eos, 256);
  EXPECT_EQ(v.bos, 257);
  EXPECT_EQ(v.eot, kNoToken);
  folder_.write("special_tokens_map.json", map(R"("<none>")"));
  EXPECT_EQ(folder_.read(258).eos, kNoToken);
  EXPECT_TRUE(folder_.has_notice("special_tokens_map.json: eos_token is '<none>': ignored, no token is"));
}

TEST_F(SpecialIds, ThatAreNoControlTokensDoNotCount) {
  struct Case {
    const char *file, *json, *notice;
  };
  const Case cases[] = {
      {"config.json", R"({"eos_token_id": 980})", "config.json: eos_token_id is 980: ignored, '"},
      {"config.json", R"({"eos_token_id": [980, -1, 5000]})",
       "eos_token_id is 5000: ignored, no id of a vocabulary"},
      {"config.json", R"({"eos_token_id": -1})", "eos_token_id is -1: ignored, no id"},
      {"config.json", R"({"bos_token_id": 0})", "bos_token_id is 0: ignored, '<unk>' is no control token"},
      {"config.json", R"({"eos_token_id": 1})", "eos_token_id is 1: ignored, '<s>' is the bos token"},
      {"generation_config.json", R"({"eos_token_id": [1]})",
       "generation_config.json: eos_token_id is 1: ignored"},
      {"tokenizer_config.json", R"({"eos_token": ","})", "tokenizer_config.json: eos_token is ',': ignored"},
      {"tokenizer_config.json", R"({"eos_token": "<none>"})", "'<none>': ignored, no token is spelled so"},
      {"tokenizer_config.json", R"({"eos_token": 5})", "eos_token is 5: ignored, expected a token's text"},
      {"special_tokens_map.json", R"({"bos_token": []})", "bos_token is []: ignored, expected a token's"}};
  for (const Case& c : cases) {
    Folder folder;
    folder.write(c.file, c.json);
    const Vocabulary v = folder.read();
    EXPECT_EQ(v.eos, 2) << c.json;
    EXPECT_EQ(v.bos, 1) << c.json;
    EXPECT_EQ(v.eot, kNoToken) << c.json;
    EXPECT_TRUE(folder.has_notice(c.notice)) << c.json << testing::PrintToString(folder.notices());
  }
}

// GPT-2, and Qwen's base models.
TEST_F(SpecialIds, OneTokenMayBeBothWhereNoFileStatesAnotherEnd) {
  folder_.write("tokenizer_config.json", R"({"bos_token": "</s>", "eos_token": "</s>"})");
  const Vocabulary v = read();
  EXPECT_EQ(v.bos, 2);
  EXPECT_EQ(v.eos, 2);
  EXPECT_EQ(v.eot, kNoToken);
  EXPECT_TRUE(folder_.has_notice("eos_token is '</s>': '</s>' is the bos token too, and no file names"));
  folder_.write("generation_config.json", R"({"eos_token_id": [2, 1024]})");
  EXPECT_EQ(read().eos, 1024);
  EXPECT_TRUE(folder_.has_notice("generation_config.json: eos_token_id is 2: ignored, '</s>' is the bos"));
}

TEST_F(SpecialIds, MayBeWrittenAsNumbersWithAFraction) {
  folder_.write("config.json", R"({"eos_token_id": 1024.0})");
  EXPECT_EQ(read().eos, 1024);
  folder_.write("config.json", R"({"eos_token_id": 1024.5})");
  EXPECT_EQ(read().eos, 2);
}

TEST_F(SpecialIds, FurtherEndsOfAListEndAnAnswerToo) {
  folder_.write("generation_config.json", R"({"eos_token_id": [2, 1027, 980, 1024, 1026, 1025, 2]})");
  const Vocabulary v = read();
  EXPECT_EQ(v.eos, 2);
  EXPECT_EQ(v.eot, 1027);
  EXPECT_EQ(v.eom, 1024);
  EXPECT_EQ(v.more_ends, (std::vector<TokenId>{1025, 1026}));
}

TEST_F(SpecialIds, PadIsWhatTokenizerConfigSays) {
  folder_.write("tokenizer_config.json", R"({"pad_token": "<C>"})");
  EXPECT_EQ(read().pad, 1026);
}

TEST_F(SpecialIds, ReachTheGgufFile) {
  folder_.write("generation_config.json", R"({"eos_token_id": [1024, 1025, 1026, 1027]})");
  GgufMetadata metadata;
  write_vocabulary(read(), &metadata);
  for (const char* key :
       {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id", "quern.tokenizer.end_token_ids"})
    EXPECT_TRUE(metadata.contains(key)) << key;
}

}  // namespace
}  // namespace quern
