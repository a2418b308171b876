// run: completions that are known, the same on every path, and an output that other programs can trust.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

std::vector<int> parse_ids(std::string text) {
  for (char& c : text) {
    if (c == ',') c = ' ';
  }
  std::istringstream in(text);
  std::vector<int> ids;
  for (int id; in >> id;) ids.push_back(id);
  return ids;
}

bool is_utf8(std::string_view text) {
  try {
    static_cast<void>(Json(text).dump());
    return true;
  } catch (const std::runtime_error&) {
    return false;
  }
}

class Golden : public testing::TestWithParam<std::string> {
 protected:
  Json golden_ = golden_model(GetParam());
  TempFolder folder_;
};

TEST_P(Golden, GreedyTextIsTheReference) {
  const std::string model = converted(folder_, GetParam(), "f32");
  const ProcessResult result = quern({"run", model, "-p", golden_["text"], "-n", "32", "--temp", "0"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  // The reference decodes the completion alone, which drops the space before its first word.
  std::string text = result.out;
  if (text.starts_with(' ')) text.erase(0, 1);
  EXPECT_EQ(text, golden_["greedy_text"]);
}

TEST_P(Golden, GreedyIdsAreTheReference) {
  const std::string model = converted(folder_, GetParam(), "f32");
  const ProcessResult result = quern(
      {"run", model, "--ids", join_ids(golden_["ids"].get<std::vector<int>>()), "-n", "32", "--temp", "0"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(parse_ids(result.out), golden_["greedy_32"].get<std::vector<int>>());
}

INSTANTIATE_TEST_SUITE_P(Models, Golden, testing::Values("tiny-mistral", "stories260k"),
                         [](const auto& tested) { return tested.param.substr(0, tested.param.find('-')); });

class Run : public testing::Test {
 protected:
  ProcessResult run(std::vector<std::string> arguments, const ProcessOptions& options = {}) {
    arguments.insert(arguments.begin(), {"run", model_});
    return quern(arguments, options);
  }

  TempFolder folder_;
  std::string model_ = converted(folder_, "tiny-mistral", "q4_0");
};

TEST_F(Run, SameSeedGivesTheSameTextForAnyThreadsAndInstructionSet) {
  const std::vector<std::string> base = {"-p", "JULIET:\n", "-n", "64", "--seed", "7"};
  auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = base;
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProcessResult result = run(arguments);
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    return result.out;
  };
  const std::string expected = with({});
  EXPECT_GT(expected.size(), 20u);
  EXPECT_EQ(with({"-t", "1"}), expected);
  EXPECT_EQ(with({"-t", "3"}), expected);
  EXPECT_EQ(with({"--isa", "scalar"}), expected);
  ProcessOptions scalar;
  scalar.environment = {"QUERN_ISA=scalar"};
  EXPECT_EQ(run(base, scalar).out, expected);
}

TEST_F(Run, DrawnSeedIsPrintedAndRepeats) {
  const ProcessResult drawn = run({"-p", "JULIET:\n", "-n", "40"});
  ASSERT_EQ(drawn.exit_code, 0) << describe(drawn);
  const size_t at = drawn.err.find("seed");
  ASSERT_NE(at, std::string::npos) << describe(drawn);
  const size_t digits = drawn.err.find_first_of("0123456789", at);
  const std::string seed =
      drawn.err.substr(digits, drawn.err.find_first_not_of("0123456789", digits) - digits);
  EXPECT_EQ(run({"-p", "JULIET:\n", "-n", "40", "--seed", seed}).out, drawn.out) << describe(drawn);
  const std::string other = seed == "7" ? "8" : "7";
  EXPECT_NE(run({"-p", "JULIET:\n", "-n", "40", "--seed", other}).out, drawn.out) << describe(drawn);
}

TEST_F(Run, PromptMayComeFromAFileOrStdin) {
  const std::string expected = run({"-p", "JULIET:", "-n", "24", "--temp", "0"}).out;
  ASSERT_GT(expected.size(), 20u);
  // One trailing newline of a file is dropped.
  const std::string file = folder_.write("prompt.txt", "JULIET:\n");
  EXPECT_EQ(run({"-f", file, "-n", "24", "--temp", "0"}).out, expected);
  ProcessOptions options;
  options.input = "JULIET:";
  EXPECT_EQ(run({"-n", "24", "--temp", "0"}, options).out, expected);
}

TEST_F(Run, TimingsGoToStderr) {
  const ProcessResult result = run({"-p", "JULIET:", "-n", "4", "--temp", "0"});
  EXPECT_NE(result.err.find("tok/s"), std::string::npos) << describe(result);
  EXPECT_EQ(result.out.find("tok/s"), std::string::npos) << describe(result);
}

TEST_F(Run, StopTextIsNotPrinted) {
  const std::string whole = run({"-p", "KING RICHARD II:\n", "-n", "40", "--temp", "0"}).out;
  ASSERT_GT(whole.size(), 20u);
  const std::string stop = whole.substr(10, 4);
  const ProcessResult stopped = run({"-p", "KING RICHARD II:\n", "-n", "40", "--temp", "0", "--stop", stop});
  EXPECT_EQ(stopped.exit_code, 0);
  EXPECT_EQ(stopped.out, whole.substr(0, whole.find(stop)));
}

TEST_F(Run, PromptLargerThanTheContextEndsWithBothNumbers) {
  const std::vector<int> ids = golden_model("tiny-mistral")["ids"];
  const ProcessResult result = run({"--ids", join_ids(ids), "--ctx", "16"});
  EXPECT_EQ(result.exit_code, 4) << describe(result);
  const size_t error = result.err.find("error:");
  ASSERT_NE(error, std::string::npos) << describe(result);
  EXPECT_NE(result.err.find("16", error), std::string::npos) << describe(result);
  EXPECT_NE(result.err.find(std::to_string(ids.size()), error), std::string::npos) << describe(result);
  EXPECT_EQ(result.out, "");
}

TEST_F(Run, GenerationEndsWithTheContext) {
  const ProcessResult result =
      run({"--ids", "1,5,9", "--ctx", "16", "-n", "100", "--temp", "0", "--ignore-eos"});
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(parse_ids(result.out).size(), 14u);  // 13 are evaluated, the last one is only picked
}

TEST_F(Run, ContextIsSaidAndBeyondTheTrainedOneWarned) {
  EXPECT_NE(run({"-p", "a", "-n", "1"}).err.find("1024"), std::string::npos);
  const ProcessResult beyond = run({"-p", "a", "-n", "1", "--ctx", "2048"});
  EXPECT_EQ(beyond.exit_code, 0) << describe(beyond);
  EXPECT_NE(beyond.err.find("warning"), std::string::npos) << describe(beyond);
  EXPECT_NE(beyond.err.find("1024"), std::string::npos) << describe(beyond);
}

TEST_F(Run, ContextBeyondWhatCanBeCountedIsRefused) {
  const ProcessResult result = run({"-p", "a", "-n", "1", "--ctx", "4000000000"});
  EXPECT_EQ(result.exit_code, 1) << describe(result);
  EXPECT_NE(result.err.find("--ctx"), std::string::npos) << describe(result);
}

TEST_F(Run, AnyBytesAreAPrompt) {
  for (const std::string& prompt :
       {std::string("\xff\x80\xfe a"), std::string("\0b\0", 3), std::string("\r\n"),
        std::string("\xef\xbb\xbf") + "x", std::string("</s><s>[INST]")}) {
    ProcessOptions options;
    options.input = prompt;
    const ProcessResult result = run({"-n", "8", "--temp", "0"}, options);
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    EXPECT_TRUE(is_utf8(result.out)) << describe(result);
  }
}

TEST_F(Run, FullOutputDeviceIsAnError) {
  ProcessOptions options;
  options.stdout_path = "/dev/full";
  const ProcessResult result = run({"-p", "a", "-n", "4"}, options);
  EXPECT_EQ(result.exit_code, 5) << describe(result);
  EXPECT_EQ(count_lines_with_prefix(result.err, "error:"), 1u) << describe(result);
}

TEST_F(Run, ReaderThatLeavesEndsItQuietly) {
  ProcessOptions options;
  options.close_stdout_after_lines = 1;
  const ProcessResult result = run(
      {"-p", "KING RICHARD II:\n", "-n", "900", "--temp", "0", "--ignore-eos", "--isa", "scalar", "-t", "1"},
      options);
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(count_lines_with_prefix(result.err, "load "), 0u) << "went on to the end: " << describe(result);
  EXPECT_EQ(count_lines_with_prefix(result.err, "error:"), 0u) << describe(result);
}

TEST_F(Run, InterruptEndsWith130) {
  Process process(quern_command({"run", model_, "-p", "KING", "-n", "900", "--ignore-eos", "--temp", "0",
                                 "--isa", "scalar", "-t", "1"}),
                  with_test_environment());
  ASSERT_TRUE(process.wait_for_stdout("\n"));
  process.send_signal(SIGINT);
  const ProcessResult result = process.wait();
  EXPECT_EQ(result.exit_code, 130) << describe(result);
  EXPECT_TRUE(is_utf8(result.out)) << describe(result);
}

// 60,000 tokens would take minutes. The first of them take a fraction of a second for each micro-batch of
// 512.
TEST_F(Run, SignalEndsALongPromptWithinAMicroBatch) {
  constexpr size_t kTokens = 60000;
  std::string ids = "1";
  for (size_t i = 1; i < kTokens; ++i) ids += ",5";
  for (const int signal : {SIGINT, SIGTERM}) {
    Process process(quern_command({"run", model_, "--ids", ids, "--ctx", "65536", "-t", "2", "-n", "4",
                                   "--seed", "1", "--json"}),
                    with_test_environment());
    ASSERT_TRUE(process.wait_for_stderr("kernels:")) << describe(process.wait());
    // Loading takes milliseconds: whoever has worked for this long is in the prompt.
    const double loaded = process.cpu_seconds();
    while (process.running() && process.cpu_seconds() < loaded + 1) process.run_for(0.02);
    ASSERT_TRUE(process.running()) << describe(process.wait());
    const auto sent = std::chrono::steady_clock::now();
    process.send_signal(signal);
    const ProcessResult result = process.wait();
    EXPECT_LT(std::chrono::steady_clock::now() - sent, std::chrono::duration<double>(10 * kSlowdown));
    EXPECT_EQ(result.exit_code, 128 + signal) << describe(result);
    ASSERT_TRUE(result.out.starts_with("{")) << describe(result);
    const Json json = Json::parse(result.out);
    EXPECT_EQ(json["finish_reason"], "interrupted");
    EXPECT_EQ(json["ids"].size(), 0u);
    const size_t evaluated = json["timings"]["prompt_tokens"];
    EXPECT_LT(evaluated, kTokens);
    EXPECT_EQ(evaluated % 512, 0u) << "micro-batches are whole or not there";
    // One line says how far it came, and nothing is called an error.
    EXPECT_EQ(count_lines_with_prefix(result.err, "load "), 1u) << describe(result);
    EXPECT_NE(result.err.find(fmt::format("| prompt {} tokens, ", evaluated)), std::string::npos)
        << describe(result);
    EXPECT_EQ(count_lines_with_prefix(result.err, "error:"), 0u) << describe(result);
  }
}

TEST_F(Run, GuessesChangeNothingButTheTimings) {
  std::string text;
  for (int i = 0; i < 5; ++i) text += "KING: What say you to the people of the city? ";
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"run",    model_, "-p",     text, "-n",    "200",
                                          "--temp", "0.5",  "--seed", "3",  "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProcessResult result = quern(arguments);
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    return Json::parse(result.out);
  };
  const Json with = run({}), without = run({"--no-speculation"});
  EXPECT_EQ(with["ids"], without["ids"]);
  EXPECT_EQ(with["text"], without["text"]);
  const auto count = [](const Json& result, const char* key) -> size_t { return result["timings"][key]; };
  EXPECT_EQ(count(without, "guesses"), 0u);
  EXPECT_EQ(count(without, "decode_passes"), count(without, "decode_tokens"));
  EXPECT_EQ(count(with, "decode_tokens"), count(without, "decode_tokens"));
  EXPECT_EQ(count(with, "decode_passes") + count(with, "guesses_taken"), count(with, "decode_tokens"));
}

TEST_F(Run, ASmallModelsGuessesChangeNothingEither) {
  const std::string draft = converted(folder_, "tiny-mistral", "q8_0");
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {
        "run", model_, "-p", "KING: What say you?", "-n", "60", "--temp", "0.8", "--seed", "3", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern(arguments);
  };
  const ProcessResult with = run({"--draft", draft}), without = run({"--no-speculation"});
  ASSERT_EQ(with.exit_code, 0) << describe(with);
  EXPECT_EQ(Json::parse(with.out)["ids"], Json::parse(without.out)["ids"]);
  EXPECT_NE(with.err.find("draft: "), std::string::npos) << describe(with);

  const std::string other = converted(folder_, "stories260k", "q8_0");
  const ProcessResult refused = run({"--draft", other});
  EXPECT_EQ(refused.exit_code, 1) << describe(refused);
  EXPECT_NE(refused.err.find("error: --draft " + other + ": its vocabulary is another: "), std::string::npos)
      << describe(refused);
  EXPECT_EQ(run({"--draft", draft, "--no-speculation"}).exit_code, 1);
  EXPECT_EQ(run({"--draft", folder_.file("nowhere")}).exit_code, 5);
}

TEST_F(Run, ALaterProcessStartsBehindWhatAnEarlierOneRead) {
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += fmt::format("KING {}: What say you to the people of the city? ", i * i);
  const std::string cache = folder_.file("cache");
  const auto run = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"run", model_,   "-p", text,    "-n",   "20",    "--temp",
                                          "0.5", "--seed", "3",  "--ctx", "4096", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProcessResult result = quern(arguments);
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    return Json::parse(result.out);
  };
  const Json plain = run({}), first = run({"--cache-dir", cache}), second = run({"--cache-dir", cache});
  EXPECT_EQ(first["ids"], plain["ids"]);
  EXPECT_EQ(second["ids"], plain["ids"]);
  const auto n_prompt = [](const Json& result) -> size_t { return result["timings"]["prompt_tokens"]; };
  EXPECT_EQ(n_prompt(first), n_prompt(plain));
  EXPECT_GT(n_prompt(plain), 1024u);
  EXPECT_EQ(n_prompt(second), n_prompt(plain) - (n_prompt(plain) - 1) / 512 * 512);
  std::filesystem::permissions(cache, std::filesystem::perms::group_read, std::filesystem::perm_options::add);
  const ProcessResult open = quern({"run", model_, "-p", "a", "-n", "1", "--cache-dir", cache});
  EXPECT_EQ(open.exit_code, 1) << describe(open);
  EXPECT_NE(open.err.find("has mode 0740"), std::string::npos) << describe(open);
}

TEST_F(Run, FileThatIsCutMeanwhileIsAnIoError) {
  const std::string model = converted(folder_, "tiny-mistral", "f32");
  Process process(quern_command({"run", model, "-p", "KING", "-n", "900", "--ignore-eos", "--isa", "scalar",
                                 "-t", "1", "--seed", "1"}),
                  with_test_environment());
  ASSERT_TRUE(process.wait_for_stdout("\n")) << describe(process.wait());
  std::filesystem::resize_file(model, 4096);
  const ProcessResult result = process.wait();
  EXPECT_EQ(result.exit_code, 5) << describe(result);
  EXPECT_EQ(result.signal, 0);
  EXPECT_EQ(count_lines_with_prefix(result.err, "error:"), 1u) << describe(result);
}

TEST(RunWithoutVocabulary, TextIsRefusedAndIdsWork) {
  const TempFolder folder;
  const std::string model = converted(folder, "random-window", "f32", {"--no-tokenizer"});
  const ProcessResult text = quern({"run", model, "-p", "a", "-n", "2"});
  EXPECT_EQ(text.exit_code, 2) << describe(text);
  EXPECT_EQ(count_lines_with_prefix(text.err, "error:"), 1u) << describe(text);
  EXPECT_EQ(text.out, "");
  const std::vector<int> ids = golden_model("random-window")["ids"];
  const ProcessResult by_ids = quern({"run", model, "--ids", join_ids(ids), "-n", "4", "--temp", "0"});
  EXPECT_EQ(by_ids.exit_code, 0) << describe(by_ids);
  EXPECT_EQ(parse_ids(by_ids.out).size(), 4u) << describe(by_ids);
}

// A tokenizer of a kind that nobody here knows takes nothing from who has ids, or measures.
TEST(RunWithoutVocabulary, OfAnUnknownKindIsAsWithout) {
  const TempFolder folder;
  const std::string known = converted(folder, "tiny-mistral", "q8_0");
  const auto changed = [&](const std::string& name, std::string_view key, std::string_view from,
                           std::string_view to) {
    std::string bytes = read_file(known);
    const size_t at = bytes.find(from, bytes.find(key) + key.size());
    bytes.replace(at, from.size(), to);
    return folder.write(name, bytes);
  };
  const std::string ids = quern({"run", known, "--ids", "1,2,3", "-n", "4", "--temp", "0"}).out;
  for (const std::string& model :
       {changed("kind.gguf", "tokenizer.ggml.model", "llama", "plamo"),
        changed("none.gguf", "", "tokenizer.ggml.model", "tokenizer.ggml.mxdel")}) {
    const ProcessResult by_ids = quern({"run", model, "--ids", "1,2,3", "-n", "4", "--temp", "0"});
    EXPECT_EQ(by_ids.exit_code, 0) << describe(by_ids);
    EXPECT_EQ(by_ids.out, ids);
    EXPECT_EQ(quern({"bench", model, "-p", "4", "-n", "2", "-r", "1", "--no-probe"}).exit_code, 0);
    EXPECT_NE(quern({"inspect", model}).out.find("runs         on token ids only: "), std::string::npos);
    const ProcessResult text = quern({"run", model, "-p", "a", "-n", "2"});
    EXPECT_EQ(text.exit_code, 2) << describe(text);
    EXPECT_NE(text.err.find("tokenizer.ggml.model"), std::string::npos) << describe(text);
    EXPECT_NE(text.err.find("token ids only (run --ids, "), std::string::npos) << describe(text);
  }
}

TEST(RunWithoutVocabulary, IdOutsideTheVocabularyIsRefused) {
  const TempFolder folder;
  const std::string model = converted(folder, "random-window", "f32", {"--no-tokenizer"});
  for (const char* ids : {"320", "1,-1", "2147483648"}) {
    EXPECT_EQ(quern({"run", model, "--ids", ids, "-n", "1"}).exit_code, 1) << ids;
  }
}

// Repacking lets go of the source as it goes, and a file of panels is not copied at all: a model is never in
// memory twice.
TEST(RunMemory, IsTheFileOnceInEitherLayout) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's own memory is counted too";
  const TempFolder folder;
  const std::string standard = folder.file("a.gguf"), panels = folder.file("p.gguf");
  const std::string source = write_big_checkpoint(folder, 100);
  for (const auto& [layout, target] : {std::pair("standard", standard), {"p16", panels}}) {
    const ProcessResult result =
        quern({"convert", source, "-o", target, "--no-tokenizer", "--type", "bf16", "--layout", layout});
    ASSERT_EQ(result.exit_code, 0) << describe(result);
  }
  std::vector<std::string> outputs;
  for (const std::string& model : {standard, panels}) {
    const ProcessResult result =
        quern({"run", model, "--ids", "1,2,3", "-n", "2", "--ctx", "64", "--temp", "0"});
    ASSERT_EQ(result.exit_code, 0) << describe(result);
    outputs.push_back(result.out);
    const double file_bytes = static_cast<double>(std::filesystem::file_size(model));
    constexpr double kProgram = 24e6;  // the program itself, the cache of 64 positions and scratch
    EXPECT_LT(static_cast<double>(result.peak_rss_bytes), 1.15 * file_bytes + kProgram) << describe(result);
    EXPECT_GT(static_cast<double>(result.peak_rss_bytes), 0.9 * file_bytes) << "measures nothing";
  }
  EXPECT_EQ(outputs[0], outputs[1]);
}

