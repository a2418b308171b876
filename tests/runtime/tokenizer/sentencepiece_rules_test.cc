// Rules of SentencePiece vocabularies, one at a time.
#include <gtest/gtest.h>

#include <random>

#include "convert/sentencepiece_model.h"
#include "quant/error.h"
#include "runtime/tokenizer/sentencepiece_tokenizer.h"
#include "tests/runtime/tokenizer_fixtures.h"
#include "tests/support/byte_vocabulary.h"
#include "tests/support/temp_folder.h"

namespace quern::test {
namespace {

using Ids = std::vector<TokenId>;

constexpr TokenId kFirst = 259;  // id of the first word of a byte_vocabulary()

TEST(Tokenizer, MakesNoIdsOfAnEmptyText) {
  const OwnedTokenizer tokenizer(byte_vocabulary({"a"}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.encode_message(""), Ids{});
  EXPECT_EQ(tokenizer.encode_prompt(""), Ids{1});
  EXPECT_EQ(tokenizer.decode({}), "");
}

TEST(Tokenizer, PutsTheSpacePrefixAsTheVocabularySaysButAlwaysBeforeMessages) {
  Vocabulary vocabulary = byte_vocabulary({"\u2581", "a",
                                           "\u2581"
                                           "a"});
  const Ids with = {kFirst + 2}, without = {kFirst + 1};
  EXPECT_EQ(OwnedTokenizer(vocabulary).encode("a"), with);
  vocabulary.add_space_prefix = false;
  const OwnedTokenizer bare(vocabulary);
  EXPECT_EQ(bare.encode("a"), without);
  EXPECT_EQ(bare.encode_message("a"), with);
  EXPECT_EQ(bare.encode(" a"), with);
}

TEST(Tokenizer, AddsBosToPromptsWhereTheVocabularyDoes) {
  Vocabulary vocabulary = byte_vocabulary({"\u2581", "a"});
  EXPECT_EQ(OwnedTokenizer(vocabulary).encode_prompt("a"), (Ids{1, kFirst, kFirst + 1}));
  vocabulary.add_bos = false;
  EXPECT_EQ(OwnedTokenizer(vocabulary).encode_prompt("a"), (Ids{kFirst, kFirst + 1}));
}

TEST(Tokenizer, NeverMatchesControlPiecesInText) {
  // One character long, or spelled like a normal piece: both would slip through in sentencepiece itself.
  Vocabulary vocabulary = byte_vocabulary({"\u2581", "$", "x", "y", "xy", "xy"});
  vocabulary.types[kFirst + 1] = TokenType::kControl;
  vocabulary.types[kFirst + 4] = TokenType::kControl;
  const OwnedTokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.encode("$"), (Ids{kFirst, vocabulary.sentencepiece().byte_ids['$']}));
  EXPECT_EQ(tokenizer.encode("xy"), (Ids{kFirst, kFirst + 5}));
  EXPECT_EQ(tokenizer.decode(Ids{kFirst + 4, kFirst + 2}), "x");
}

TEST(Tokenizer, TakesTheLowestIdOfEqualPieces) {
  const OwnedTokenizer tokenizer(byte_vocabulary({"\u2581", "a", "a"}));
  EXPECT_EQ(tokenizer.encode("a"), (Ids{kFirst, kFirst + 1}));
  EXPECT_EQ(tokenizer.decode(Ids{kFirst + 2}), "a");
}

TEST(Tokenizer, LoadsPiecesThatNoTextCanMatch) {
  const OwnedTokenizer tokenizer(byte_vocabulary(
      {"\u2581", "", "\xFF\xFE", std::string("n\0l", 3), "two words", "<0x41>", " 261", "A", "<", "0x41>"}));
  EXPECT_EQ(tokenizer.encode("A"), (Ids{kFirst, kFirst + 7}));
  // Spelled out in text, the name of a byte is text.
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("<0x41>")), "<0x41>");
  EXPECT_EQ(tokenizer.decode(Ids{kFirst + 2}), "\uFFFD\uFFFD");
  EXPECT_EQ(tokenizer.decode(Ids{kFirst + 3}), std::string("n\0l", 3));
  EXPECT_EQ(tokenizer.decode(Ids{kFirst + 4}), "two words");
}

