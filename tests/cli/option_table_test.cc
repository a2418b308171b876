#include "cli/option_table.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace quern {
namespace {

CommandTable table() {
  CommandTable t;
  t.name = "run";
  t.description = "Completes a text. 'Quoted' and back\\slashed.";
  t.examples = "  quern run m.gguf -p \"x\"";
  OptionRow model{{"MODEL"}, "", "A GGUF file"};
  model.required = true;
  t.positionals = {model, {{"TEXT"}, "", "The first message"}};
  t.options = {{{"-n", "--max-tokens"}, "N", "Tokens to generate at most"},
               {{"--kv"}, "NAME", "Format of the cache", {"f16", "f32"}},
               {{"-f", "--file"}, "FILE", "Read it's text [from] a file: any"},
               {{"--json"}, "", "JSON"}};
  return t;
}

TEST(OptionTable, WrapsBetweenWordsAndIndentsWhatFollows) {
  EXPECT_EQ(wrap("one two three", 8, 2), "one two\n  three");
  EXPECT_EQ(wrap("one\ntwo", 80, 4), "one\ntwo");
  EXPECT_EQ(wrap("unbreakable", 4, 0), "unbreakable");
  EXPECT_EQ(wrap("", 10, 2), "");
}

TEST(OptionTable, HelpHasEveryOptionWithinTheWidth) {
  for (const size_t width : {50, 80}) {
    const std::string help = render_help(table(), width);
    for (const char* part :
         {"quern run MODEL [TEXT] [options]", "-n, --max-tokens N", "--kv f16|f32", "--json"})
      EXPECT_NE(help.find(part), std::string::npos) << help;
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), width) << line;
  }
}

TEST(OptionTable, HelpOfANarrowTerminalHasTextsBelowTheNames) {
  constexpr size_t kWidth = 34;
  const std::string help = render_help(table(), kWidth);
  EXPECT_NE(help.find("\n  -n, --max-tokens N\n        Tokens to generate at most\n"), std::string::npos)
      << help;
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);)
    EXPECT_TRUE(line.size() <= kWidth || line.starts_with("Usage:")) << line;
}

TEST(OptionTable, ManPageEscapesWhatTroffWouldRead) {
  const std::string page = render_man(table(), "1.2");
  EXPECT_TRUE(page.starts_with(".TH QUERN\\-RUN 1 \"\" \"quern 1.2\"")) << page;
  EXPECT_NE(page.find("\\-\\-max\\-tokens N"), std::string::npos);
  EXPECT_NE(page.find("back\\eslashed"), std::string::npos);
  EXPECT_NE(page.find("f16|\\:f32"), std::string::npos) << "a long list of choices may be broken\n" << page;
}

TEST(OptionTable, CompletionsOfEveryShellKnowOptionsAndChoices) {
  const std::vector<CommandSummary> commands = {{"run", "complete a text"}};
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string text = render_completions(shell, {table()}, commands);
    for (const char* part : {"max-tokens", "f16 f32", "json", "completions", "bash zsh fish"})
      EXPECT_NE(text.find(part), std::string::npos) << shell << ": " << text;
  }
  EXPECT_NE(render_completions("fish", {table()}, {{"run", ""}, {"chat", ""}})
                .find("-n '__fish_seen_subcommand_from help man' -f -a 'run chat'\n"),
            std::string::npos);
  EXPECT_EQ(render_completions("cmd.exe", {table()}, commands), "");
}

}  // namespace
}  // namespace quern