TEST_F(Run, TextsAreHeldToAGrammarOrASchema) {
  const TempFolder folder;
  const std::string grammar =
      folder.write("a.gbnf", "root ::= \" \"? word (\", \" word){2}\nword ::= [a-z]{3}\n");
  const std::string schema = folder.write(
      "a.json", R"({"type": "object", "properties": {"n": {"type": "integer"}, "ok": {"type": "boolean"}},
                    "required": ["n", "ok"]})");
  for (const char* seed : {"1", "2", "3"}) {
    const ProcessResult words =
        quern({"run", model_, "-p", "Once", "--grammar", grammar, "-n", "-1", "--seed", seed, "--temp", "2"});
    ASSERT_EQ(words.exit_code, 0) << describe(words);
    const size_t begin = words.out.starts_with(' ') ? 1 : 0;
    ASSERT_EQ(words.out.size() - begin, 13u) << words.out;
    EXPECT_EQ(words.out.substr(begin + 3, 2), ", ");
    const ProcessResult object = quern(
        {"run", model_, "-p", "Once", "--json-schema", schema, "-n", "100", "--seed", seed, "--temp", "1"});
    ASSERT_EQ(object.exit_code, 0) << describe(object);
    EXPECT_EQ(Json::parse(object.out).size(), 2u) << object.out;
    EXPECT_EQ(quern({"run", model_, "-p", "Once", "--json-schema", schema, "-n", "100", "--seed", seed,
                     "--temp", "1", "-t", "2", "--isa", "scalar"})
                  .out,
              object.out);
  }
  const ProcessResult cut = quern({"run", model_, "-p", "Once", "--json-schema", schema, "-n", "2", "-q"});
  EXPECT_EQ(cut.exit_code, 0) << describe(cut);
  EXPECT_NE(cut.err.find("warning: the text was cut short"), std::string::npos) << describe(cut);
}

