// chat: one answer, a conversation over pipes, and Ctrl-C.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
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
  EXPECT_EQ(result.exit_code, 1) << describe(result);
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

TEST_F(Chat, OnceAsksNoEmptyMessage) {
  ProcessOptions nothing;
  nothing.input = "\n";
  for (const ProcessResult& result : {quern(command({"--once"}), nothing),
                                      quern(command({"--once", "-p", ""})), quern(command({"--once"}))}) {
    EXPECT_EQ(result.exit_code, 1) << describe(result);
    EXPECT_NE(result.err.find("--once: the message is empty"), std::string::npos) << describe(result);
  }
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

TEST_F(Chat, SystemTextChangesTheAnswersFromWhereItIsSet) {
  const std::string once = converse("Hello\n").out;
  ASSERT_NE(once, "");
  const std::string text = "KING RICHARD II speaks of war.";
  const ProcessResult changed = converse("/system " + text + "\n/system\nHello\n/reset\nHello\n");
  EXPECT_EQ(count_lines_with_prefix(changed.err, "system: " + text), 2u) << describe(changed);
  const ProcessResult from_option = quern(command({"--system", text, "--once", "-p", "Hello"}));
  EXPECT_EQ(from_option.exit_code, 0) << describe(from_option);
  EXPECT_NE(from_option.out, once);
  EXPECT_EQ(changed.out, from_option.out + from_option.out);  // a reset keeps it
  // An empty one only shows that there is none.
  EXPECT_EQ(converse("/system\nHello\n").out, once);
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
  EXPECT_NE(result.out, "");
  EXPECT_EQ(result.out, converse("Hello\n").out);
}

TEST_F(Chat, CommandsOfOtherProgramsAreTaken) {
  EXPECT_EQ(converse("Hello\n/clear\nHello\n/bye\nnever read\n").out, converse("Hello\n/reset\nHello\n").out);
  EXPECT_EQ(converse("/?\n").err, converse("/help\n").err);
  EXPECT_EQ(converse("/help set\n").err, converse("/help\n").err);
  const ProcessResult near = converse("/set system x\n/regn\n");
  EXPECT_NE(near.err.find("/system TEXT"), std::string::npos) << describe(near);
  EXPECT_NE(near.err.find("did you mean '/regen'"), std::string::npos) << describe(near);
}

// A question that begins with a slash must not end or empty a conversation.
TEST_F(Chat, WhatStandsBehindACommandIsNotPassedOver) {
  const ProcessResult result = converse("Hello\n/exit strategies?\n/reset now\n/undo that\nHello\n");
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  for (const char* name : {"/exit", "/reset", "/undo"})
    EXPECT_NE(result.err.find(std::string(name) + " takes nothing behind it"), std::string::npos)
        << describe(result);
  EXPECT_EQ(result.out, converse("Hello\nHello\n").out);
}

TEST_F(Chat, FilesOfCommandsMayBeginWithTheHomeFolder) {
  folder_.write("question.txt", "Hello\n");
  folder_.write("empty.txt", "");
  ProcessOptions options;
  options.environment = {"HOME=" + folder_.path().string()};
  options.input = "/read ~/empty.txt\n/read  ~/question.txt \n/save ~/saved.json\n/load ~/saved.json\n";
  const ProcessResult result = quern(command({}), options);
  EXPECT_NE(result.err.find("empty.txt' is empty: nothing is asked"), std::string::npos) << describe(result);
  EXPECT_NE(result.err.find("loaded 1 turn"), std::string::npos) << describe(result);
  EXPECT_EQ(result.out, converse("Hello\n").out);
}

TEST_F(Chat, WhatIsWrongIsSaidBeforeTheModelIsLoaded) {
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{"--load", folder_.file("none.json")},
                                                {"--load", folder_.write("text.json", "hello")},
                                                {"--stop", ""},
                                                {"--chat-format", "chatml"}}) {
    const ProcessResult result = quern(command(wrong));
    EXPECT_NE(result.exit_code, 0) << describe(result);
    EXPECT_EQ(result.err.find("kernels: "), std::string::npos) << describe(result);
  }
  const ProcessResult unknown = quern(command({"--chat-format", "chatml"}));
  EXPECT_NE(unknown.err.find("without it the model's own chat template is run"), std::string::npos)
      << describe(unknown);
  const ProcessResult stop = quern({"run", model_, "-p", "a", "--stop", ""});
  EXPECT_EQ(stop.err, "error: --stop: the text is empty\n");
}

