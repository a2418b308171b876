// Thinking blocks are dimmed, or parted from the answer, whatever pieces they come in.
#include "cli/thinking.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

// "{" for dim, "}" for plain again.
std::string shown(std::string_view text, size_t piece, bool begins_inside = false) {
  std::string out;
  ThinkingDimmer dimmer(begins_inside, [&](std::string_view part) {
    out += part == "\x1b[2m" ? "{" : part == "\x1b[0m" ? "}" : part;
  });
  for (size_t at = 0; at < text.size(); at += piece) dimmer.push(text.substr(at, piece));
  dimmer.finish();
  return out;
}

TEST(ThinkingDimmer, DimsBlocksInPiecesOfAnySize) {
  for (size_t piece = 1; piece < 40; ++piece) {
    EXPECT_EQ(shown("<think>a < b</think> c", piece), "{<think>a < b</think>} c") << piece;
    EXPECT_EQ(shown("x<think>a</think>y<think>b</think>", piece), "x{<think>a</think>}y{<think>b</think>}")
        << piece;
    EXPECT_EQ(shown("1 <thin> 2 </think>", piece), "1 <thin> 2 </think>") << piece;
    EXPECT_EQ(shown("still thinking</think>done", piece, true), "{still thinking</think>}done") << piece;
    EXPECT_EQ(shown("<think>cut off", piece), "{<think>cut off}") << piece;
    EXPECT_EQ(shown("ends in <thi", piece), "ends in <thi") << piece;
  }
}

// "thought|text"
std::string parted(std::string_view text, size_t piece, bool begins_inside = false) {
  ThoughtSplitter splitter(begins_inside);
  ThoughtSplitter::Parts all;
  const auto take = [&](const ThoughtSplitter::Parts& parts) {
    EXPECT_TRUE(parts.thought.empty() || all.text.empty()) << "a thought behind the text";
    all.thought += parts.thought;
    all.text += parts.text;
  };
  for (size_t at = 0; at < text.size(); at += piece) take(splitter.push(text.substr(at, piece)));
  take(splitter.finish());
  return all.thought + "|" + all.text;
}

TEST(ThoughtSplitter, PartsTheBlockAtTheBeginningInPiecesOfAnySize) {
  for (size_t piece = 1; piece < 40; ++piece) {
    SCOPED_TRACE(piece);
    EXPECT_EQ(parted("<think>\na < b\n\n c\n</think>\n\nd \n", piece), "a < b\n\n c|d \n");
    EXPECT_EQ(parted("\n<think>a</think>b<think>c</think>", piece), "a|b<think>c</think>");
    EXPECT_EQ(parted("  <thin> 2 </think>", piece), "|  <thin> 2 </think>");
    EXPECT_EQ(parted("x <think>a</think>", piece), "|x <think>a</think>");
    EXPECT_EQ(parted("\nstill </thin thinking</think>done", piece, true), "still </thin thinking|done");
    EXPECT_EQ(parted("<think>\n\n</think>\n\nnothing", piece), "|nothing");
    EXPECT_EQ(parted("<think>cut off </thi", piece), "cut off </thi|");
    EXPECT_EQ(parted("<thi", piece), "|<thi");
  }
}

TEST(ThoughtSplitter, GivesWhatIsCertainAtOnce) {
  ThoughtSplitter splitter(false);
  EXPECT_TRUE(splitter.push("<think>").empty());
  EXPECT_EQ(splitter.push("a ").thought, "a");
  EXPECT_EQ(splitter.push("b").thought, " b");
  EXPECT_TRUE(splitter.push("</think>").empty());
  EXPECT_EQ(splitter.push("\nc ").text, "c ");
  EXPECT_EQ(ThoughtSplitter(false).push("text").text, "text");
}

}  // namespace
}  // namespace quern