TEST_F(Run, WhatNoTextCanBeHeldToEndsItBeforeTheModelIsLoaded) {
  const TempFolder folder;
  const std::string schema = folder.write("a.json", R"({"properties": {"a": {"not": {}}}})");
  const std::string grammar = folder.write("a.gbnf", "root ::= x");
  const auto refused = [&](const std::vector<std::string>& options, int code, const std::string& words) {
    std::vector<std::string> all = {"run", "none.gguf", "-p", "a"};
    all.insert(all.end(), options.begin(), options.end());
    const ProcessResult result = quern(all);
    EXPECT_EQ(result.exit_code, code) << describe(result);
    EXPECT_NE(result.err.find(words), std::string::npos) << describe(result);
  };
  refused({"--json-schema", schema}, 2, "a.json: #/properties/a: not: this keyword is not supported");
  refused({"--grammar", grammar}, 2, "a.gbnf: line 1: there is no rule 'x'");
  refused({"--grammar", grammar, "--json-schema", schema}, 1, "--grammar excludes --json-schema");
  refused({"--grammar", "root ::= \"a\""}, 1, "--grammar takes a file");
  refused({"--json-schema", folder.file("none.json")}, 5, "none.json");
}

TEST_F(Run, TimingsStandOnALineOfTheirOwnInAPipe) {
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "q8_0");
  const ProcessResult result =
      quern_after("exec 2>&1", {"run", model, "-p", "Once", "-n", "3", "--temp", "0", "-t", "1"});
  EXPECT_EQ(count_lines_with_prefix(result.out, "load "), 1u) << describe(result);
}

