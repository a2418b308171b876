// What a user sees who sits at a terminal: line editing, completion, history, hints.
#include <gtest/gtest.h>

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tests/cli/quern_cli.h"
#include "tests/support/terminal.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;

// Without what was erased before it.
std::vector<std::string> lines_of(const std::string& seen) {
  std::vector<std::string> lines(1);
  for (const char c : seen) {
    if (c == '\n')
      lines.emplace_back();
    else if (c != '\r')
      lines.back() += c;
    if (lines.back().ends_with("\033[K")) lines.back().clear();
  }
  return lines;
}

// Of text without control sequences: each byte that begins a character.
size_t display_columns(std::string_view line) {
  return static_cast<size_t>(
      std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

class AtTerminal : public testing::Test {
 protected:
  void SetUp() override {
    if (!QUERN_HAS_LIBEDIT) GTEST_SKIP() << "built without libedit";
  }
  std::vector<std::string> environment() const {
    return {"XDG_STATE_HOME=" + folder_.file("state"), "HOME=" + folder_.path().string(), "TERM=xterm",
            "LC_ALL=C"};
  }
  std::vector<std::string> chat(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"chat", model_, "--chat-format", "mistral-v1", "--temp", "0",
                                          "-n",   "3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern_command(arguments);
  }
  // The conversation as /save wrote it.
  Json saved() const { return Json::parse(read_file(folder_.file("talk.json"))); }

  TempFolder folder_;
  std::string model_ = converted(folder_, "tiny-mistral", "q4_0");
};

TEST_F(AtTerminal, PastedLinesAreOneMessageWhateverTheyHold) {
  Terminal terminal(chat(), environment());
  ASSERT_TRUE(terminal.wait_for("> ")) << terminal.seen();
  EXPECT_NE(terminal.seen().find("\033[?2004h"), std::string::npos) << "asks for marks around a paste";
  terminal.type("\033[200~first line\r/exit\rr\xC3\xA9sum\xC3\xA9\033[201~\r");
  ASSERT_TRUE(terminal.wait_for("\033[?2004h> ", 2)) << terminal.seen();
  terminal.type("/save " + folder_.file("talk.json") + "\r");
  ASSERT_TRUE(terminal.wait_for("saved 1 turn")) << terminal.seen();
  terminal.type("/exit\r");
  EXPECT_EQ(terminal.wait(), 0) << terminal.seen();
  EXPECT_EQ(saved()[0]["content"], "first line\n/exit\nr\xC3\xA9sum\xC3\xA9");
}

TEST_F(AtTerminal, NoSequencesGoToOneThatKnowsNone) {
  std::vector<std::string> dumb = environment();
  *std::find(dumb.begin(), dumb.end(), "TERM=xterm") = "TERM=dumb";
  Terminal terminal(chat(), dumb);
  ASSERT_TRUE(terminal.wait_for("> ")) << terminal.seen();
  terminal.type("/exit\r");
  EXPECT_EQ(terminal.wait(), 0) << terminal.seen();
  EXPECT_EQ(terminal.seen().find('\033'), std::string::npos) << terminal.seen();
  Terminal convert(quern_command({"convert", test_data("tiny-mistral"), "-o", folder_.file("x.gguf")}), dumb);
  EXPECT_EQ(convert.wait(), 0) << convert.seen();
  EXPECT_EQ(convert.seen().find('\033'), std::string::npos) << convert.seen();
}

// The table of `bench`, which has 178 columns where nobody looks.
TEST_F(AtTerminal, BenchsTableFitsTheLinesOfTheTerminal) {
  constexpr unsigned short kColumns = 70;
  Terminal terminal(quern_command({"bench", model_, "-p", "8", "-n", "4", "-r", "1"}), environment(),
                    kColumns);
  EXPECT_EQ(terminal.wait(), 0) << terminal.seen();
  std::vector<std::string> table;
  for (const std::string& line : lines_of(terminal.seen()))
    if (line.starts_with("|")) table.push_back(line);
  ASSERT_EQ(table.size(), 4u) << terminal.seen();
  const auto n_cells = [](const std::string& line) { return std::count(line.begin(), line.end(), '|'); };
  for (const std::string& line : table) {
    EXPECT_LE(display_columns(line), kColumns) << line;
    EXPECT_EQ(n_cells(line), n_cells(table[0])) << line;
  }
  for (const char* title : {"| model ", "| threads |", " test |", " t/s |"})
    EXPECT_NE(table[0].find(title), std::string::npos) << table[0];
}

TEST_F(AtTerminal, LineThatEndsInABackslashGoesOn) {
  Terminal terminal(chat(), environment());
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("first \\\rsecond\r");
  ASSERT_TRUE(terminal.wait_for("\033[?2004h> ", 2)) << terminal.seen();
  terminal.type("/save " + folder_.file("talk.json") + "\r");
  ASSERT_TRUE(terminal.wait_for("\033[?2004h> ", 3)) << terminal.seen();
  terminal.type("\x04");  // Ctrl-D
  EXPECT_EQ(terminal.wait(), 0) << terminal.seen();
  EXPECT_EQ(saved()[0]["content"], "first \nsecond");
}

TEST_F(AtTerminal, InterruptGivesUpAMessageOfSeveralLinesAsAWhole) {
  for (const char* second : {"", "second"}) {
    Terminal terminal(chat(), environment());
    ASSERT_TRUE(terminal.wait_for("> "));
    terminal.type("first \\\r");
    ASSERT_TRUE(terminal.wait_for("\033[?2004h. ")) << terminal.seen();
    terminal.type(std::string(second) + "\x03");
    ASSERT_TRUE(terminal.wait_for("\n\033[?2004l\033[?2004h> ")) << terminal.seen();
    terminal.type("/exit\r");  // a command again
    EXPECT_EQ(terminal.wait(), 0) << terminal.seen();
  }
}

TEST_F(AtTerminal, KeysThatSendSequencesTypeNothing) {
  Terminal terminal(chat(), environment());
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("two words\033[1;5D\033[15~\033[5~\033[2~\033[1;5A\033[201~\033[Z");
  terminal.type("small \033[H\033[1;5C\033[1;5C\033[3;5~\r");
  ASSERT_TRUE(terminal.wait_for("\033[?2004h> ", 2)) << terminal.seen();
  terminal.type("/save " + folder_.file("talk.json") + "\r");
  ASSERT_TRUE(terminal.wait_for("saved 1 turn")) << terminal.seen();
  terminal.type("/exit\r");
  EXPECT_EQ(terminal.wait(), 0) << terminal.seen();
  EXPECT_EQ(saved()[0]["content"], "two small");
}

TEST_F(AtTerminal, InterruptClearsALineAndAskedTwiceLeaves) {
  Terminal terminal(chat(), environment());
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("half a message");
  ASSERT_TRUE(terminal.wait_for("half a message"));
  terminal.type("\x03");
  ASSERT_TRUE(terminal.wait_for("> ", 2)) << terminal.seen();  // the line is gone
  terminal.type("\x03");
  ASSERT_TRUE(terminal.wait_for("Ctrl-C again leaves")) << terminal.seen();
  terminal.type("/stats\r");  // something typed: the next Ctrl-C asks again
  ASSERT_TRUE(terminal.wait_for("\033[?2004h> ", 2)) << terminal.seen();
  terminal.type("\x03");
  ASSERT_TRUE(terminal.wait_for("Ctrl-C again leaves", 2)) << terminal.seen();
  terminal.type("\x03");
  EXPECT_EQ(terminal.wait(), 0) << terminal.seen();
  EXPECT_TRUE(terminal.seen().find("\033[?2004l", terminal.seen().rfind("\033[?2004h")) != std::string::npos)
      << "the marks are switched off again";
}

TEST_F(AtTerminal, TabCompletesCommands) {
  Terminal terminal(chat(), environment());
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("/st\t\r");
  ASSERT_TRUE(terminal.wait_for("positions used")) << terminal.seen();  // what /stats says
  terminal.type("/s\t");
  ASSERT_TRUE(terminal.wait_for("/system  /save  /stats")) << terminal.seen();
  terminal.type("\x15/ex\t\r");
  EXPECT_EQ(terminal.wait(), 0) << terminal.seen();
}

TEST_F(AtTerminal, HistoryOutlivesTheSessionUnlessAskedNotTo) {
  const std::string history = folder_.file("state/quern/chat_history");
  for (const bool keep : {false, true}) {
    Terminal terminal(keep ? chat() : chat({"--no-history"}), environment());
    ASSERT_TRUE(terminal.wait_for("> "));
    terminal.type("/system remembered\r");
    ASSERT_TRUE(terminal.wait_for("system: remembered"));
    terminal.type("/exit\r");
    EXPECT_EQ(terminal.wait(), 0);
    EXPECT_EQ(fs::exists(history), keep);
  }
  struct stat status {};
  ASSERT_EQ(stat(history.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 077u, 0u) << "nobody else reads it";
  Terminal terminal(chat(), environment());
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("\033[A\033[A\r");  // up, over /exit
  EXPECT_TRUE(terminal.wait_for("system: remembered")) << terminal.seen();
}

TEST_F(AtTerminal, OpensWithAMessageOfTheCommandLine) {
  Terminal terminal(chat({"Hello there"}), environment());
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("/save " + folder_.file("talk.json") + "\r");
  ASSERT_TRUE(terminal.wait_for("saved 1 turn")) << terminal.seen();
  EXPECT_EQ(saved()[0]["content"], "Hello there");
}

TEST_F(AtTerminal, RunWithoutATextNamesChat) {
  Terminal terminal(quern_command({"run", model_}), environment());
  EXPECT_EQ(terminal.wait(), 1);
  EXPECT_NE(terminal.seen().find("quern chat " + model_), std::string::npos) << terminal.seen();
}

TEST_F(AtTerminal, TimingsHaveALineOfTheirOwn) {
  Terminal terminal(quern_command({"run", model_, "-p", "KING", "-n", "2", "--temp", "0"}), environment());
  EXPECT_EQ(terminal.wait(), 0);
  EXPECT_NE(terminal.seen().find("\nload "), std::string::npos) << terminal.seen();
}

TEST_F(AtTerminal, CommandsOfTheHelpStayWhole) {
  Terminal terminal(quern_command({"--help"}), environment(), 40);
  EXPECT_EQ(terminal.wait(), 0);
  EXPECT_NE(terminal.seen().find("  quern convert Mistral-7B-Instruct-v0.2 -o mistral.gguf --type q4_0\r\n"),
            std::string::npos)
      << terminal.seen();
}

TEST_F(AtTerminal, TablesAndHelpFitTheWidth) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"inspect", model_}, {"run", "--help"}, {"--help"}, {"doctor", model_}}) {
    Terminal terminal(quern_command(arguments), environment(), 60);
    EXPECT_EQ(terminal.wait(), 0);
    std::istringstream lines(terminal.seen());
    for (std::string line; std::getline(lines, line);) {
      if (line.ends_with('\r')) line.pop_back();
      const bool is_example =
          line.starts_with("  quern ") || line.starts_with("  echo ") || line.starts_with("  -");
      if (is_example || line.find('/') != std::string::npos) continue;
      EXPECT_LE(line.size(), 60u) << arguments[0] << ": " << line;
    }
  }
}

}  // namespace
}  // namespace quern::test
