// The command line itself: help, versions, and what is refused before any work.
#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

const std::vector<std::string> kCommands = {"convert",    "inspect", "run",      "chat",  "imatrix",
                                            "perplexity", "bench",   "tokenize", "doctor"};

void expect_usage_error(const std::vector<std::string>& arguments, const std::string& named) {
  const ProcessResult result = quern(arguments);
  EXPECT_EQ(result.exit_code, 1) << testing::PrintToString(arguments) << "\n" << describe(result);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(count_lines_with_prefix(result.err, "error:"), 1u) << describe(result);
  EXPECT_NE(result.err.find(named), std::string::npos) << "not named: " << named << "\n" << describe(result);
}

TEST(Arguments, HelpListsEveryCommand) {
  const ProcessResult result = quern({"--help"});
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  for (const std::string& command : kCommands) {
    EXPECT_NE(result.out.find(command), std::string::npos) << command;
  }
}

TEST(Arguments, HelpOfEveryCommandShowsExamples) {
  for (const std::string& command : kCommands) {
    const ProcessResult result = quern({command, "--help"});
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    EXPECT_NE(result.out.find("xample"), std::string::npos) << describe(result);
    EXPECT_NE(result.out.find("quern " + command), std::string::npos) << describe(result);
  }
}

TEST(Arguments, VersionIsPrinted) {
  const ProcessResult result = quern({"--version"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out.substr(0, 6), "quern ") << describe(result);
}

TEST(Arguments, UnknownCommandIsRefused) {
  expect_usage_error({"parplexity"}, "parplexity");
  EXPECT_EQ(quern({}).exit_code, 1);
}

TEST(Arguments, UnknownOptionIsRefusedByName) {
  for (const std::string& command : kCommands) expect_usage_error({command, "x", "--tempp", "1"}, "--tempp");
}

// The model does not exist, so a value that slips through ends as an I/O error instead.
struct BadValue {
  std::string command, option, value;
};

void PrintTo(const BadValue& bad, std::ostream* out) {
  *out << bad.command << " " << bad.option << " '" << bad.value << "'";
}

std::vector<BadValue> bad_values() {
  std::vector<BadValue> all;
  const std::vector<std::string> no_integer = {"12abc", "1e9", "",   "1.5",
                                               "0x10",  " 7",  "-2", "99999999999999999999999"};
  for (const std::string& value : no_integer) {
    for (const char* option : {"-n", "--ctx", "--threads", "-t", "--seed", "--top-k"}) {
      all.push_back({"run", option, value});
    }
    all.push_back({"perplexity", "--chunks", value});
    all.push_back({"perplexity", "--ctx", value});
    all.push_back({"bench", "-r", value});
    all.push_back({"bench", "-p", value});
    all.push_back({"bench", "-t", value});
    all.push_back({"convert", "--threads", value});
  }
  for (const char* value : {"warm", "1x", "", "nan", "inf", "-1", "1e99999"}) {
    for (const char* option : {"--temp", "--top-p", "--min-p", "--repeat-penalty"}) {
      all.push_back({"run", option, value});
    }
  }
  all.push_back({"run", "--threads", "0"});
  all.push_back({"run", "--ids", "1,,2"});
  all.push_back({"run", "--ids", "1,x"});
  all.push_back({"run", "--ids", ""});
  all.push_back({"run", "--isa", "mmx"});
  all.push_back({"run", "--kv", "f64"});
  all.push_back({"bench", "-r", "0"});
  all.push_back({"bench", "-t", "1,,2"});
  all.push_back({"bench", "-o", "yaml"});
  all.push_back({"convert", "--type", "q9_k"});
  all.push_back({"tokenize", "--decode", "1,2,x"});
  return all;
}

class BadArgument : public testing::TestWithParam<std::string> {};

std::vector<std::string> required_arguments(const std::string& command) {
  if (command == "convert") return {"no-such-folder", "-o", "no-such-folder/out.gguf"};
  if (command == "perplexity") return {"no-such-model.gguf", "-f", "no-such-text.txt"};
  if (command == "tokenize") return {"no-such-model.gguf"};
  if (command == "bench") return {"no-such-model.gguf"};
  return {"no-such-model.gguf", "-p", "a"};
}

// One test for each command: a process for each value is quick, a ctest entry for each is noise.
TEST_P(BadArgument, IsRefusedByName) {
  for (const BadValue& bad : bad_values()) {
    if (bad.command != GetParam()) continue;
    std::vector<std::string> arguments = {bad.command};
    const bool ids_instead_of_text = bad.option == "--ids";
    for (const std::string& argument : required_arguments(bad.command)) {
      if (ids_instead_of_text && (argument == "-p" || argument == "a")) continue;
      arguments.push_back(argument);
    }
    arguments.push_back(bad.option);
    arguments.push_back(bad.value);
    SCOPED_TRACE(testing::PrintToString(bad));
    expect_usage_error(arguments, bad.option);
  }
}

INSTANTIATE_TEST_SUITE_P(Commands, BadArgument,
                         testing::Values("run", "perplexity", "bench", "convert", "tokenize"),
                         [](const auto& tested) { return tested.param; });

TEST(Arguments, CommandsOfOtherProgramsGetALine) {
  expect_usage_error({"llama-server"}, "quern serve");
  expect_usage_error({"pull", "mistral"}, "downloads");
  expect_usage_error({"quantize"}, "quern convert");
  expect_usage_error({"llama-gguf-split"}, "--split-size");
  expect_usage_error({"-m", "x.gguf", "-p", "a"}, "quern run MODEL -p TEXT");
  expect_usage_error({"CHAT"}, "did you mean 'chat'");
}

TEST(Arguments, ModelInPlaceOfACommandNamesChat) {
  const TempFolder folder;
  const std::string model = folder.write("m.gguf", "GGUF");
  expect_usage_error({model}, "quern chat " + model);
}

TEST(Arguments, HelpOfACommandIsItsHelp) {
  for (const std::string& command : kCommands) {
    const std::string help = quern({"help", command}).out;
    EXPECT_NE(help.find("quern " + command), std::string::npos) << command;
    EXPECT_EQ(help, quern({command, "--help"}).out) << command;
  }
  expect_usage_error({"help", "rnu"}, "did you mean 'run'");
  expect_usage_error({"hlep"}, "did you mean 'help'");
  expect_usage_error({"comp"}, "did you mean 'completions'");
  expect_usage_error({"convert", "x", "-o", "y", "--type", "q4"}, "did you mean 'q4_0'");
  for (const char* word : {"help", "version", "completions", "man"})
    EXPECT_EQ(quern({"help", word}).out, quern({"help"}).out) << word;
  EXPECT_EQ(quern({"man", "help"}).out, quern({"man"}).out);
  expect_usage_error({"help", "run", "chat"}, "unexpected argument 'chat' behind 'run'");
  expect_usage_error({"version", "run"}, "unexpected argument 'run' behind 'version'");
}

TEST(Arguments, VersionNamesCommitCompilerAndKernels) {
  const ProcessResult result = quern({"version"});
  for (const char* part : {"quern ", "\ncommit: ", "\ncompiler: ", "\nkernels: scalar"})
    EXPECT_NE(result.out.find(part), std::string::npos) << describe(result);
  EXPECT_EQ(quern({"-V"}).out, result.out);
  EXPECT_EQ(quern({"--version"}).out, result.out);
}

TEST(Arguments, MessagesAreOurs) {
  expect_usage_error({"run"}, "MODEL is missing: A GGUF file");
  expect_usage_error({"run", "x", "-p"}, "-p/--prompt needs a value (TEXT");
  expect_usage_error({"run", "x", "--temp", "-1"}, "--temp: -1 is not a number from 0 on");
  expect_usage_error({"run", "x", "--temp", "1e39"}, "--temp: 1e39 is too large");
  expect_usage_error({"run", "x", "-c", "4.5k"}, "'4.5k' is not a whole number between 1k and 16384k");
  expect_usage_error({"run", "x", "-c", "99999k"}, "'99999k' is not a whole number between 1k and 16384k");
  expect_usage_error({"serve", "x", "--cache-ram", "8192"}, "--cache-ram: 8192 bytes hold no block");
  expect_usage_error({"chat", "x", "--draft", "16"}, "--draft: expected the small model's file, found '16'");
  expect_usage_error({"imatrix", "x", "-ngl", "99"}, "CPU alone");
  expect_usage_error({"bench", "x", "-md", "y"}, "quern run, chat and serve: --draft FILE");
  expect_usage_error({"chat", "x", "--parse-special"}, "spells no token");
  expect_usage_error({"tokenize", "x", "--chat", "y", "--parse-special"}, "--parse-special is about a text");
  expect_usage_error({"tokenize", "x", "--decode", "1", "--no-bos"}, "--no-bos is about a text");
  expect_usage_error({"bench", "x", "-ngl", "many"},
                     "--gpu-layers: expected a number of layers, auto or all");
  for (const char* command : {"run", "convert", "tokenize"})
    expect_usage_error({command, "x", "--pre", "qwen-2"}, "--pre: 'qwen-2' is none of default, ");
}

TEST(Arguments, ValuesThatOtherProgramsKnowAreTaken) {
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "q8_0");
  const ProcessResult base = quern({"run", model, "-p", "a", "-n", "4", "--seed", "7", "--top-k", "0"});
  ASSERT_EQ(base.exit_code, 0) << describe(base);
  ASSERT_NE(base.out, "");
  EXPECT_EQ(quern({"run", model, "-p", "a", "-n", "4", "--seed", "7", "--top-k", "-1"}).out, base.out);
  const ProcessResult drawn = quern({"run", model, "-p", "a", "-n", "4", "--seed", "-1"});
  EXPECT_NE(drawn.err.find("seed: "), std::string::npos) << describe(drawn);
  EXPECT_NE(
      quern({"run", model, "-p", "a", "-n", "1", "-c", "0"}).err.find("as many as the model was trained on"),
      std::string::npos);
  const ProcessResult kilo = quern({"run", model, "-p", "a", "-n", "1", "-c", "4k"});
  EXPECT_NE(kilo.err.find("--ctx 4096 is beyond"), std::string::npos) << describe(kilo);
  const ProcessResult twice = quern({"run", model, "-p", "a", "-p", "b", "-n", "1"});
  EXPECT_NE(twice.err.find("-p/--prompt is given 2 times: the last counts ('b')"), std::string::npos)
      << describe(twice);
}

