// chat: one answer, a conversation over pipes, and Ctrl-C.
#include <gtest/gtest.h>
#include <signal.h>

#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

class Chat : public testing::Test {
 protected:
  std::vector<std::string> command(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {"chat", model_, "--chat-format", "mistral-v1", "--temp", "0",
                                          "-n",   "12"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  // A conversation typed through a pipe.
  ProcessResult converse(const std::string& lines) const {
    ProcessOptions options;
    options.input = lines;
    return quern(command({}), options);
  }

  TempFolder folder_;
  std::string model_ = converted(folder_, "tiny-mistral", "q4_0");
};

TEST_F(Chat, AsksForTheFormatWhereNoneIsKnown) {
  const ProcessResult result = quern({"chat", model_, "--once", "-p", "Hello"});
  EXPECT_GT(result.exit_code, 0) << describe(result);
  EXPECT_NE(result.err.find("--chat-format"), std::string::npos) << describe(result);
  EXPECT_EQ(quern({"chat", model_, "--once", "-p", "a", "--chat-format", "klingon"}).exit_code, 1);
}

TEST_F(Chat, OnceAnswersOneMessage) {
  const ProcessResult from_argument = quern(command({"--once", "-p", "Hello"}));
  EXPECT_EQ(from_argument.exit_code, 0) << describe(from_argument);
  EXPECT_NE(from_argument.out, "");
  ProcessOptions options;
  options.input = "Hello";
  EXPECT_EQ(quern(command({"--once"}), options).out, from_argument.out);
}

TEST_F(Chat, ResetAndUndoForgetWhatWasSaid) {
  const std::string once = converse("Hello\n").out;
  ASSERT_NE(once, "");
  EXPECT_EQ(converse("Hello\n/reset\nHello\n").out, once + once);
  EXPECT_EQ(converse("Hello\n/undo\nHello\n").out, once + once);
  // History matters: the same words a second time are another conversation.
  const std::string twice = converse("Hello\nHello\n").out;
  EXPECT_EQ(twice.substr(0, once.size()), once);
  EXPECT_NE(twice, once + once);
}

TEST_F(Chat, SystemMessageChangesTheAnswerUntilItIsGone) {
  const std::string once = converse("Hello\n").out;
  EXPECT_NE(converse("/system KING RICHARD II speaks of war.\nHello\n").out, once);
}

TEST_F(Chat, CommandsAnswerWithoutTheModel) {
  const ProcessResult result = converse("/help\n/stats\n/exit\nnever read\n");
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  for (const char* name : {"/help", "/reset", "/undo", "/system", "/save", "/stats", "/exit"}) {
    EXPECT_NE((result.out + result.err).find(name), std::string::npos) << name;
  }
  EXPECT_EQ(result.out, "") << "stdout carries answers and nothing else";
}

TEST_F(Chat, UnknownCommandIsSaidAndTheChatGoesOn) {
  const ProcessResult result = converse("/frobnicate\nHello\n");
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_NE(result.err.find("/frobnicate"), std::string::npos) << describe(result);
  EXPECT_EQ(result.out, converse("Hello\n").out);
}

TEST_F(Chat, SavedConversationIsOneThatTokenizeReads) {
  const std::string file = folder_.file("saved.json");
  const ProcessResult result = converse("Hello\n/save " + file + "\n");
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const nlohmann::json saved = nlohmann::json::parse(read_file(file));
  ASSERT_EQ(saved.size(), 2u);
  EXPECT_EQ(saved[0]["role"], "user");
  EXPECT_EQ(saved[0]["content"], "Hello");
  EXPECT_EQ(saved[1]["role"], "assistant");
}

TEST_F(Chat, OldTurnsAreDroppedWhenTheContextIsFull) {
  ProcessOptions options;
  for (int turn = 0; turn < 8; ++turn) options.input += "Tell me more of the king, good sir\n";
  const ProcessResult result = quern(command({"--ctx", "128"}), options);
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_NE(result.err.find("drop"), std::string::npos) << describe(result);
}

TEST_F(Chat, MessageLargerThanTheContextIsRefused) {
  std::string message;
  for (int word = 0; word < 200; ++word) message += "king ";
  const ProcessResult result = quern(command({"--ctx", "64", "--once", "-p", message}));
  EXPECT_EQ(result.exit_code, 4) << describe(result);
  EXPECT_NE(result.err.find("64"), std::string::npos) << describe(result);
}

TEST_F(Chat, FirstInterruptStopsTheAnswerAndTheChatGoesOn) {
  ProcessOptions options = with_test_environment();
  options.keep_stdin_open = true;
  options.input = "Hello\n";
  Process chat(quern_command({"chat", model_, "--chat-format", "mistral-v1", "--temp", "0", "-n", "900",
                              "--isa", "scalar", "-t", "1", "--ignore-eos"}),
               options);
  ASSERT_TRUE(chat.wait_for_stdout(" ")) << describe(chat.wait());
  chat.send_signal(SIGINT);
  chat.run_for(0.5 * kSlowdown);
  ASSERT_TRUE(chat.running()) << describe(chat.wait());
  chat.write_line("/exit");
  const ProcessResult result = chat.wait();
  EXPECT_EQ(result.exit_code, 0) << describe(result);
}

TEST_F(Chat, WaitsForItsUserWithoutTakingProcessorTime) {
  ProcessOptions options;  // without the environment of tests, in which OpenMP's threads never spin
  options.keep_stdin_open = true;
  options.input = "Hello\n";
  options.timeout_seconds *= kSlowdown;
  Process chat(quern_command(command({"-t", "2"})), options);
  ASSERT_TRUE(chat.wait_for_stdout("\n")) << describe(chat.wait());
  chat.run_for(0.5 * kSlowdown);  // the rest of the answer
  const double before = chat.cpu_seconds();
  chat.run_for(0.5);
  EXPECT_LT(chat.cpu_seconds() - before, 0.2);  // a thread that spins takes 0.5
  chat.write_line("/exit");
  EXPECT_EQ(chat.wait().exit_code, 0);
}

TEST_F(Chat, InterruptWhileIdleLeaves) {
  ProcessOptions options = with_test_environment();
  options.keep_stdin_open = true;
  options.input = "/help\n";
  Process chat(quern_command(command({})), options);
  ASSERT_TRUE(chat.wait_for_stderr("/exit")) << describe(chat.wait());
  chat.send_signal(SIGINT);
  chat.run_for(0.3);
  if (chat.running()) chat.send_signal(SIGINT);
  chat.run_for(2 * kSlowdown);
  EXPECT_FALSE(chat.running());
  EXPECT_EQ(chat.wait().exit_code, 130);
}

}  // namespace
}  // namespace quern::test
