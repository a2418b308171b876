#include "cli/conversation.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace quern {
namespace {

// One id a character, so that tests can count.
std::vector<TokenId> count_characters(std::span<const ChatMessage> messages) {
  std::vector<TokenId> ids;
  for (const ChatMessage& message : messages)
    ids.insert(ids.end(), message.content.begin(), message.content.end());
  return ids;
}

std::string as_text(const std::vector<TokenId>& ids) { return {ids.begin(), ids.end()}; }

TEST(Conversation, EachTurnIsEncodedWithAllBeforeIt) {
  Conversation chat(count_characters, 100, 10);
  size_t dropped = 0;
  chat.set_system("S");
  EXPECT_EQ(as_text(chat.ask("one", &dropped)), "Sone");
  chat.answer("two");
  EXPECT_EQ(as_text(chat.ask("three", &dropped)), "Sonetwothree");
  EXPECT_EQ(dropped, 0u);
  const auto messages = chat.messages();
  ASSERT_EQ(messages.size(), 4u);
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(messages[1].role, "user");
  EXPECT_EQ(messages[2].role, "assistant");
}

TEST(Conversation, OldestTurnsAreDroppedWholeUntilTheReserveIsFree) {
  Conversation chat(count_characters, 20, 5);
  size_t dropped = 0;
  chat.set_system("S");
  for (const char* turn : {"aaa", "bbb"}) {
    chat.ask(turn, &dropped);
    chat.answer("xxx");
    EXPECT_EQ(dropped, 0u);
  }
  EXPECT_EQ(as_text(chat.ask("cccc", &dropped)), "Sbbbxxxcccc");  // with "aaaxxx" 17 + 5 > 20
  EXPECT_EQ(dropped, 1u);
  chat.answer("y");
  EXPECT_EQ(as_text(chat.ask("dddddddddddddd", &dropped)), "Sdddddddddddddd");
  EXPECT_EQ(dropped, 2u);
}

TEST(Conversation, TheMessageItselfIsNeverDropped) {
  Conversation chat(count_characters, 4, 1);
  size_t dropped = 0;
  EXPECT_EQ(chat.ask("longer than the context", &dropped).size(), 23u);
  EXPECT_EQ(dropped, 0u);
}

TEST(Conversation, AMessageTooLongByItselfCostsNoTurn) {
  Conversation chat(count_characters, 20, 5);
  size_t dropped = 0;
  chat.ask("aaa", &dropped);
  chat.answer("xxx");
  EXPECT_EQ(chat.ask(std::string(30, 'c'), &dropped).size(), 30u);
  EXPECT_EQ(dropped, 0u);
  chat.withdraw();
  EXPECT_EQ(as_text(chat.ask("d", &dropped)), "aaaxxxd");
}

TEST(Conversation, WithdrawAndUndoAndResetForget) {
  Conversation chat(count_characters, 100, 10);
  size_t dropped = 0;
  EXPECT_FALSE(chat.undo());
  chat.ask("a", &dropped);
  chat.withdraw();
  EXPECT_EQ(chat.n_turns(), 0u);
  chat.ask("b", &dropped);
  chat.answer("c");
  chat.ask("d", &dropped);
  chat.answer("e");
  EXPECT_TRUE(chat.undo());
  EXPECT_EQ(as_text(chat.ask("f", &dropped)), "bcf");
  chat.answer("g");
  chat.set_system("S");
  chat.reset();
  EXPECT_EQ(as_text(chat.ask("h", &dropped)), "Sh");
}

}  // namespace
}  // namespace quern