TEST(Arguments, QuietDropsChoicesAndTimingsButNoWarning) {
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "q8_0");
  EXPECT_EQ(quern({"run", model, "-p", "a", "-n", "2", "-q"}).err, "");
  const ProcessResult warned = quern({"run", model, "-p", "a", "-n", "2", "-q", "-c", "4k"});
  EXPECT_TRUE(warned.err.starts_with("warning: ")) << describe(warned);
  EXPECT_EQ(std::count(warned.err.begin(), warned.err.end(), '\n'), 1) << describe(warned);
  EXPECT_EQ(count_lines_with_prefix(quern({"run", "no-such-model", "-p", "a", "-q"}).err, "error:"), 1u);
}

TEST(Arguments, TimingsStartALineInAFileThatHoldsTheTextToo) {
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "q8_0");
  const std::string file = folder.file("both.txt");
  const ProcessResult result =
      run_process({"/bin/sh", "-c", "exec \"$0\" \"$@\" > " + file + " 2>&1", quern_command({})[0], "run",
                   model, "-p", "a", "-n", "2", "--temp", "0"},
                  with_test_environment());
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(read_file(file).find("\nload "), std::string::npos) << read_file(file);
}

TEST(Arguments, UnsupportedInstructionSetFromTheEnvironmentIsRefused) {
  ProcessOptions options;
  options.environment = {"QUERN_ISA=mmx"};
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "q8_0");
  const ProcessResult result = quern({"run", model, "-p", "a", "-n", "1"}, options);
  EXPECT_EQ(result.exit_code, 1) << describe(result);
  EXPECT_NE(result.err.find("mmx"), std::string::npos) << describe(result);
}

}  // namespace
}  // namespace quern::test
