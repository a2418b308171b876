// Which tokens are found in a text by their spelling, whatever the family.
#include "runtime/tokenizer/added_tokens.h"

#include <gtest/gtest.h>

#include <random>

namespace quern {
namespace {

// The pieces as "text|<id>|text".
std::string cut(const AddedTokens& tokens, std::span<const TextSpan> spans) {
  std::string text, shown;
  for (const TextSpan& span : spans) text += span.text;
  for (const TextPiece& piece : tokens.cut(text, spans)) {
    if (!shown.empty()) shown += '|';
    shown += piece.id == kNoToken ? text.substr(piece.begin, piece.end - piece.begin)
                                  : fmt::format("<{}>", piece.id);
  }
  return shown;
}

std::string cut(const AddedTokens& tokens, std::string_view text, TextRole role = TextRole::kRaw) {
  const TextSpan span{text, role};
  return cut(tokens, {&span, 1});
}

AddedTokens tokens_of(const std::vector<std::string>& texts) {
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < texts.size(); ++i)
    tokens.push_back({.text = texts[i], .id = static_cast<TokenId>(i)});
  return AddedTokens(std::move(tokens));
}

TEST(AddedTokens, LeaveATextAloneThatHoldsNone) {
  EXPECT_EQ(cut(tokens_of({}), "abc"), "abc");
  EXPECT_EQ(cut(tokens_of({"<x>", "", "abcd"}), "abc <x"), "abc <x");
  EXPECT_EQ(cut(tokens_of({"<x>"}), ""), "");
}

TEST(AddedTokens, AreCutOutWhereverTheyStand) {
  const AddedTokens tokens = tokens_of({"<x>", "<y>"});
  EXPECT_EQ(cut(tokens, "<x>"), "<0>");
  EXPECT_EQ(cut(tokens, "a<x><y> b<x>"), "a|<0>|<1>| b|<0>");
  EXPECT_EQ(cut(tokens, "<<x>>"), "<|<0>|>");
}

TEST(AddedTokens, TheLowestIdCountsOfTokensSpelledAlike) {
  EXPECT_EQ(cut(tokens_of({"a", "a"}), "a"), "<0>");
}

TEST(AddedTokens, TheLongestIsCutOutFirstEvenFromBehind) {
  EXPECT_EQ(cut(tokens_of({"ab", "abc"}), "abcab"), "<1>|<0>");
  EXPECT_EQ(cut(tokens_of({"ab", "bcd"}), "abcd"), "a|<1>");
  EXPECT_EQ(cut(tokens_of({"ab", "bcd", "cdefg"}), "abcdefg"), "<0>|<2>");
  EXPECT_EQ(cut(tokens_of({"aa", "aaa"}), "aaaaaaaa"), "<1>|<1>|<0>");
}

// The rule as it is told: for each token, the longest first, each occurrence in what is left.
TEST(AddedTokens, FollowTheRuleOnRandomTokensAndTexts) {
  std::mt19937 random(1);
  const auto word = [&random](size_t n) {
    std::string text;
    for (size_t i = 0; i < n; ++i) text += static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::string> texts;
    for (size_t n = 1 + random() % 6; n > 0; --n) {
      const std::string text = word(1 + random() % 6);
      // Of two tokens of like length that overlap, any may be taken first: not asked here.
      const auto same = [&](const std::string& other) { return other.size() == text.size(); };
      if (std::none_of(texts.begin(), texts.end(), same)) texts.push_back(text);
    }
    const std::string text = word(random() % 24);
    std::vector<std::pair<std::string, int>> pieces = {{text, -1}};
    std::vector<size_t> order(texts.size());
    for (size_t t = 0; t < order.size(); ++t) order[t] = t;
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return texts[a].size() > texts[b].size(); });
    for (const size_t t : order) {
      std::vector<std::pair<std::string, int>> next;
      for (auto [rest, id] : pieces) {
        for (size_t at; id < 0 && (at = rest.find(texts[t])) != rest.npos;
             rest.erase(0, at + texts[t].size())) {
          if (at > 0) next.emplace_back(rest.substr(0, at), -1);
          next.emplace_back("", static_cast<int>(t));
        }
        if (id >= 0 || !rest.empty()) next.emplace_back(rest, id);
      }
      pieces = std::move(next);
    }
    std::string expected;
    for (const auto& [rest, id] : pieces) {
      if (!expected.empty()) expected += '|';
      expected += id < 0 ? rest : fmt::format("<{}>", id);
    }
    ASSERT_EQ(cut(tokens_of(texts), text), expected) << text << " " << testing::PrintToString(texts);
  }
}

TEST(AddedTokens, TheRoleOfATextSaysWhichAreFound) {
  const AddedTokens tokens({{.text = "<added>", .id = 1}, {.text = "<control>", .id = 2, .special = true}});
  const std::string text = "<added><control>";
  EXPECT_EQ(cut(tokens, text, TextRole::kRaw), "<1>|<control>");
  EXPECT_EQ(cut(tokens, text, TextRole::kRawSpecial), "<1>|<2>");
  EXPECT_EQ(cut(tokens, text, TextRole::kTemplate), "<1>|<2>");
  EXPECT_EQ(cut(tokens, text, TextRole::kMessage), text);
}

TEST(AddedTokens, AreFoundOnlyInsideTextsWhoseRoleAllowsThem) {
  const AddedTokens tokens({{.text = "<c>", .id = 2, .special = true}});
  const auto of = [&](std::vector<TextSpan> spans) { return cut(tokens, spans); };
  EXPECT_EQ(of({{"<c>a", TextRole::kTemplate}, {"b<c>", TextRole::kMessage}, {"<c>", TextRole::kTemplate}}),
            "<2>|ab<c>|<2>");
  EXPECT_EQ(of({{"<", TextRole::kTemplate}, {"c>", TextRole::kMessage}}), "<c>");
  EXPECT_EQ(of({{"<", TextRole::kTemplate}, {"c>", TextRole::kTemplate}}), "<2>");
  EXPECT_EQ(of({{"", TextRole::kTemplate}, {"", TextRole::kMessage}}), "");
}

TEST(AddedTokens, DropWhiteSpaceBesideThemWhereTheySaySo) {
  const AddedTokens tokens({{.text = "<l>", .id = 1, .strips_left = true},
                            {.text = "<r>", .id = 2, .strips_right = true},
                            {.text = "<n>", .id = 3}});
  EXPECT_EQ(cut(tokens, "a \n<l> b"), "a|<1>| b");
  EXPECT_EQ(cut(tokens, "a <r> \t\nb"), "a |<2>|b");
  EXPECT_EQ(cut(tokens, "<r> \n<l>"), "<2>|<1>");
  EXPECT_EQ(cut(tokens, " <n> "), " |<3>| ");
}

TEST(AddedTokens, TakeTimeInProportionToTheText) {
  std::vector<std::string> runs;
  for (size_t n = 1; n <= 31; ++n) runs.emplace_back(n, ' ');
  constexpr size_t kBytes = QUERN_SANITIZED ? 100'000 : 1'000'000;
  const std::string text(kBytes, ' ');
  const TextSpan span{text, TextRole::kRaw};
  EXPECT_EQ(tokens_of(runs).cut(text, {&span, 1}).size(), kBytes / 31 + 1);
}

}  // namespace
}  // namespace quern
