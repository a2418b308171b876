// An answer's text, which comes in pieces, in its parts: thought, text, calls.
#include "cli/serve/answer_splitter.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

constexpr std::string_view kAnswer =
    "<think>\nWhat is\nasked?\n</think>\n\nI ask.\n"
    "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}}\n</tool_call>\n"
    "<tool_call>\n{\"name\": \"b\", \"arguments\": {}}\n</tool_call>";

CompletionRequest request_with(bool splits_thought, const char* syntax) {
  CompletionRequest request;
  request.prompts = {{1, 2, 3}};
  request.splits_thought = splits_thought;
  request.tool_syntax = find_tool_syntax(syntax);
  return request;
}

AnswerSplitter::Parts split(AnswerSplitter splitter, std::string_view text, size_t piece) {
  AnswerSplitter::Parts all;
  for (size_t at = 0; at < text.size(); at += piece) all += splitter.push(text.substr(at, piece));
  all += splitter.finish();
  return all;
}

TEST(AnswerSplitter, PartsAreTheSameInAnyPieces) {
  const CompletionRequest request = request_with(true, "hermes");
  for (size_t piece = 1; piece <= kAnswer.size(); ++piece) {
    const AnswerSplitter::Parts parts = split({request, request.call_seed(), 0}, kAnswer, piece);
    EXPECT_EQ(parts.thought, "What is\nasked?") << piece;
    EXPECT_EQ(parts.text, "I ask.") << piece;
    ASSERT_EQ(parts.calls.size(), 2u) << piece;
    EXPECT_EQ(parts.calls[0].name + parts.calls[0].arguments, "a{\"x\": 1}");
    EXPECT_EQ(parts.calls[1].name + parts.calls[1].arguments, "b{}");
  }
}

TEST(AnswerSplitter, IdsOfCallsDifferByCallAndAnswerAndAreTheSameEachTime) {
  const CompletionRequest request = request_with(true, "hermes");
  const auto ids = [&](size_t answer) {
    const AnswerSplitter::Parts parts =
        split({request, request.call_seed(), answer}, kAnswer, kAnswer.size());
    return std::pair(parts.calls.at(0).id, parts.calls.at(1).id);
  };
  EXPECT_EQ(ids(0), ids(0));
  EXPECT_NE(ids(0).first, ids(0).second);
  EXPECT_NE(ids(0).first, ids(1).first);
}

TEST(AnswerSplitter, WhatTheRequestDoesNotSplitIsText) {
  const CompletionRequest plain = request_with(false, "");
  EXPECT_EQ(split({plain, 0, 0}, kAnswer, 5).text, kAnswer);
  const CompletionRequest calls = request_with(false, "hermes");
  EXPECT_EQ(split({calls, 0, 0}, kAnswer, 5).text, kAnswer.substr(0, kAnswer.find("\n<tool_call>")));
}

TEST(AnswerSplitter, WhatWasCutShortIsNotLost) {
  const CompletionRequest request = request_with(true, "hermes");
  EXPECT_EQ(split({request, 0, 0}, "<thi", 1).text, "<thi");
  EXPECT_EQ(split({request, 0, 0}, "<think>a <", 1).thought, "a <");
  EXPECT_EQ(split({request, 0, 0}, "a<tool_call>{\"na", 1).text, "a<tool_call>{\"na");
  EXPECT_TRUE(split({request, 0, 0}, "", 1).empty());
}

}  // namespace
}  // namespace quern
