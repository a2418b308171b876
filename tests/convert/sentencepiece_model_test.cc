// Models that load, models that are refused and why, and models that are damaged.
#include "convert/sentencepiece_model.h"

#include <gtest/gtest.h>

#include <random>

#include "quant/utf8.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace quern::test {
namespace {

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7F) | 0x80);
  return bytes + static_cast<char>(value);
}
std::string number(uint32_t field, uint64_t value) { return varint(field << 3) + varint(value); }
std::string block(uint32_t field, const std::string& bytes) {
  return varint(field << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string piece(const std::string& text, const std::string& rest = "") {
  return block(1, block(1, text) + rest);
}
std::string trainer(const std::string& fields) { return block(2, fields); }
std::string normalizer(const std::string& fields) { return block(3, fields); }

// The smallest model that loads: <unk>, <s>, </s>, all bytes, and "a" (id 259).
std::string small_pieces() {
  std::string bytes = piece("<unk>", number(3, 2)) + piece("<s>", number(3, 3)) + piece("</s>", number(3, 3));
  for (int byte = 0; byte < 256; ++byte) bytes += piece(fmt::format("<0x{:02X}>", byte), number(3, 6));
  return bytes + piece("a");
}
std::string small_specs() {
  return trainer(number(3, 2) + number(35, 1)) + normalizer(block(1, "identity") + number(4, 0));
}
std::string small_model() { return small_pieces() + small_specs(); }

struct Outcome {
  std::optional<Vocabulary> vocabulary;
  std::string error;
  std::vector<std::string> notices;
};

Outcome read(std::string_view bytes) {
  Outcome outcome;
  try {
    outcome.vocabulary = read_sentencepiece_model(
        {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "x/tokenizer.model",
        [&](std::string_view line) { outcome.notices.emplace_back(line); });
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMalformed);
    outcome.error = error.what();
    EXPECT_TRUE(outcome.error.starts_with("x/tokenizer.model: ")) << outcome.error;
  }
  return outcome;
}

TEST(SentencePieceModel, ReadsTheSmallestModel) {
  const Outcome outcome = read(small_model());
  ASSERT_TRUE(outcome.vocabulary) << outcome.error;
  const Vocabulary& vocabulary = *outcome.vocabulary;
  EXPECT_EQ(vocabulary.size(), 260u);
  EXPECT_EQ(vocabulary.pieces[259], "a");
  EXPECT_EQ(vocabulary.types[259], TokenType::kNormal);
  EXPECT_EQ(vocabulary.unk, 0);
  EXPECT_EQ(vocabulary.bos, 1);
  EXPECT_EQ(vocabulary.eos, 2);
  EXPECT_EQ(vocabulary.pad, kNoToken);
  EXPECT_TRUE(vocabulary.add_bos);
  EXPECT_FALSE(vocabulary.add_eos);
  EXPECT_TRUE(vocabulary.add_space_prefix);
  EXPECT_FALSE(vocabulary.remove_extra_whitespaces);
  EXPECT_EQ(vocabulary.sentencepiece().byte_ids['A'], 3 + 'A');
  EXPECT_TRUE(outcome.notices.empty());
}

TEST(SentencePieceModel, ReadsTheMistralVocabulary) {
  const Outcome outcome = read(read_file(test_data("tokenizers/mistral-v1.model")));
  ASSERT_TRUE(outcome.vocabulary) << outcome.error;
  const Vocabulary& vocabulary = *outcome.vocabulary;
  EXPECT_EQ(vocabulary.size(), 32000u);
  EXPECT_EQ(vocabulary.pieces[22557], "\u2581Hello");
  EXPECT_EQ(vocabulary.sentencepiece().scores[28705], -1e9f);
  EXPECT_EQ(vocabulary.types[0], TokenType::kUnknown);
  EXPECT_EQ(vocabulary.types[1], TokenType::kControl);
  EXPECT_EQ(vocabulary.types[258], TokenType::kByte);
  EXPECT_EQ(vocabulary.sentencepiece().byte_ids[255], 258);
  EXPECT_TRUE(outcome.notices.empty());
}

TEST(SentencePieceModel, KeepsUserDefinedPiecesButForLoneCharacters) {
  const std::string user_defined = number(3, 4);
  const Outcome outcome = read(small_model() + piece("<|x|>", user_defined) + piece("\t", user_defined) +
                               piece("z", user_defined) + piece("zz"));
  ASSERT_TRUE(outcome.vocabulary) << outcome.error;
  const Vocabulary& vocabulary = *outcome.vocabulary;
  const size_t first = vocabulary.size() - 4;
  EXPECT_EQ(vocabulary.types[first], TokenType::kUserDefined);
  EXPECT_EQ(vocabulary.types[first + 1], TokenType::kNormal);       // in no other piece
  EXPECT_EQ(vocabulary.types[first + 2], TokenType::kUserDefined);  // merges could take it
  EXPECT_EQ(vocabulary.sentencepiece().user_defined,
            (std::vector<TokenId>{static_cast<TokenId>(first), static_cast<TokenId>(first + 2)}));
}

TEST(SentencePieceModel, MakesTheLineEndOfTinyMistralNormal) {
  const Outcome outcome = read(read_file(test_data("tiny-mistral/tokenizer.model")));
  ASSERT_TRUE(outcome.vocabulary) << outcome.error;
  EXPECT_EQ(outcome.vocabulary->pieces[3], "\n");
  EXPECT_EQ(outcome.vocabulary->types[3], TokenType::kNormal);
}

TEST(SentencePieceModel, TakesIdsAndFlagsFromTheSpecs) {
  const uint64_t minus_one = ~uint64_t{0};
  const Outcome outcome =
      read(small_model() + trainer(number(41, minus_one) + number(42, 1) + number(43, 2)) +
           normalizer(number(3, 0)));
  ASSERT_TRUE(outcome.vocabulary) << outcome.error;
  EXPECT_EQ(outcome.vocabulary->bos, kNoToken);
  EXPECT_EQ(outcome.vocabulary->eos, 1);
  EXPECT_EQ(outcome.vocabulary->pad, 2);
  EXPECT_FALSE(outcome.vocabulary->add_bos);
  EXPECT_FALSE(outcome.vocabulary->add_space_prefix);
}

TEST(SentencePieceModel, WarnsOfRemovedSpaces) {
  const Outcome outcome = read(small_model() + normalizer(number(4, 1)));
  ASSERT_TRUE(outcome.vocabulary) << outcome.error;
  EXPECT_TRUE(outcome.vocabulary->remove_extra_whitespaces);
  ASSERT_EQ(outcome.notices.size(), 1u);
  EXPECT_NE(outcome.notices[0].find("remove_extra_whitespaces"), std::string::npos);
}

TEST(SentencePieceModel, SkipsFieldsThatItDoesNotKnow) {
  const std::string unknown = number(200, 1) + block(203, "text") + varint(201 << 3 | 1) +
                              std::string(8, 'x') + varint(202 << 3 | 5) + std::string(4, 'x');
  EXPECT_TRUE(read(unknown + small_model() + unknown).vocabulary);
  EXPECT_TRUE(read(small_model() + trainer(unknown) + normalizer(unknown) + piece("b", unknown)).vocabulary);
}

struct Refused {
  const char* name;
  std::string bytes;
  const char* error;
};

void PrintTo(const Refused& refused, std::ostream* out) { *out << refused.error; }

class RefusedModel : public testing::TestWithParam<Refused> {};

TEST_P(RefusedModel, IsRefusedWithItsReason) {
  const Outcome outcome = read(GetParam().bytes);
  EXPECT_FALSE(outcome.vocabulary);
  EXPECT_NE(outcome.error.find(GetParam().error), std::string::npos) << outcome.error;
}

std::vector<Refused> refused_models() {
  const std::string model = small_model();
  const auto huge = [](uint64_t length) { return varint(1 << 3 | 2) + varint(length); };
  std::string score_nan = "\x15";
  score_nan += std::string("\x00\x00\xC0\x7F", 4);
  return {
      {"Empty", "", "tokenizer.model"},
      {"LfsPointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs"},
      {"Json", "{\"version\": \"1.0\"}", "JSON"},
      {"Html", "<!DOCTYPE html>", "HTML"},
      {"TruncatedBlock", model.substr(0, model.size() - 3), "truncated"},
      {"TruncatedTag", model + "\x80", "truncated"},
      {"LengthPastTheEnd", model + huge(0xFFFFFFFF), "length of 4294967295"},
      {"LengthOf64Bits", model + huge(~uint64_t{0}), "length of 18446744073709551615"},
      {"NumberOf65Bits", model + "\x08" + std::string(9, '\xFF') + "\x02", "64 bits"},
      {"NumberWithoutEnd", model + "\x08" + std::string(20, '\xFF'), "64 bits"},
      {"FieldZero", model + std::string("\x02\x00", 2), "field number 0"},
      {"StartOfGroup", model + "\x53", "wire type 3"},
      {"EndOfGroup", model + "\x54", "wire type 4"},
      {"WireType7", model + "\x57", "wire type 7"},
      {"PieceOfWrongWireType", model + number(1, 5), "wire type 0"},
      {"ScoreOfWrongWireType", model + piece("b", number(2, 5)), "wire type 0"},
      {"NoPieces", small_specs(), "vocabulary is empty"},
      {"PieceWithoutText", model + block(1, number(3, 1)), "piece 260 has no text"},
      {"PieceTooLong", model + piece(std::string(65'537, 'x')), "65537 bytes"},
      {"DuplicatePiece", model + piece("a"), "already defined"},
      {"DuplicateControl", model + piece("<s>", number(3, 3)), "already defined"},
      {"InvalidUtf8", model + piece("\xC3("), "UTF-8"},
      {"Type0", model + piece("b", number(3, 0)), "type 0"},
      {"Type9", model + piece("b", number(3, 9)), "type 9"},
      {"TypeBeyond32Bits", model + piece("b", number(3, 1ULL << 32 | 1)), "32 bits"},
      {"ScoreNotFinite", model + piece("b", score_nan), "score nan"},
      {"ByteMisspelt", model + piece("<0x-1>", number(3, 6)), "byte"},
      {"ByteLowerCase", model + piece("<0xab>", number(3, 6)), "byte"},
      {"ByteMissing", piece("<unk>", number(3, 2)) + piece("a") + piece("b") + small_specs(), "byte"},
      {"TwoUnknown", model + piece("<unk2>", number(3, 2)), "second unk"},
      {"NoUnknown", model.substr(piece("<unk>", number(3, 2)).size()), "no unk"},
      {"UnknownElsewhere", model + trainer(number(40, 1)), "unk_id is 1"},
      {"BosOutside", model + trainer(number(41, 99'999)), "bos_id is 99999"},
      {"EosOutside", model + trainer(number(42, 260)), "eos_id is 260"},
      {"PadOutside", model + trainer(number(43, 1 << 20)), "pad_id"},
      {"Charsmap", model + normalizer(block(2, "xyz")), "the normalizer's precompiled_charsmap"},
      {"NamedNormalizer", model + normalizer(block(1, "nmt_nfkc")), "normalizer (nmt_nfkc)"},
      {"Denormalizer", model + block(5, block(2, "xyz")), "denormalizer"},
      {"UnescapedSpaces", model + normalizer(number(5, 0)), "escape_whitespaces"},
      {"SuffixSpaces", model + trainer(number(24, 1)), "treat_whitespace_as_suffix"},
      {"NoByteFallback", model + trainer(number(35, 0)), "byte_fallback"},
      {"UnigramWithRanks", model + trainer(number(3, 1)), "(unigram), but the scores are whole numbers"},
      {"Word", model + trainer(number(3, 3)), "word"},
      {"Char", model + trainer(number(3, 4)), "char"},
      {"ModelType77", model + trainer(number(3, 77)), "model_type is 77"},
      {"NoSpecs", small_pieces(), "the trainer_spec, which would say otherwise, is missing: cut short?"},
      {"ZerosBehind", small_pieces() + std::string(64, '\0'),
       "only zeros follow, as in an unfinished download"},
  };
}

INSTANTIATE_TEST_SUITE_P(Reasons, RefusedModel, testing::ValuesIn(refused_models()),
                         [](const auto& test) { return test.param.name; });

TEST(SentencePieceModel, NamesTheOffset) {
  const std::string model = small_model();
  EXPECT_NE(read(model + "\x57").error.find(fmt::format("(offset {:#x})", model.size())), std::string::npos);
}

TEST(SentencePieceModel, PrintsNoControlBytesOfAFile) {
  const std::string error =
      read(small_model() + piece("\x1B[31mred\n\x07") + piece("\x1B[31mred\n\x07")).error;
  ASSERT_FALSE(error.empty());
  EXPECT_TRUE(
      std::none_of(error.begin(), error.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }));
}

// What a damaged file may do: be refused, or load as a vocabulary in good order.
void expect_sound(const Outcome& outcome) {
  ASSERT_NE(outcome.vocabulary.has_value(), !outcome.error.empty());
  if (!outcome.vocabulary) return;
  const Vocabulary& vocabulary = *outcome.vocabulary;
  ASSERT_EQ(vocabulary.sentencepiece().scores.size(), vocabulary.size());
  ASSERT_EQ(vocabulary.types.size(), vocabulary.size());
  for (const TokenId id : {vocabulary.bos, vocabulary.eos, vocabulary.unk, vocabulary.pad}) {
    ASSERT_TRUE(id == kNoToken || (id >= 0 && static_cast<size_t>(id) < vocabulary.size()));
  }
  for (const std::string& text : vocabulary.pieces) ASSERT_TRUE(!text.empty() && is_valid_utf8(text));
}

TEST(SentencePieceModel, RefusesEveryTruncation) {
  const std::string model = small_pieces() + trainer(number(3, 2) + number(35, 1));
  for (size_t size = 0; size < model.size(); ++size) {
    // In memory of its own size, so that a byte too far is seen.
    const std::vector<char> shorter(model.begin(), model.begin() + static_cast<ptrdiff_t>(size));
    ASSERT_FALSE(read({shorter.data(), shorter.size()}).vocabulary) << size;
  }
  ASSERT_TRUE(read(model).vocabulary);
}

TEST(SentencePieceModel, SurvivesDamagedBytes) {
  const std::string model = read_file(test_data("stories260k/tokenizer.model"));
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = model;
    damaged[random() % damaged.size()] = static_cast<char>(random());
    expect_sound(read(damaged));
  }
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = small_model();
    for (int n = 0; n < 3; ++n) damaged[random() % damaged.size()] = static_cast<char>(random());
    expect_sound(read(damaged));
  }
}

}  // namespace
}  // namespace quern::test