TEST(Tokenizer, KnowsTheUnknownPieceByItsIdWhereItIsMarkedControl) {
  Vocabulary vocabulary =
      byte_vocabulary({"\u2581"
                       "a"});
  vocabulary.types[0] = TokenType::kControl;
  const OwnedTokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.decode(Ids{0, kFirst}), " \u2047  a");
  EXPECT_EQ(tokenizer.encode("é"), (Ids{0xE2 + 3, 0x96 + 3, 0x81 + 3, 0xC3 + 3, 0xA9 + 3}));
}

TEST(Tokenizer, MatchesUserDefinedPiecesWithSpacesHoweverTheyAreSpelled) {
  Vocabulary vocabulary = byte_vocabulary({"\u2581", "b c",
                                           "d\u2581"
                                           "e"});
  vocabulary.types[kFirst + 1] = vocabulary.types[kFirst + 2] = TokenType::kUserDefined;
  const OwnedTokenizer added(vocabulary);
  EXPECT_EQ(added.encode("b cd e"), (Ids{kFirst + 1, kFirst + 2}));  // no text, no space prefix
  vocabulary.sentencepiece().user_defined = {kFirst + 1, kFirst + 2};
  const OwnedTokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.encode("b cd e"), (Ids{kFirst, kFirst + 1, kFirst + 2}));
  EXPECT_EQ(tokenizer.decode(Ids{kFirst + 1, kFirst + 2}), "b cd e");
}

TEST(Tokenizer, FindsControlTokensInTextsWhoseRoleAllowsThem) {
  const OwnedTokenizer tokenizer(byte_vocabulary({"\u2581", "a", "<", "s", ">",
                                                  "\u2581"
                                                  "a"}));
  const Ids spelled = {kFirst, kFirst + 2, kFirst + 3, kFirst + 4};
  EXPECT_EQ(tokenizer.encode("<s>"), spelled);
  EXPECT_EQ(tokenizer.encode("<s>", TextRole::kMessage), spelled);
  // Behind a control token stands the space prefix again.
  EXPECT_EQ(tokenizer.encode("a<s>a", TextRole::kRawSpecial), (Ids{kFirst + 5, 1, kFirst + 5}));
  EXPECT_EQ(tokenizer.encode("a<s>a", TextRole::kTemplate), (Ids{kFirst + 5, 1, kFirst + 5}));
  const std::vector<TextSpan> spans = {{"<s>", TextRole::kTemplate}, {"a<s>", TextRole::kMessage}};
  EXPECT_EQ(tokenizer->encode(spans), (Ids{1, kFirst + 5, kFirst + 2, kFirst + 3, kFirst + 4}));
}

// What llama.cpp gives for the same vocabulary.
TEST(Tokenizer, CutsAddedTokensOutAsOtherProgramsDo) {
  Vocabulary vocabulary = load_vocabulary("mistral-v1");
  vocabulary.pieces[31998] = "<|im_start|>";
  vocabulary.pieces[31999] = "<|im_end|>";
  vocabulary.types[31998] = vocabulary.types[31999] = TokenType::kUserDefined;
  const OwnedTokenizer tokenizer(std::move(vocabulary));
  EXPECT_EQ(tokenizer.encode_prompt("<|im_start|>user\n"), (Ids{1, 31998, 2188, 13}));
  EXPECT_EQ(tokenizer.encode("<|im_start|>user\nHello there<|im_end|>\n"),
            (Ids{31998, 2188, 13, 16230, 736, 31999, 28705, 13}));
  const Ids message = tokenizer.encode("<|im_start|>", TextRole::kMessage);
  EXPECT_EQ(std::count(message.begin(), message.end(), 31998), 0);
}

