// Where texts come from, and what happens to their ends.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

class TextInput : public testing::Test {
 protected:
  // The ids that a text becomes.
  std::vector<int> ids(const std::vector<std::string>& more, const ProcessOptions& options = {}) const {
    std::vector<std::string> arguments = {"tokenize", model_, "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProcessResult result = quern(arguments, options);
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    return result.exit_code == 0 ? Json::parse(result.out)["ids"].get<std::vector<int>>()
                                 : std::vector<int>();
  }
  ProcessResult run(const std::vector<std::string>& more, const ProcessOptions& options = {}) const {
    std::vector<std::string> arguments = {"run", model_, "-n", "6", "--temp", "0", "-q"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern(arguments, options);
  }
  static ProcessOptions input(const std::string& text) {
    ProcessOptions options;
    options.input = text;
    return options;
  }

  TempFolder folder_;
  std::string model_ = converted(folder_, "tiny-mistral", "q4_0");
};

TEST_F(TextInput, PromptAndFileAreBothRead) {
  const std::string file = folder_.write("rest.txt", "JULIET\n");
  const std::string expected = run({"-p", "ROMEO and JULIET"}).out;
  ASSERT_NE(expected, "");
  EXPECT_EQ(run({"-p", "ROMEO and ", "-f", file}).out, expected);
  EXPECT_EQ(run({"-f", file, "-p", "ROMEO and "}).out, expected);
  EXPECT_EQ(run({"-p", "ROMEO and ", "-f", "-"}, input("JULIET\n")).out, expected);
  EXPECT_EQ(run({"-p", "-"}, input("ROMEO and JULIET")).out, expected);
  const ProcessResult both = run({"-p", "-", "-f", "-"}, input("x"));
  EXPECT_EQ(both.exit_code, 1) << describe(both);
}

TEST_F(TextInput, PromptAloneLeavesStdinToTheLoopAroundIt) {
  const std::string loop =
      R"(printf 'a\nb\nc\n' | while read -r line; do "$0" "$@" -p "$line" >/dev/null; echo "$line"; done)";
  const ProcessResult result =
      run_process({"/bin/sh", "-c", loop, quern_command({})[0], "run", model_, "-n", "1", "--temp", "0"},
                  with_test_environment());
  EXPECT_EQ(result.out, "a\nb\nc\n") << describe(result);
}

TEST_F(TextInput, PipesAreRead) {
  const ProcessResult result = run_process({"/bin/bash", "-c", "exec \"$0\" \"$@\" -f <(printf JULIET)",
                                            quern_command({})[0], "tokenize", model_, "--json"},
                                           with_test_environment());
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(Json::parse(result.out)["ids"].get<std::vector<int>>(), ids({"-p", "JULIET"}));
}

TEST_F(TextInput, NullDeviceIsAnEmptyText) {
  EXPECT_EQ(ids({"-f", "/dev/null"}), ids({"-p", ""}));
  const ProcessResult nothing = run({"-p", ""}), null_device = run({"-f", "/dev/null"});
  EXPECT_EQ(null_device.exit_code, nothing.exit_code) << describe(null_device);
  EXPECT_EQ(null_device.out, nothing.out);
  const ProcessResult zeros = run({"-f", "/dev/zero"});
  EXPECT_EQ(zeros.exit_code, 5) << describe(zeros);
  EXPECT_NE(zeros.err.find("'/dev/zero' is a device, not a file or a pipe"), std::string::npos)
      << describe(zeros);
}

TEST_F(TextInput, EndsOfLinesAndMarksGoWhereAPersonIsRead) {
  const std::string expected = run({"-p", "Hello"}).out;
  ASSERT_NE(expected, "");
  for (const char* text : {"Hello", "Hello\n", "Hello\r\n", "\xEF\xBB\xBFHello\r\n"}) {
    const std::string file = folder_.write("text.txt", text);
    EXPECT_EQ(run({"-f", file}).out, expected) << text;
  }
  EXPECT_NE(run({"-f", folder_.write("mark.txt", "\xEF\xBB\xBFHello")}).err.find("byte order mark"),
            std::string::npos);
  const ProcessResult piped = run({}, input("\xEF\xBB\xBFHello"));
  EXPECT_EQ(piped.out, expected);
  EXPECT_NE(piped.err.find("stdin: the byte order mark"), std::string::npos) << describe(piped);
}

TEST_F(TextInput, EveryByteButOneNewlineCountsWhereBytesAreCounted) {
  EXPECT_EQ(ids({"-f", folder_.write("a.txt", "Hello\n")}), ids({"-p", "Hello"}));
  EXPECT_EQ(ids({"-f", folder_.write("b.txt", "Hello\r\n")}), ids({"-p", "Hello\r"}));
  EXPECT_EQ(ids({"-f", folder_.write("c.txt", "Hello\n\n")}), ids({"-p", "Hello\n"}));
  EXPECT_EQ(ids({"-f", folder_.write("d.txt", "\xEF\xBB\xBFHello")}), ids({"-p", "\xEF\xBB\xBFHello"}));
}

TEST_F(TextInput, Utf16IsRefusedByName) {
  for (const std::string& text : {std::string("\xFF\xFEH\0i\0", 6), std::string("\xFE\xFF\0H\0i", 6)}) {
    const std::string file = folder_.write("wide.txt", text);
    for (const ProcessResult& result :
         {run({"-f", file}), run({}, input(text)), quern({"tokenize", model_, "-f", file}),
          quern({"perplexity", model_, "-f", file}),
          quern({"tokenize", model_, "--chat", file, "--chat-format", "mistral-v1"}),
          quern({"tokenize", model_, "--chat", folder_.write("chat.json", "[]"), "--template", file}),
          quern({"chat", model_, "--chat-format", "mistral-v1", "--once"}, input(text)),
          quern({"chat", model_, "--chat-format", "mistral-v1"}, input(text))}) {
      EXPECT_EQ(result.exit_code, 2) << describe(result);
      EXPECT_NE(result.err.find("UTF-16"), std::string::npos) << describe(result);
      EXPECT_EQ(result.out, "");
    }
  }
}

TEST_F(TextInput, EscapesStandForBytesWhenAskedFor) {
  EXPECT_EQ(run({"-e", "-p", R"(a\n\t\\\x41)"}).out, run({"-p", "a\n\t\\A"}).out);
  EXPECT_EQ(ids({"-e", "-p", R"(a\n\t\\\xC3\xA9)"}), ids({"-p", "a\n\t\\\xC3\xA9"}));
  EXPECT_NE(run({"-p", R"(KING\n)"}).out, run({"-e", "-p", R"(KING\n)"}).out);
  const ProcessResult stopped = run({"-p", "KING RICHARD II:\n", "-n", "40", "-e", "--stop", R"(\n)"});
  EXPECT_EQ(stopped.exit_code, 0) << describe(stopped);
  EXPECT_EQ(stopped.out.find('\n'), std::string::npos) << describe(stopped);
  for (const char* bad : {R"(\q)", R"(\x4)", R"(\xZZ)", R"(\)"}) {
    const ProcessResult result = run({"-e", "-p", std::string("a") + bad});
    EXPECT_EQ(result.exit_code, 1) << bad << describe(result);
    EXPECT_NE(result.err.find(std::string("'") + bad + "' is no escape"), std::string::npos)
        << describe(result);
  }
}

class ChatLines : public TextInput {
 protected:
  ProcessResult chat(const std::string& lines) const {
    return quern({"chat", model_, "--chat-format", "mistral-v1", "-n", "3", "--temp", "0"}, input(lines));
  }
};

TEST_F(ChatLines, CarriageReturnsAndMarksGo) {
  const std::string expected = chat("hi\n").out;
  ASSERT_NE(expected, "");
  EXPECT_EQ(chat("hi\r\n").out, expected);
  EXPECT_EQ(chat("\xEF\xBB\xBFhi\r\n").out, expected);
  const ProcessResult left = chat("hi\r\n/stats\r\n/exit\r\nmore\r\n");
  EXPECT_EQ(left.out, expected) << describe(left);
  EXPECT_EQ(left.err.find("unknown command"), std::string::npos) << describe(left);
}

TEST_F(ChatLines, LineThatEndsInABackslashGoesOn) {
  const std::string file = folder_.file("talk.json");
  chat("one\\\ntwo\\\r\nthree\n/save " + file + "\n");
  EXPECT_EQ(Json::parse(read_file(file))[0]["content"], "one\ntwo\nthree");
}

TEST_F(ChatLines, OnceReadsAsRunDoes) {
  const auto once = [&](const std::vector<std::string>& more, const ProcessOptions& options = {}) {
    std::vector<std::string> arguments = {"chat",   model_, "--chat-format", "mistral-v1", "-n", "3",
                                          "--temp", "0",    "--once"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern(arguments, options);
  };
  const std::string expected = once({"-p", "hi there"}).out;
  ASSERT_NE(expected, "");
  EXPECT_EQ(once({}, input("hi there\r\n")).out, expected);
  EXPECT_EQ(once({}, input("\xEF\xBB\xBFhi there\n")).out, expected);
  EXPECT_EQ(once({"hi there"}).out, expected);
  EXPECT_EQ(once({"-p", "hi ", "-f", "-"}, input("there\n")).out, expected);
  // Of every line the carriage return goes.
  const std::string lines = once({"-e", "-p", R"(hi\nthere)"}).out;
  ASSERT_NE(lines, expected);
  EXPECT_EQ(once({}, input("hi\r\nthere\r\n")).out, lines);
  EXPECT_EQ(once({"-f", folder_.write("lines.txt", "hi\r\nthere\r\n")}).out, lines);
  EXPECT_EQ(once({"-p", "-"}, input("hi\r\nthere")).out, lines);
}

TEST_F(ChatLines, FileReadAsAMessageLosesItsCarriageReturns) {
  const std::string text = folder_.write("message.txt", "\xEF\xBB\xBFone\r\ntwo\r\n");
  const std::string file = folder_.file("talk.json");
  chat("/read " + text + "\n/save " + file + "\n");
  EXPECT_EQ(Json::parse(read_file(file))[0]["content"], "one\ntwo");
}

TEST_F(ChatLines, FileOnStdinBesideAPromptIsPointedAt) {
  const std::string file = folder_.write("article.txt", "text\n");
  const auto with_stdin = [&](const std::string& redirect) {
    return run_process(
        {"/bin/sh", "-c", "exec \"$0\" \"$@\" " + redirect, quern_command({})[0], "chat", model_,
         "--chat-format", "mistral-v1", "-n", "2", "--temp", "0", "--once", "-p", "hi"},
        with_test_environment());
  };
  EXPECT_NE(with_stdin("< " + file).err.find("-f -"), std::string::npos);
  EXPECT_EQ(with_stdin("< /dev/null").err.find("-f -"), std::string::npos);
}

}  // namespace
}  // namespace quern::test
