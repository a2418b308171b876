#include "runtime/tokenizer/byte_pair_tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "quant/byte_level.h"
#include "quant/error.h"
#include "tests/runtime/tokenizer/vocabulary_files.h"

namespace quern::test {
namespace {

using Ids = std::vector<TokenId>;

// Every byte by its number, then "ab" 256, "abc" 257, " a" 258, "bc" 259, and the tokens of a chat.
Vocabulary small_vocabulary(const std::string& pre_tokenizer = "gpt-2") {
  Vocabulary vocabulary;
  vocabulary.model = "gpt2";
  for (int byte = 0; byte < 256; ++byte)
    vocabulary.pieces.push_back(byte_level_spelling(std::string(1, static_cast<char>(byte))));
  for (const char* const piece : {"ab", "abc", "\u0120a", "bc"}) vocabulary.pieces.emplace_back(piece);
  vocabulary.types.assign(vocabulary.pieces.size(), TokenType::kNormal);
  for (const char* const piece : {"<|end|>", "<think>"}) vocabulary.pieces.emplace_back(piece);
  vocabulary.types.push_back(TokenType::kControl);
  vocabulary.types.push_back(TokenType::kUserDefined);
  vocabulary.eos = 260;
  vocabulary.add_bos = vocabulary.add_space_prefix = false;
  vocabulary.parts = BytePairParts{pre_tokenizer, {"b c", "a b", "\u0120 a", "a bc"}, {}, {}, false};
  check_vocabulary(vocabulary, "vocabulary", {});
  return vocabulary;
}

Ids encode(const Vocabulary& vocabulary, std::string_view text, TextRole role = TextRole::kRaw) {
  return make_tokenizer(vocabulary)->encode(text, role);
}

TEST(BytePairTokenizer, MergesInTheOrderOfTheRules) {
  EXPECT_EQ(encode(small_vocabulary(), "abc"), (Ids{257}));
  EXPECT_EQ(encode(small_vocabulary(), "ab"), (Ids{256}));
  EXPECT_EQ(encode(small_vocabulary(), " a c"), (Ids{258, ' ', 'c'}));
  EXPECT_EQ(encode(small_vocabulary(), ""), (Ids{}));
}

TEST(BytePairTokenizer, TakesAWholeWordForItsPieceOnlyWhereTheFamilySaysSo) {
  Vocabulary vocabulary = small_vocabulary();
  vocabulary.byte_pairs().merges.pop_back();  // nothing leads to "abc" now
  EXPECT_EQ(encode(vocabulary, "abc"), (Ids{'a', 259}));
  vocabulary.byte_pairs().pre_tokenizer = "llama-bpe";
  EXPECT_EQ(encode(vocabulary, "abc"), (Ids{257}));
  EXPECT_EQ(encode(vocabulary, "abcc"), (Ids{'a', 259, 'c'}));
}

TEST(BytePairTokenizer, CutsOutControlTokensByTheRoleOfTheText) {
  const Vocabulary vocabulary = small_vocabulary();
  EXPECT_EQ(encode(vocabulary, "a<|end|>", TextRole::kRaw).size(), 8u);
  EXPECT_EQ(encode(vocabulary, "a<|end|>", TextRole::kRawSpecial), (Ids{'a', 260}));
  EXPECT_EQ(encode(vocabulary, "a<think>", TextRole::kRaw), (Ids{'a', 261}));
  EXPECT_EQ(encode(vocabulary, "a<think>", TextRole::kMessage).size(), 8u);
}

TEST(BytePairTokenizer, KeepsBytesThatAreNoUtf8) {
  const auto tokenizer = make_tokenizer(small_vocabulary());
  const std::string bytes =
      "a\xFF\xFE"
      "b\xE6\xBC";
  const Ids ids = tokenizer->encode(bytes, TextRole::kRaw);
  EXPECT_EQ(ids, (Ids{'a', 0xFF, 0xFE, 'b', 0xE6, 0xBC}));
  EXPECT_EQ(tokenizer->decode(ids), "a\uFFFD\uFFFDb\uFFFD\uFFFD");
}

TEST(BytePairTokenizer, LeavesOutBytesWithoutAPiece) {
  Vocabulary vocabulary = small_vocabulary();
  vocabulary.types['x'] = TokenType::kUnused;
  EXPECT_EQ(encode(vocabulary, "axxb"), (Ids{'a', 'b'}));
}

TEST(BytePairTokenizer, PutsTheSpacePrefixWhereThereIsNoSpace) {
  Vocabulary vocabulary = small_vocabulary();
  vocabulary.add_space_prefix = true;
  EXPECT_EQ(encode(vocabulary, "a"), (Ids{258}));
  EXPECT_EQ(encode(vocabulary, " a"), (Ids{258}));
}

TEST(BytePairTokenizer, DecodesBytesThatMeetToCharacters) {
  const auto tokenizer = make_tokenizer(small_vocabulary());
  const Ids ids = tokenizer->encode("\u6F22<think>", TextRole::kRaw);
  EXPECT_EQ(ids, (Ids{0xE6, 0xBC, 0xA2, 261}));
  EXPECT_EQ(tokenizer->decode(ids), "\u6F22<think>");
  EXPECT_EQ(tokenizer->decode(Ids{'a', 260, 'b'}), "ab");
  StreamDecoder decoder(*tokenizer, {});
  EXPECT_EQ(decoder.push(0xE6), "");
  EXPECT_EQ(decoder.push(0xBC), "");
  EXPECT_EQ(decoder.push(0xA2), "\u6F22");
}

// "gemma4": merges over characters, a space is U+2581, other bytes are "<0xNN>".
TEST(BytePairTokenizer, MergesCharactersWhereSpacesAreSymbols) {
  Vocabulary vocabulary;
  vocabulary.model = "gemma4";
  vocabulary.pieces = {"\u2581", "a", "\u2581a", "\n", "\n\n", "\u00E9", "a\u00E9"};
  vocabulary.types.assign(7, TokenType::kNormal);
  for (int byte = 0; byte < 256; ++byte) {
    vocabulary.pieces.push_back(fmt::format("<0x{:02X}>", byte));
    vocabulary.types.push_back(TokenType::kByte);
  }
  vocabulary.add_bos = vocabulary.add_space_prefix = false;
  vocabulary.parts = BytePairParts{"gemma4", {"\u2581 a", "a \u00E9"}, {}, {}, false};
  check_vocabulary(vocabulary, "vocabulary", {});
  const auto tokenizer = make_tokenizer(vocabulary);
  const auto byte_id = [](uint8_t byte) { return TokenId{7} + byte; };
  EXPECT_EQ(tokenizer->encode(" a\u2581a a\u00E9", TextRole::kRaw), (Ids{2, 2, 2, 5}));
  EXPECT_EQ(tokenizer->encode("\n\n\n\na\n\n", TextRole::kRaw), (Ids{3, 3, 3, 3, 1, 4}));
  EXPECT_EQ(tokenizer->encode("b\xFF", TextRole::kRaw), (Ids{byte_id('b'), byte_id(0xFF)}));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a b \u00E9\n\n\t", TextRole::kRaw)), "a b \u00E9\n\n\t");
}

TEST(BytePairTokenizer, GivesTheSameIdsForAWordInAnyText) {
  const auto tokenizer = load_tokenizer(*find_vocabulary_file("smollm2.gguf"));
  const std::string text = read_file(*find_vocabulary_file("wikitext2-test.txt")).substr(0, 100'000);
  const Ids whole = tokenizer->encode(text, TextRole::kRaw);
  Ids by_line;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find("\n ", at), text.size() - 1) + 1;  // no word goes on over these
    const Ids ids = tokenizer->encode(std::string_view(text).substr(at, end - at), TextRole::kRaw);
    by_line.insert(by_line.end(), ids.begin(), ids.end());
    at = end;
  }
  EXPECT_EQ(by_line, whole);
}

}  // namespace
}  // namespace quern::test
