#include "cli/chat_messages.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "quant/error.h"

namespace quern {
namespace {

TEST(ChatMessages, TextsAndChunkListsAreRead) {
  const auto messages = parse_chat_messages(
      R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
          {"role": "assistant", "content": "c\n", "prefix": true}])",
      "x.json");
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].role, "user");
  EXPECT_EQ(messages[0].content, "a\n\nb");
  EXPECT_FALSE(messages[0].prefix);
  EXPECT_EQ(messages[1].content, "c\n");
  EXPECT_TRUE(messages[1].prefix);
}

TEST(ChatMessages, AbsentCallsAreNone) {
  EXPECT_EQ(parse_chat_messages(R"([{"role": "user", "content": "a", "tool_calls": null},
                                    {"role": "user", "content": "b", "tool_calls": []}])",
                                "x.json")
                .size(),
            2u);
}

TEST(ChatMessages, WhatIsWrittenIsReadBack) {
  const std::vector<ChatMessage> messages = {
      {"system", "s \"quoted\" \\"}, {"user", "\n\t🦙"}, {"assistant", "", true}};
  const auto read = parse_chat_messages(chat_messages_json(messages), "x.json");
  ASSERT_EQ(read.size(), messages.size());
  for (size_t i = 0; i < read.size(); ++i) {
    EXPECT_EQ(read[i].role, messages[i].role);
    EXPECT_EQ(read[i].content, messages[i].content);
    EXPECT_EQ(read[i].prefix, messages[i].prefix);
  }
  EXPECT_TRUE(parse_chat_messages(chat_messages_json({}), "x.json").empty());
}

TEST(ChatMessages, EverythingElseIsMalformed) {
  for (const char* text :
       {"", "[", "{}", "1", "[1]", "[{}]", R"([{"role": "user"}])", R"([{"content": "a"}])",
        R"([{"role": 1, "content": "a"}])", R"([{"role": "user", "content": null}])",
        R"([{"role": "user", "content": [1]}])", R"([{"role": "user", "content": [{"type": "text"}]}])",
        R"([{"role": "user", "content": [{"type": "image_url", "text": "a"}]}])",
        R"([{"role": "assistant", "content": "a", "prefix": 1}])",
        R"([{"role": "assistant", "content": "a", "tool_calls": [{"type": "function"}]}])",
        R"({"messages": [{"role": "assistant", "content": "a", "function_call": {"name": "f"}}]})"}) {
    try {
      parse_chat_messages(text, "x.json");
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMalformed) << text;
      EXPECT_NE(std::string(error.what()).find("x.json"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace quern