TEST_F(Chat, SavedConversationIsOneThatTokenizeReads) {
  const std::string file = folder_.file("saved.json");
  const ProcessResult result = converse("Hello\n/save " + file + "\n");
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json saved = Json::parse(read_file(file));
  ASSERT_EQ(saved.size(), 2u);
  EXPECT_EQ(saved[0]["role"], "user");
  EXPECT_EQ(saved[0]["content"], "Hello");
  EXPECT_EQ(saved[1]["role"], "assistant");
}

TEST_F(Chat, SaveReplacesConversationsAndNothingElse) {
  const std::string text = folder_.write("notes.json", "[\"of mine\"]"),
                    old = folder_.write("old.json", "[]"), model = folder_.file("copy.gguf"),
                    link = folder_.file("link");
  std::filesystem::copy_file(model_, model);
  std::filesystem::create_symlink(old, link);
  const std::string model_bytes = read_file(model);
  const ProcessResult result =
      converse("Hello\n/save " + text + "\n/save " + model + "\n/save " + old + "\n/save " + old +
               "\n/save " + link + "\n/save " + folder_.file("none/x.json") + "\n");
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(read_file(text), "[\"of mine\"]");
  EXPECT_EQ(read_file(model), model_bytes);
  EXPECT_EQ(Json::parse(read_file(old)).size(), 2u);
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(count_lines_with_prefix(result.err, "/save: '"), 2u) << describe(result);
  EXPECT_EQ(count_lines_with_prefix(result.err, "saved 1 turn"), 2u) << describe(result);
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
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(count_lines_with_prefix(result.err, "error:"), 1u) << describe(result);
  EXPECT_NE(result.err.find("64", result.err.find("error:")), std::string::npos) << describe(result);
}

// The whole answer takes the scalar set seconds; what it would have been is known from the fastest one.
TEST_F(Chat, FirstInterruptStopsTheAnswerAndTheChatGoesOn) {
  const std::vector<std::string> long_answer = {"chat", model_, "--chat-format", "mistral-v1",  "--temp",
                                                "0",    "-n",   "900",           "--ignore-eos"};
  ProcessOptions uninterrupted;
  uninterrupted.input = "Hello\n";
  const std::string whole = quern(long_answer, uninterrupted).out;
  ProcessOptions options = with_test_environment();
  options.keep_stdin_open = true;
  options.input = "Hello\n";
  std::vector<std::string> slow = long_answer;
  slow.insert(slow.end(), {"--isa", "scalar", "-t", "1"});
  Process chat(quern_command(slow), options);
  ASSERT_TRUE(chat.wait_for_stdout(" ")) << describe(chat.wait());
  chat.send_signal(SIGINT);
  chat.run_for(0.5 * kSlowdown);
  ASSERT_TRUE(chat.running()) << describe(chat.wait());
  chat.write_line("/exit");
  const ProcessResult result = chat.wait();
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  std::string begun = result.out;
  while (begun.ends_with('\n')) begun.pop_back();
  EXPECT_TRUE(whole.starts_with(begun)) << describe(result);
  EXPECT_LT(result.out.size(), whole.size()) << "nothing was stopped";
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
  chat.run_for(2 * kSlowdown);
  EXPECT_FALSE(chat.running()) << "one signal is enough";
  EXPECT_EQ(chat.wait().exit_code, 130);
}

}  // namespace
}  // namespace quern::test