TEST(Tokenizer, MessagesSpellUserDefinedPiecesThatPeopleWriteButNoMarkup) {
  Vocabulary vocabulary =
      byte_vocabulary({"\u2581", "<", "|", "x", ">", "[", "]", "P", "<|x|>", "[P]", "<x>", "</x>", "\n\n"});
  for (TokenId id = kFirst + 8; id < kFirst + 13; ++id) {
    vocabulary.types[static_cast<size_t>(id)] = TokenType::kUserDefined;
    vocabulary.sentencepiece().user_defined.push_back(id);
  }
  const OwnedTokenizer tokenizer(vocabulary);
  const std::string text = "<|x|>[P]<x></x>\n\n";
  EXPECT_EQ(tokenizer.encode(text),
            (Ids{kFirst, kFirst + 8, kFirst + 9, kFirst + 10, kFirst + 11, kFirst + 12}));
  const Ids message = {kFirst,     kFirst + 1, kFirst + 2, kFirst + 3,  kFirst + 2,  kFirst + 4,
                       kFirst + 5, kFirst + 7, kFirst + 6, kFirst + 10, kFirst + 11, kFirst + 12};
  EXPECT_EQ(tokenizer.encode(text, TextRole::kMessage), message);
  EXPECT_EQ(tokenizer.encode_message(text), message);
  // Only where the message wrote it.
  const std::vector<TextSpan> spans = {
      {"[P]", TextRole::kTemplate}, {"[P]", TextRole::kMessage}, {"[P]", TextRole::kTemplate}};
  EXPECT_EQ(tokenizer->encode(spans),
            (Ids{kFirst, kFirst + 9, kFirst + 5, kFirst + 7, kFirst + 6, kFirst + 9}));
}

TEST(Tokenizer, AddsNoSecondBos) {
  const OwnedTokenizer tokenizer(byte_vocabulary({"\u2581", "a"}));
  EXPECT_EQ(tokenizer->encode_prompt("<s>a", TextRole::kRawSpecial), (Ids{1, kFirst, kFirst + 1}));
  EXPECT_EQ(tokenizer->encode_prompt("<s><s>a", TextRole::kRawSpecial), (Ids{1, 1, kFirst, kFirst + 1}));
}

TEST(Tokenizer, EndsADocumentButNoPromptWithEosWhereTheVocabularyDoes) {
  Vocabulary vocabulary = byte_vocabulary({"\u2581", "a"});
  EXPECT_EQ(OwnedTokenizer(vocabulary)->encode_document("a"), (Ids{1, kFirst, kFirst + 1}));
  vocabulary.add_eos = true;
  EXPECT_EQ(OwnedTokenizer(vocabulary)->encode_document("a"), (Ids{1, kFirst, kFirst + 1, 2}));
  EXPECT_EQ(OwnedTokenizer(vocabulary)->encode_prompt("a"), (Ids{1, kFirst, kFirst + 1}));
}

TEST(Tokenizer, UnknownCharactersAreUnkWithoutBytePieces) {
  Vocabulary vocabulary;
  vocabulary.pieces = {"<unk>", "\u2581", "a"};
  vocabulary.types = {TokenType::kUnknown, TokenType::kNormal, TokenType::kNormal};
  vocabulary.sentencepiece().scores = {0, -1, -2};
  vocabulary.unk = 0;
  vocabulary.add_bos = false;
  check_vocabulary(vocabulary, "test", {});
  const OwnedTokenizer tokenizer(std::move(vocabulary));
  EXPECT_EQ(tokenizer.encode("aéß a"), (Ids{1, 2, 0, 1, 2}));  // sentencepiece makes one of neighbours
}

