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

}  // namespace
}  // namespace quern::test