// A longer context than the model was trained on is no advice.
TEST_F(Run, FullContextNamesTheOptionOnlyWhereItHelps) {
  const std::string text(20000, 'x');  // the model was trained on 1024
  const std::string trained = "context 1024 (all that the model was trained on); shorten it";
  for (const auto& [context, expected] :
       {std::pair<std::string, std::string>("64", "context 64 (override: --ctx); shorten it"),
        {"0", trained}}) {
    const ProcessResult refused = run({"-p", text, "-c", context});
    EXPECT_EQ(refused.exit_code, 4) << describe(refused);
    EXPECT_NE(refused.err.find(expected), std::string::npos) << describe(refused);
  }
  std::string ids = "1";
  for (int i = 0; i < 1018; ++i) ids += ",5";
  const ProcessResult full = run({"--ids", ids, "-n", "-1", "--ignore-eos", "--temp", "0"});
  EXPECT_NE(full.err.find("context of 1024 tokens is full (all that the model was trained on)"),
            std::string::npos)
      << describe(full);
  const ProcessResult cut = run({"--ids", "1,5", "-c", "8", "-n", "-1", "--ignore-eos"});
  EXPECT_NE(cut.err.find("context of 8 tokens is full (override: --ctx)"), std::string::npos)
      << describe(cut);
}

}  // namespace
}  // namespace quern::test