TEST(Tokenizer, PaddingOfTheEmbeddingIsNeverAText) {
  Vocabulary vocabulary = load_vocabulary("mistral-v1");
  const std::string text = read_file(test_data("tiny-mistral/test.txt")).substr(0, 20'000) + "[PAD32000]";
  const Ids ids = OwnedTokenizer(vocabulary).encode(text);
  for (int id = 32000; id < 32064; ++id) {
    vocabulary.pieces.push_back(fmt::format("[PAD{}]", id));
    vocabulary.types.push_back(TokenType::kUnused);
    vocabulary.sentencepiece().scores.push_back(-1000);
  }
  const OwnedTokenizer padded(std::move(vocabulary));
  EXPECT_EQ(padded.encode(text), ids);
  EXPECT_EQ(padded->unused_ids().size(), 64u);
  EXPECT_EQ(padded->unused_ids()[0], 32000);
}

TEST(Tokenizer, EndsAtEveryEndOfTheVocabulary) {
  Vocabulary vocabulary = byte_vocabulary({"a", "b", "c", "d"});
  vocabulary.eot = kFirst;
  vocabulary.eom = kFirst + 1;
  vocabulary.more_ends = {kFirst + 2};
  const OwnedTokenizer tokenizer(std::move(vocabulary));
  for (const TokenId id : {2, kFirst, kFirst + 1, kFirst + 2}) EXPECT_TRUE(tokenizer->ends_text(id)) << id;
  EXPECT_FALSE(tokenizer->ends_text(kFirst + 3));
  EXPECT_EQ(tokenizer->end_ids().size(), 4u);
}

TEST(Tokenizer, DropsWhiteSpaceBesideTokensThatStrip) {
  Vocabulary vocabulary = byte_vocabulary({"\u2581", "a", "<x>", "<y>"});
  vocabulary.types[kFirst + 2] = vocabulary.types[kFirst + 3] = TokenType::kUserDefined;
  vocabulary.strips_right = {kFirst + 2};
  vocabulary.strips_left = {kFirst + 3};
  const OwnedTokenizer tokenizer(std::move(vocabulary));
  EXPECT_EQ(tokenizer.encode("<x>\n a\n<y>a"),
            (Ids{kFirst + 2, kFirst, kFirst + 1, kFirst + 3, kFirst, kFirst + 1}));
}

TEST(Tokenizer, TellsWhatItKnowsOfAnId) {
  const OwnedTokenizer tokenizer(
      byte_vocabulary({"\u2581"
                       "Hi",
                       "a", "a"}));
  EXPECT_EQ(tokenizer->find("a"), kFirst + 1);
  EXPECT_EQ(tokenizer->find("</s>"), 2);
  EXPECT_EQ(tokenizer->find("b"), std::nullopt);
  EXPECT_EQ(tokenizer->piece(kFirst), "\u2581Hi");
  EXPECT_EQ(tokenizer->decoded(kFirst).text, " Hi");
  EXPECT_EQ(tokenizer->decoded(3 + 0xFF).text, "\xFF");
  EXPECT_TRUE(tokenizer->is_control(1));
  EXPECT_FALSE(tokenizer->is_control(kFirst));
  EXPECT_TRUE(tokenizer->ends_text(2));
  EXPECT_FALSE(tokenizer->ends_text(1));
  EXPECT_EQ(tokenizer->longest_piece_bytes(), 6u);
  EXPECT_THROW(tokenizer->piece(-1), Error);
  EXPECT_THROW(tokenizer->is_control(kFirst + 3), Error);
}

TEST(Tokenizer, OfAFamilyThatIsNotSupportedIsRefusedByName) {
  Vocabulary vocabulary;
  vocabulary.model = "wordpiece";
  vocabulary.parts = BytePairParts{};
  try {
    make_tokenizer(std::move(vocabulary));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMalformed);
    EXPECT_NE(std::string(error.what()).find("'wordpiece'"), std::string::npos) << error.what();
  }
}

