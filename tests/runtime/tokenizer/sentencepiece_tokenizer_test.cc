// Ids and texts against golden lines (made by sentencepiece and mistral_common), and against the
// sentencepiece library on the original model files.
#include "runtime/tokenizer/sentencepiece_tokenizer.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <random>

#include "convert/sentencepiece_model.h"
#include "quant/error.h"
#include "quant/utf8.h"
#include "tests/runtime/tokenizer_fixtures.h"
#include "tests/support/json.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace quern::test {
namespace {

using Ids = std::vector<TokenId>;

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

// What sentencepiece makes of `model` (bytes of a tokenizer.model).
class Reference {
 public:
  explicit Reference(const std::string& model) {
    const auto status = processor_.LoadFromSerializedProto(model);
    if (!status.ok()) throw std::runtime_error(status.ToString());
  }
  Ids encode(const std::string& text) const {
    Ids ids;
    if (!processor_.Encode(text, &ids).ok()) throw std::runtime_error("sentencepiece cannot encode");
    return ids;
  }
  std::string decode(const Ids& ids) const { return processor_.DecodeIds(ids); }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};

// Text of `n` parts drawn from words, spaces, line ends, and characters of one to four bytes.
std::string random_text(std::mt19937* random, size_t n) {
  static const std::vector<std::string> parts = {" ",
                                                 " ",
                                                 "  ",
                                                 "    ",
                                                 "\n",
                                                 "\n\n",
                                                 "\t",
                                                 "the",
                                                 "Romeo",
                                                 "and",
                                                 "ing",
                                                 "1",
                                                 "42",
                                                 ".",
                                                 ",",
                                                 "é",
                                                 "ß",
                                                 "你",
                                                 "好",
                                                 "🦙",
                                                 "\u2581",
                                                 "\u00a0",
                                                 "\uFFFD",
                                                 "</s>",
                                                 "<0x0A>",
                                                 "[INST]",
                                                 "aaaa",
                                                 "Juliet",
                                                 std::string(1, '\0')};
  std::string text;
  for (size_t i = 0; i < n; ++i) text += parts[(*random)() % parts.size()];
  return text;
}

Ids random_ids(std::mt19937* random, const Vocabulary& vocabulary, size_t n) {
  Ids ids;
  for (size_t i = 0; i < n; ++i) {
    // Half of them byte tokens, so that characters get built, cut and broken.
    const bool byte = (*random)() % 2 == 0;
    ids.push_back(byte ? vocabulary.sentencepiece().byte_ids[(*random)() % 256]
                       : static_cast<TokenId>((*random)() % vocabulary.size()));
  }
  return ids;
}

std::string stream(const Tokenizer& tokenizer, const Ids& context, const Ids& ids) {
  StreamDecoder decoder(tokenizer, context);
  std::string text;
  for (const TokenId id : ids) {
    const std::string piece = decoder.push(id);
    EXPECT_TRUE(is_valid_utf8(piece)) << "after id " << id;
    text += piece;
  }
  return text + decoder.finish();
}

// ---- golden lines ----

class GoldenTokens : public testing::TestWithParam<Route> {
 protected:
  static const OwnedTokenizer& tokenizer() {
    static const OwnedTokenizer from_model(load_vocabulary("mistral-v1", Route::kModelFile));
    static const OwnedTokenizer from_gguf(load_vocabulary("mistral-v1", Route::kGguf));
    return GetParam() == Route::kModelFile ? from_model : from_gguf;
  }
};

TEST_P(GoldenTokens, EncodesEveryTextAsSentencePieceDoes) {
  const auto lines = golden_lines("text");
  ASSERT_FALSE(lines.empty());
  for (const auto& line : lines) {
    const std::string text = line["text"];
    EXPECT_EQ(tokenizer().encode(text), line["ids"].get<Ids>()) << line["n"];
    EXPECT_EQ(tokenizer().decode(line["ids"].get<Ids>()), line["decoded"].get<std::string>()) << line["n"];
  }
}

TEST_P(GoldenTokens, ReplacesEveryMalformedByte) {
  const auto lines = golden_lines("text_bytes");
  ASSERT_FALSE(lines.empty());
  for (const auto& line : lines) {
    EXPECT_EQ(tokenizer().encode(from_hex(line["bytes_hex"])), line["ids"].get<Ids>()) << line["n"];
  }
}

TEST_P(GoldenTokens, DecodesEveryIdListAsSentencePieceDoes) {
  const auto lines = golden_lines("decode");
  ASSERT_FALSE(lines.empty());
  for (const auto& line : lines) {
    EXPECT_EQ(tokenizer().decode(line["ids"].get<Ids>()), line["text"].get<std::string>()) << line["n"];
  }
}

TEST_P(GoldenTokens, StreamsWhatItDecodes) {
  for (const char* kind : {"text", "decode", "chat"}) {
    for (const auto& line : golden_lines(kind)) {
      const Ids ids = line["ids"];
      EXPECT_EQ(stream(tokenizer(), {}, ids), tokenizer().decode(ids)) << line["n"];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Routes, GoldenTokens, testing::ValuesIn(kRoutes),
                         [](const auto& test) { return route_name(test.param); });

TEST(GoldenModels, EncodeTheirPromptsAndStreamTheirAnswers) {
  size_t n_checked = 0;
  for (const auto& entry : Json::read(test_data("golden/logits.json"))) {
    if (!entry.contains("text")) continue;  // no vocabulary
    ++n_checked;
    for (const Route route : kRoutes) {
      const OwnedTokenizer tokenizer(load_vocabulary(entry["model"], route));
      const Ids prompt = entry["ids"];
      EXPECT_EQ(tokenizer.encode_prompt(entry["text"].get<std::string>()), prompt) << entry["model"];
      const Ids answer = entry["greedy_32"];
      EXPECT_EQ(tokenizer.decode(answer), entry["greedy_text"].get<std::string>());
      EXPECT_EQ(stream(tokenizer, {}, answer), entry["greedy_text"].get<std::string>());
      if (!entry.contains("perplexity")) continue;
      const std::string folder = test_data(entry["model"].get<std::string>()) + "/";
      std::string text = read_file(folder + entry["perplexity"]["file"].get<std::string>());
      text.pop_back();  // its last line end
      EXPECT_EQ(tokenizer.encode_prompt(text).size(), entry["perplexity"]["tokens"].get<size_t>());
    }
  }
  EXPECT_EQ(n_checked, 2u);
}

// ---- against the library ----

class EveryVocabulary : public testing::TestWithParam<const char*> {
 protected:
  EveryVocabulary()
      : model(read_file(tokenizer_model_path(GetParam()))), tokenizer(load_vocabulary(GetParam())) {}
  const std::string model;
  const OwnedTokenizer tokenizer;
};

TEST_P(EveryVocabulary, EncodesAndDecodesRandomTextAsTheLibraryDoes) {
  const Reference reference(model);
  std::mt19937 random(1);
  for (int i = 0; i < 500; ++i) {
    const std::string text = random_text(&random, 1 + random() % 60);
    const Ids ids = tokenizer.encode(text);
    ASSERT_EQ(ids, reference.encode(text)) << text;
    ASSERT_EQ(tokenizer.decode(ids), reference.decode(ids)) << text;
  }
}

TEST_P(EveryVocabulary, TakesLongTextsApartWithoutChangingAnId) {
  const Reference reference(model);
  const std::string text = read_file(test_data("tiny-mistral/test.txt")).substr(0, 100'000);
  ASSERT_EQ(tokenizer.encode(text), reference.encode(text));
  std::string solid = text;
  std::erase_if(solid, [](char c) { return c == ' ' || c == '\n'; });
  ASSERT_EQ(tokenizer.encode(solid), reference.encode(solid));
  for (const char* unit : {"a", " ", "\n", "ab", "🦙", "=", "é "}) {
    std::string run;
    while (run.size() < 20'000) run += unit;
    ASSERT_EQ(tokenizer.encode(run), reference.encode(run)) << unit;
  }
  std::mt19937 random(2);
  for (int i = 0; i < 20; ++i) {
    const std::string mixed = random_text(&random, 5'000);
    ASSERT_EQ(tokenizer.encode(mixed), reference.encode(mixed)) << i;
  }
}

TEST_P(EveryVocabulary, RemovesExtraSpacesAsTheLibraryDoes) {
  // A second normalizer_spec is merged into the first: remove_extra_whitespaces (field 4) = true.
  const Reference reference(model + std::string("\x1A\x02\x20\x01", 4));
  Vocabulary vocabulary = load_vocabulary(GetParam());
  vocabulary.remove_extra_whitespaces = true;
  const OwnedTokenizer removing(std::move(vocabulary));
  std::mt19937 random(3);
  for (int i = 0; i < 500; ++i) {
    const std::string text = random_text(&random, 1 + random() % 20);
    ASSERT_EQ(removing.encode(text), reference.encode(text)) << text;
  }
  EXPECT_EQ(removing.encode("   "), Ids{});
}

TEST_P(EveryVocabulary, DecodesRandomIdsAsTheLibraryDoes) {
  const Reference reference(model);
  std::mt19937 random(4);
  for (int i = 0; i < 1000; ++i) {
    const Ids ids = random_ids(&random, tokenizer.vocabulary(), 1 + random() % 12);
    const std::string text = tokenizer.decode(ids);
    ASSERT_EQ(text, reference.decode(ids)) << testing::PrintToString(ids);
    ASSERT_TRUE(is_valid_utf8(text));
  }
}

TEST_P(EveryVocabulary, StreamsTheRestOfADecodedContext) {
  std::mt19937 random(5);
  size_t n_checked = 0;
  for (int i = 0; i < 2000; ++i) {
    const Ids context = random_ids(&random, tokenizer.vocabulary(), random() % 4);
    const Ids pushed = random_ids(&random, tokenizer.vocabulary(), 1 + random() % 8);
    Ids all = context;
    all.insert(all.end(), pushed.begin(), pushed.end());
    const std::string before = tokenizer.decode(context), text = tokenizer.decode(all);
    if (!text.starts_with(before)) continue;  // the context ended inside a character
    ++n_checked;
    ASSERT_EQ(stream(tokenizer, context, pushed), text.substr(before.size()))
        << testing::PrintToString(context) << testing::PrintToString(pushed);
  }
  EXPECT_GT(n_checked, 1500u);
}

TEST_P(EveryVocabulary, GivesBackWhatWasEncoded) {
  std::mt19937 random(6);
  for (int i = 0; i < 300; ++i) {
    std::string text = random_text(&random, random() % 40);
    const std::string decoded = tokenizer.decode(tokenizer.encode(text));
    for (size_t at; (at = text.find("\u2581")) != text.npos;) text.replace(at, 3, 1, ' ');
    ASSERT_EQ(decoded, text);
  }
}

INSTANTIATE_TEST_SUITE_P(Bundled, EveryVocabulary,
                         testing::Values("mistral-v1", "tiny-mistral", "stories260k"), [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

// ---- models that normalise, unigram models, a model made as Gemma's ----

class SmallModel : public testing::TestWithParam<std::tuple<const char*, Route>> {
 protected:
  const std::string model = read_file(tokenizer_model_path(std::get<0>(GetParam())));
  const OwnedTokenizer tokenizer{load_vocabulary(std::get<0>(GetParam()), std::get<1>(GetParam()))};
};

TEST_P(SmallModel, EncodesAndDecodesRandomTextAsTheLibraryDoes) {
  const Reference reference(model);
  const std::vector<std::string> parts = {
      " ",      "  ",           "    ",     "\n",     "\n\n",   "\n\n\n",  "the",          "Romeo",
      "and ",   "ing",          "1",        ".",      "é",      "你",      "🦙",         "\u2581",
      "\uFB01", "\uFF21\uFF22", "\u3000",   "\u00A0", "\u2026", "A\u030A", "<|im_start|>", "<start_of_turn>",
      "<sep>",  "<table>",      "</table>", "<s>",    "<unk>",  "<0x0A>",  "\xFF",         "Juliet"};
  std::mt19937 random(9);
  for (int i = 0; i < 1000; ++i) {
    std::string text;
    for (size_t n = 1 + random() % 30; n > 0; --n) text += parts[random() % parts.size()];
    const Ids ids = tokenizer.encode(text);
    ASSERT_EQ(ids, reference.encode(text)) << text;
    ASSERT_EQ(tokenizer.decode(ids), reference.decode(ids)) << text;
  }
  const std::string play = read_file(test_data("tiny-mistral/test.txt"));
  ASSERT_EQ(tokenizer.encode(play), reference.encode(play));
}

TEST_P(SmallModel, DoesNotLetAMessageSpellItsMarkup) {
  for (const std::string piece : {"<|im_start|>", "<start_of_turn>", "<sep>"}) {
    const std::optional<TokenId> id = tokenizer->find(piece);
    if (!id) continue;
    const auto count = [&](TextRole role) {
      const Ids ids = tokenizer.encode("a" + piece + "b", role);
      return std::count(ids.begin(), ids.end(), *id);
    };
    EXPECT_EQ(count(TextRole::kRaw), 1) << piece;
    EXPECT_EQ(count(TextRole::kTemplate), 1) << piece;
    EXPECT_EQ(count(TextRole::kMessage), 0) << piece;
    // A sign spelled half by the template is none either.
    const std::vector<TextSpan> spans = {{"hello ", TextRole::kTemplate}, {piece, TextRole::kMessage}};
    const Ids ids = tokenizer->encode(spans);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), *id), 0) << piece;
  }
}

INSTANTIATE_TEST_SUITE_P(Trained, SmallModel,
                         testing::Combine(testing::Values("unigram", "unigram-mapped", "bpe-mapped",
                                                          "bpe-gemma"),
                                          testing::ValuesIn(kRoutes)),
                         [](const auto& test) {
                           std::string name = std::get<0>(test.param) + route_name(std::get<1>(test.param));
                           std::erase(name, '-');
                           return name;
                         });

TEST(SmallModels, SurviveDamagedMapsOrAreRefused) {
  for (const char* name : {"unigram-mapped", "bpe-mapped"}) {
    const std::string model = read_file(tokenizer_model_path(name));
    const Vocabulary sound = load_vocabulary(name);
    std::mt19937 random(10);
    size_t n_refused = 0;
    for (int i = 0; i < 300; ++i) {
      Vocabulary vocabulary = sound;
      std::string& map = vocabulary.sentencepiece().precompiled_charsmap;
      map[random() % map.size()] = static_cast<char>(random());
      try {
        check_vocabulary(vocabulary, "damaged", {});
        const OwnedTokenizer tokenizer(std::move(vocabulary));
        for (const char* text : {"Romeo \uFB01 \uFF21 A\u030A\u3000", "\xFF\xFE", ""}) tokenizer.encode(text);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kMalformed) << error.what();
        ++n_refused;
      }
    }
    EXPECT_GT(n_refused, 0u) << name;
  }
}

// ---- one rule at a time ----

// Byte pieces, <unk>, <s>, </s>, then `pieces`, all of them normal with falling scores.
Vocabulary small_vocabulary(const std::vector<std::string>& pieces) {
  Vocabulary vocabulary;
  const auto add = [&vocabulary](const std::string& piece, TokenType type) {
    vocabulary.pieces.push_back(piece);
    vocabulary.sentencepiece().scores.push_back(-static_cast<float>(vocabulary.pieces.size()));
    vocabulary.types.push_back(type);
  };
  add("<unk>", TokenType::kUnknown);
  add("<s>", TokenType::kControl);
  add("</s>", TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), TokenType::kByte);
  for (const std::string& piece : pieces) add(piece, TokenType::kNormal);
  vocabulary.unk = 0;
  vocabulary.bos = 1;
  vocabulary.eos = 2;
  check_vocabulary(vocabulary, "test", {});
  return vocabulary;
}
constexpr TokenId kFirst = 259;  // id of the first normal piece of a small vocabulary

TEST(Tokenizer, MakesNoIdsOfAnEmptyText) {
  const OwnedTokenizer tokenizer(small_vocabulary({"a"}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.encode_message(""), Ids{});
  EXPECT_EQ(tokenizer.encode_prompt(""), Ids{1});
  EXPECT_EQ(tokenizer.decode({}), "");
}

TEST(Tokenizer, PutsTheSpacePrefixAsTheVocabularySaysButAlwaysBeforeMessages) {
  Vocabulary vocabulary = small_vocabulary({"\u2581", "a",
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
  Vocabulary vocabulary = small_vocabulary({"\u2581", "a"});
  EXPECT_EQ(OwnedTokenizer(vocabulary).encode_prompt("a"), (Ids{1, kFirst, kFirst + 1}));
  vocabulary.add_bos = false;
  EXPECT_EQ(OwnedTokenizer(vocabulary).encode_prompt("a"), (Ids{kFirst, kFirst + 1}));
}

TEST(Tokenizer, NeverMatchesControlPiecesInText) {
  // One character long, or spelled like a normal piece: both would slip through in sentencepiece itself.
  Vocabulary vocabulary = small_vocabulary({"\u2581", "$", "x", "y", "xy", "xy"});
  vocabulary.types[kFirst + 1] = TokenType::kControl;
  vocabulary.types[kFirst + 4] = TokenType::kControl;
  const OwnedTokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.encode("$"), (Ids{kFirst, vocabulary.sentencepiece().byte_ids['$']}));
  EXPECT_EQ(tokenizer.encode("xy"), (Ids{kFirst, kFirst + 5}));
  EXPECT_EQ(tokenizer.decode(Ids{kFirst + 4, kFirst + 2}), "x");
}

TEST(Tokenizer, TakesTheLowestIdOfEqualPieces) {
  const OwnedTokenizer tokenizer(small_vocabulary({"\u2581", "a", "a"}));
  EXPECT_EQ(tokenizer.encode("a"), (Ids{kFirst, kFirst + 1}));
  EXPECT_EQ(tokenizer.decode(Ids{kFirst + 2}), "a");
}

TEST(Tokenizer, LoadsPiecesThatNoTextCanMatch) {
  const OwnedTokenizer tokenizer(small_vocabulary(
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
      small_vocabulary({"\u2581"
                        "a"});
  vocabulary.types[0] = TokenType::kControl;
  const OwnedTokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.decode(Ids{0, kFirst}), " \u2047  a");
  EXPECT_EQ(tokenizer.encode("é"), (Ids{0xE2 + 3, 0x96 + 3, 0x81 + 3, 0xC3 + 3, 0xA9 + 3}));
}

TEST(Tokenizer, CutsUserDefinedPiecesOutLongestFirst) {
  // The library is given the same pieces, as user-defined ones, behind tiny-mistral's (whose "\n" is
  // another).
  const std::vector<std::string> pieces = {"Rom",
                                           "Romeo",
                                           "eo and",
                                           "the",
                                           "the\u2581"
                                           "the",
                                           "好"};
  std::string model = read_file(tokenizer_model_path("tiny-mistral"));
  Vocabulary vocabulary = load_vocabulary("tiny-mistral");
  vocabulary.types[3] = TokenType::kUserDefined;
  ASSERT_EQ(vocabulary.pieces[3], "\n");
  for (const std::string& piece : pieces) {
    const std::string message = fmt::format("\x0A{}{}\x18\x04", static_cast<char>(piece.size()), piece);
    model += fmt::format("\x0A{}{}", static_cast<char>(message.size()), message);
    vocabulary.pieces.push_back(piece);
    vocabulary.sentencepiece().scores.push_back(0);
    vocabulary.types.push_back(TokenType::kUserDefined);
    vocabulary.sentencepiece().user_defined.push_back(static_cast<TokenId>(vocabulary.size() - 1));
  }
  vocabulary.sentencepiece().user_defined.insert(vocabulary.sentencepiece().user_defined.begin(), 3);
  // "eo and" holds a raw space: the library would match it against raw text, where it stands for U+2581.
  const std::string raw = "eo and";
  model.replace(model.rfind(raw), raw.size(), "eo-and");
  vocabulary.pieces[vocabulary.size() - 4] = "eo-and";
  const Reference reference(model);
  const OwnedTokenizer tokenizer(std::move(vocabulary));
  std::mt19937 random(7);
  const std::vector<std::string> parts = {"Rom", "eo", "-and", "the", " ", "好", "\n", "a", "Juliet"};
  for (int i = 0; i < 500; ++i) {
    std::string text;
    for (size_t n = 1 + random() % 30; n > 0; --n) text += parts[random() % parts.size()];
    const Ids ids = tokenizer.encode(text);
    ASSERT_EQ(ids, reference.encode(text)) << text;
    ASSERT_EQ(tokenizer.decode(ids), text);
  }
}

TEST(Tokenizer, MatchesUserDefinedPiecesWithSpacesHoweverTheyAreSpelled) {
  Vocabulary vocabulary = small_vocabulary({"\u2581", "b c",
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
  const OwnedTokenizer tokenizer(small_vocabulary({"\u2581", "a", "<", "s", ">",
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
      small_vocabulary({"\u2581", "<", "|", "x", ">", "[", "]", "P", "<|x|>", "[P]", "<x>", "</x>", "\n\n"});
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
  const OwnedTokenizer tokenizer(small_vocabulary({"\u2581", "a"}));
  EXPECT_EQ(tokenizer->encode_prompt("<s>a", TextRole::kRawSpecial), (Ids{1, kFirst, kFirst + 1}));
  EXPECT_EQ(tokenizer->encode_prompt("<s><s>a", TextRole::kRawSpecial), (Ids{1, 1, kFirst, kFirst + 1}));
}

TEST(Tokenizer, EndsADocumentButNoPromptWithEosWhereTheVocabularyDoes) {
  Vocabulary vocabulary = small_vocabulary({"\u2581", "a"});
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
  Vocabulary vocabulary = small_vocabulary({"a", "b", "c", "d"});
  vocabulary.eot = kFirst;
  vocabulary.eom = kFirst + 1;
  vocabulary.more_ends = {kFirst + 2};
  const OwnedTokenizer tokenizer(std::move(vocabulary));
  for (const TokenId id : {2, kFirst, kFirst + 1, kFirst + 2}) EXPECT_TRUE(tokenizer->ends_text(id)) << id;
  EXPECT_FALSE(tokenizer->ends_text(kFirst + 3));
  EXPECT_EQ(tokenizer->end_ids().size(), 4u);
}

TEST(Tokenizer, DropsWhiteSpaceBesideTokensThatStrip) {
  Vocabulary vocabulary = small_vocabulary({"\u2581", "a", "<x>", "<y>"});
  vocabulary.types[kFirst + 2] = vocabulary.types[kFirst + 3] = TokenType::kUserDefined;
  vocabulary.strips_right = {kFirst + 2};
  vocabulary.strips_left = {kFirst + 3};
  const OwnedTokenizer tokenizer(std::move(vocabulary));
  EXPECT_EQ(tokenizer.encode("<x>\n a\n<y>a"),
            (Ids{kFirst + 2, kFirst, kFirst + 1, kFirst + 3, kFirst, kFirst + 1}));
}

TEST(Tokenizer, TellsWhatItKnowsOfAnId) {
  const OwnedTokenizer tokenizer(
      small_vocabulary({"\u2581"
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
  Vocabulary vocabulary = small_vocabulary({"\u2581", "a", "b", "ab", "abb"});
  vocabulary.types[kFirst + 3] = TokenType::kUnused;
  const OwnedTokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.encode("ab"), (Ids{kFirst, kFirst + 1, kFirst + 2}));
  EXPECT_EQ(tokenizer.encode("abb"), (Ids{kFirst, kFirst + 4}));
}

TEST(Tokenizer, RefusesATextThatCannotBeTakenApartAndIsTooLarge) {
  Vocabulary vocabulary = small_vocabulary({"\u2581", "a", "aa"});
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
  const OwnedTokenizer tokenizer(small_vocabulary({"a"}));
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
  const OwnedTokenizer tokenizer(small_vocabulary({"\u2581", "x"}));
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
      small_vocabulary({"\u2581"
                        "Hi",
                        "x"}));
  EXPECT_EQ(stream(tokenizer, {}, {kFirst}), "Hi");
  EXPECT_EQ(stream(tokenizer, {1}, {kFirst}), "Hi");
  EXPECT_EQ(stream(tokenizer, {1, kFirst + 1}, {kFirst}), " Hi");
}

}  // namespace
}  // namespace quern::test