TEST(Tokenizer, TakesUnusedPiecesApartAgain) {
  Vocabulary vocabulary = byte_vocabulary({"\u2581", "a", "b", "ab", "abb"});
  vocabulary.types[kFirst + 3] = TokenType::kUnused;
  const OwnedTokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.encode("ab"), (Ids{kFirst, kFirst + 1, kFirst + 2}));
  EXPECT_EQ(tokenizer.encode("abb"), (Ids{kFirst, kFirst + 4}));
}

TEST(Tokenizer, RefusesATextThatCannotBeTakenApartAndIsTooLarge) {
  Vocabulary vocabulary = byte_vocabulary({"\u2581", "a", "aa"});
  vocabulary.types[kFirst + 2] = TokenType::kUnused;
  const OwnedTokenizer tokenizer(std::move(vocabulary));
  try {
    tokenizer.encode(std::string(65 << 20, 'a'));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResource);
  }
}

TEST(Tokenizer, RefusesIdsOutsideTheVocabulary) {
  const OwnedTokenizer tokenizer(byte_vocabulary({"a"}));
  for (const TokenId id : {-1, kFirst + 1, std::numeric_limits<TokenId>::max()}) {
    EXPECT_THROW(tokenizer.decode(Ids{id}), Error) << id;
  }
}

TEST(Tokenizer, WorksOrIsRefusedWithTheVocabularyOfADamagedModel) {
  const std::string model = read_file(tokenizer_model_path("stories260k"));
  const std::string text = "Once upon a time, é 🦙 </s>\n";
  std::mt19937 random(8);
  size_t n_working = 0;
  for (int i = 0; i < 500; ++i) {
    std::string damaged = model;
    damaged[random() % damaged.size()] = static_cast<char>(random());
    try {
      const OwnedTokenizer tokenizer(read_sentencepiece_model(
          {reinterpret_cast<const uint8_t*>(damaged.data()), damaged.size()}, "damaged", {}));
      // A space prefix that was switched off is the one flag that changes the text.
      EXPECT_EQ(tokenizer.decode(tokenizer.encode_message(text)), text) << i;
      ++n_working;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMalformed) << error.what();
    }
  }
  EXPECT_GT(n_working, 50u);
}

TEST(Tokenizer, PrintsNothing) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const OwnedTokenizer tokenizer(load_vocabulary("mistral-v1"));
  tokenizer.decode(tokenizer.encode("\xFF hello \u2581 🦙"));
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(StreamDecoder, HoldsIncompleteCharactersBack) {
  const OwnedTokenizer tokenizer(byte_vocabulary({"\u2581", "x"}));
  StreamDecoder decoder(tokenizer, {});
  const auto push = [&](int byte) {
    return decoder.push(tokenizer.vocabulary().sentencepiece().byte_ids[byte]);
  };
  EXPECT_EQ(push(0xF0), "");
  EXPECT_EQ(push(0x9F), "");
  EXPECT_EQ(push(0xA6), "");
  EXPECT_EQ(push(0x99), "🦙");
  EXPECT_EQ(push(0xE0), "");
  EXPECT_EQ(push(0x80), "\uFFFD\uFFFD");  // overlong: no need to wait for more
  EXPECT_EQ(push(0xF5), "\uFFFD");
  EXPECT_EQ(push(0xC3), "");
  EXPECT_EQ(decoder.push(kFirst + 1), "\uFFFDx");
  EXPECT_EQ(push(0xE2), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
}

TEST(StreamDecoder, KeepsTheLeadingSpaceOfAReply) {
  const OwnedTokenizer tokenizer(
      byte_vocabulary({"\u2581"
                       "Hi",
                       "x"}));
  EXPECT_EQ(stream(tokenizer, {}, {kFirst}), "Hi");
  EXPECT_EQ(stream(tokenizer, {1}, {kFirst}), "Hi");
  EXPECT_EQ(stream(tokenizer, {1, kFirst + 1}, {kFirst}), " Hi");
}

}  // namespace
}  // namespace quern::test
