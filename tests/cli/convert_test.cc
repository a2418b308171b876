// convert as its user sees it: what is written, what is refused, and what an interruption leaves behind.
#include <gtest/gtest.h>

#include <signal.h>
#include <chrono>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kTypes = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0",
                                         "q6_k", "f16",  "bf16", "f32"};

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
  return text;
}

std::string line_with(const std::string& text, const std::string& word) {
  const size_t at = text.find(word);
  if (at == std::string::npos) return "";
  const size_t begin = text.rfind('\n', at) + 1;
  return text.substr(begin, text.find('\n', at) - begin);
}

class ConvertType : public testing::TestWithParam<std::string> {};

TEST_P(ConvertType, IsWrittenInspectedAndRuns) {
  const TempFolder folder;
  const std::string model = converted(folder, "tiny-mistral", GetParam());
  const ProcessResult inspected = quern({"inspect", model});
  EXPECT_EQ(inspected.exit_code, 0) << describe(inspected);
  EXPECT_NE(line_with(inspected.out, "blk.0.attn_q.weight").find(upper(GetParam())), std::string::npos)
      << describe(inspected);
  const ProcessResult run = quern({"run", model, "-p", "KING", "-n", "8", "--temp", "0"});
  EXPECT_EQ(run.exit_code, 0) << describe(run);
  EXPECT_NE(run.out, "");
}

TEST_P(ConvertType, DoesNotDependOnTheNumberOfThreads) {
  const TempFolder folder;
  const std::string one = converted(folder, "tiny-mistral", GetParam(), {"--threads", "1"});
  const std::string bytes = read_file(one);
  const std::string three = converted(folder, "tiny-mistral", GetParam(), {"--threads", "3", "--force"});
  EXPECT_TRUE(bytes == read_file(three));
}

TEST_P(ConvertType, GivesTheSameModelFromAFloatFile) {
  const TempFolder folder;
  const std::string direct = converted(folder, "tiny-mistral", GetParam());
  const std::string floats = converted(folder, "tiny-mistral", "f32", {"--force"});
  const std::string requantized = folder.file("requantized.gguf");
  const ProcessResult result = quern({"convert", floats, "-o", requantized, "--type", GetParam()});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const std::vector<std::string> rest = {"-p", "ROMEO:", "-n", "16", "--temp", "0"};
  auto run = [&](const std::string& model) {
    std::vector<std::string> arguments = {"run", model};
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    const ProcessResult completed = quern(arguments);
    EXPECT_EQ(completed.exit_code, 0) << describe(completed);
    return completed.out;
  };
  EXPECT_NE(run(direct), "");
  EXPECT_EQ(run(direct), run(requantized));
}

TEST_P(ConvertType, SaysTheSameFromPanels) {
  const TempFolder folder;
  const std::string standard = converted(folder, "stories260k", GetParam());
  const std::string panels = folder.file("panels.gguf"), back = folder.file("back.gguf");
  for (const auto& [source, target, layout] :
       {std::tuple(standard, panels, "p16"), std::tuple(panels, back, "standard")}) {
    const ProcessResult result = quern({"convert", source, "-o", target, "--layout", layout});
    ASSERT_EQ(result.exit_code, 0) << describe(result);
  }
  EXPECT_TRUE(read_file(back) == read_file(standard));
  EXPECT_FALSE(read_file(panels) == read_file(standard));
  for (const char* isa : {"", "scalar"}) {
    const auto says = [&](std::vector<std::string> arguments) {
      if (*isa != '\0') arguments.insert(arguments.end(), {"--isa", isa});
      const ProcessResult result = quern(arguments);
      EXPECT_EQ(result.exit_code, 0) << describe(result);
      return result.out;
    };
    std::vector<std::string> texts, perplexities, answers;
    for (const std::string& model : {standard, panels}) {
      texts.push_back(says({"run", model, "-p", "Once upon", "-n", "12", "--seed", "3", "--check-tensors"}));
      answers.push_back(says(
          {"chat", model, "--once", "-p", "Hello", "-n", "8", "--seed", "3", "--chat-format", "mistral-v1"}));
      perplexities.push_back(says(
          {"perplexity", model, "-f", test_data("tiny-mistral/test.txt"), "--chunks", "1", "--ctx", "64"}));
    }
    EXPECT_EQ(texts[0], texts[1]);
    EXPECT_NE(texts[0], "");
    EXPECT_EQ(answers[0], answers[1]);
    EXPECT_EQ(perplexities[0], perplexities[1]);
  }
}

TEST(ConvertLayout, IsToldInTheReport) {
  const TempFolder folder;
  const ProcessResult result = quern({"convert", test_data("tiny-mistral"), "-o", folder.file("a.gguf"),
                                      "--layout", "p16", "--type", "q8_0", "--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const auto report = Json::parse(result.out);
  EXPECT_EQ(report["type"], "q8_0");
  EXPECT_EQ(report["layout"], "p16");
  for (const auto& tensor : report["tensors"]) {
    const std::string name = tensor["name"];
    const bool rows = name == "token_embd.weight" || name.ends_with("_norm.weight");
    EXPECT_EQ(tensor["layout"], rows ? "standard" : "p16") << name;
  }
  const ProcessResult kept = quern({"convert", folder.file("a.gguf"), "-o", folder.file("b.gguf"), "--json"});
  ASSERT_EQ(kept.exit_code, 0) << describe(kept);
  EXPECT_EQ(Json::parse(kept.out)["type"], "kept");
  EXPECT_NE(kept.err.find("formats: those of the source (override: --type)"), std::string::npos);
  const ProcessResult unknown =
      quern({"convert", folder.file("a.gguf"), "-o", folder.file("c.gguf"), "--layout", "p8"});
  EXPECT_EQ(unknown.exit_code, 1) << describe(unknown);
}

TEST(ConvertLayout, BenchCountsTheSameBytes) {
  const TempFolder folder;
  const std::string standard = converted(folder, "tiny-mistral", "q4_0");
  const std::string panels = folder.file("panels.gguf");
  ASSERT_EQ(quern({"convert", standard, "-o", panels, "--layout", "p16"}).exit_code, 0);
  std::vector<Json> sizes;
  for (const std::string& model : {standard, panels}) {
    const ProcessResult result = quern({"bench", model, "-p", "8", "-n", "2", "-r", "1", "-o", "json"});
    ASSERT_EQ(result.exit_code, 0) << describe(result);
    sizes.push_back(Json::parse(result.out)[0]["model_size"]);
  }
  EXPECT_EQ(sizes[0], sizes[1]);
  EXPECT_GT(sizes[0], 0);
}

INSTANTIATE_TEST_SUITE_P(Types, ConvertType, testing::ValuesIn(kTypes),
                         [](const auto& tested) { return tested.param; });

TEST(Convert, SaysNothingOnStdoutThatIsNoResult) {
  const TempFolder folder;
  const ProcessResult result =
      quern({"convert", test_data("tiny-mistral"), "-o", folder.file("a.gguf"), "--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json report = Json::parse(result.out);
  EXPECT_TRUE(report.is_object());
  EXPECT_FALSE(report.empty());
  // No bar where nobody watches it.
  EXPECT_EQ(result.err.find('\r'), std::string::npos) << describe(result);
}

TEST(Convert, VerboseNamesEveryTensor) {
  const TempFolder folder;
  const ProcessResult result =
      quern({"convert", test_data("tiny-mistral"), "-o", folder.file("a.gguf"), "--verbose"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const std::string all = result.out + result.err;
  for (const char* name :
       {"token_embd.weight", "blk.2.ffn_down.weight", "output_norm.weight", "output.weight"}) {
    EXPECT_NE(all.find(name), std::string::npos) << name;
  }
}

TEST(Convert, DryRunWritesNothing) {
  const TempFolder folder;
  const ProcessResult result =
      quern({"convert", test_data("tiny-mistral"), "-o", folder.file("a.gguf"), "--dry-run"});
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_TRUE(folder.names().empty());
}

TEST(Convert, ExistingTargetNeedsForce) {
  const TempFolder folder;
  const std::string target = folder.write("a.gguf", "old");
  const ProcessResult refused = quern({"convert", test_data("tiny-mistral"), "-o", target});
  EXPECT_EQ(refused.exit_code, 1) << describe(refused);
  EXPECT_NE(refused.err.find("--force"), std::string::npos) << describe(refused);
  EXPECT_EQ(read_file(target), "old");
  EXPECT_EQ(quern({"convert", test_data("tiny-mistral"), "-o", target, "--force"}).exit_code, 0);
  EXPECT_EQ(read_file(target).substr(0, 4), "GGUF");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"a.gguf"});
}

TEST(Convert, OutputThatIsTheInputIsRefused) {
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "f32");
  const std::string before = read_file(model);
  fs::create_symlink(model, folder.path() / "symlink.gguf");
  fs::create_hard_link(model, folder.path() / "hardlink.gguf");
  for (const std::string& output : {model, folder.file("symlink.gguf"), folder.file("hardlink.gguf")}) {
    const ProcessResult result = quern({"convert", model, "-o", output, "--type", "q8_0", "--force"});
    EXPECT_EQ(result.exit_code, 1) << output << describe(result);
    EXPECT_TRUE(read_file(model) == before) << output;
  }
  EXPECT_EQ(folder.names().size(), 3u);
}

TEST(Convert, FolderAsTargetIsRefused) {
  const TempFolder folder;
  const ProcessResult result =
      quern({"convert", test_data("stories260k"), "-o", folder.path().string(), "--force"});
  EXPECT_EQ(result.exit_code, 1) << describe(result);
  EXPECT_TRUE(folder.names().empty());
}

TEST(Convert, MissingTokenizerNeedsNoTokenizer) {
  const TempFolder folder;
  const std::string target = folder.file("a.gguf");
  const ProcessResult refused = quern({"convert", test_data("random-window"), "-o", target});
  EXPECT_EQ(refused.exit_code, 2) << describe(refused);
  EXPECT_NE(refused.err.find("--no-tokenizer"), std::string::npos) << describe(refused);
  EXPECT_TRUE(folder.names().empty());
  EXPECT_EQ(quern({"convert", test_data("random-window"), "-o", target, "--no-tokenizer"}).exit_code, 0);
}

TEST(Convert, FallbackNamesTheTensorAndStrictRefusesIt) {
  // stories260k's hidden size, 172, is no multiple of 32.
  const TempFolder folder;
  const std::string target = folder.file("a.gguf");
  const ProcessResult fallback = quern({"convert", test_data("stories260k"), "-o", target});
  EXPECT_EQ(fallback.exit_code, 0) << describe(fallback);
  EXPECT_NE(fallback.err.find("ffn_down.weight"), std::string::npos) << describe(fallback);
  fs::remove(target);
  const ProcessResult strict = quern({"convert", test_data("stories260k"), "-o", target, "--strict"});
  EXPECT_EQ(strict.exit_code, 1) << describe(strict);
  EXPECT_NE(strict.err.find("without --strict"), std::string::npos) << describe(strict);
  EXPECT_TRUE(folder.names().empty());
}

TEST(Convert, FileSizeLimitLeavesNothing) {
  const TempFolder folder;
  const ProcessResult result =
      quern_after("trap '' XFSZ; ulimit -f 100",
                  {"convert", test_data("tiny-mistral"), "-o", folder.file("a.gguf"), "--type", "f32"});
  EXPECT_EQ(result.exit_code, 5) << describe(result);
  EXPECT_EQ(count_lines_with_prefix(result.err, "error:"), 1u) << describe(result);
  EXPECT_TRUE(folder.names().empty());
}

// 16 rows of 16 MiB each, of which the file has nothing but their size: memory for three times that is not
// there.
TEST(Convert, RowsBeyondTheMemoryEndInOneLine) {
  if (kSanitized) GTEST_SKIP() << "sanitizers need address space that this test takes away";
  const TempFolder folder;
  std::string header = "GGUF";
  const auto append = [&](const auto& value) {
    header.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const auto append_text = [&](std::string_view text) {
    append(uint64_t{text.size()});
    header += text;
  };
  constexpr uint64_t kColumns = 4 << 20, kRows = 16;
  constexpr uint32_t kVersion = 3, kString = 8, kPanelsOfF32 = 0x50160100;
  append(kVersion);
  append(uint64_t{1});  // tensors
  append(uint64_t{1});  // metadata
  append_text("general.architecture");
  append(kString);
  append_text("llama");
  append_text("token_embd.weight");
  append(uint32_t{2});
  append(kColumns);
  append(kRows);
  append(kPanelsOfF32);
  append(uint64_t{0});
  header.resize((header.size() + 31) / 32 * 32);
  const std::string source = folder.write("wide.gguf", header);
  fs::resize_file(source, header.size() + 4 * kColumns * kRows);
  const ProcessResult result =
      quern_after("ulimit -v 800000", {"convert", source, "-o", folder.file("a.gguf"), "--threads", "2"});
  EXPECT_EQ(result.exit_code, 4) << describe(result);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(count_lines_with_prefix(result.err, "error:"), 1u) << describe(result);
  EXPECT_NE(result.err.find("wide.gguf: tensor 'token_embd.weight': not enough memory"), std::string::npos)
      << describe(result);
  EXPECT_LT(result.peak_rss_bytes, uint64_t{64} << 20);
  EXPECT_EQ(folder.names(), std::vector<std::string>{"wide.gguf"});
}

TEST(Convert, ForceOverAModelThatRunsKeepsItsOldPages) {
  const TempFolder folder;
  const std::string model = converted(folder, "tiny-mistral", "f32");
  std::vector<std::string> run = {"run",    model, "-p", "KING", "-n",          kSanitized ? "60" : "300",
                                  "--temp", "0",   "-t", "1",    "--ignore-eos"};
  const std::string expected = quern(run).out;
  run.insert(run.end(), {"--isa", "scalar"});  // slow enough to see the file change
  Process running(quern_command(run), with_test_environment());
  ASSERT_TRUE(running.wait_for_stdout("\n"));
  EXPECT_EQ(quern({"convert", test_data("tiny-mistral"), "-o", model, "--type", "q4_0", "--force"}).exit_code,
            0);
  EXPECT_TRUE(running.running()) << "the answer is too short for this machine";
  EXPECT_EQ(running.wait().out, expected);
}

// Interruptions at many moments of one conversion.
class Interrupted : public testing::Test {
 protected:
  static constexpr size_t kMegabytes = kSanitized ? 60 : 200;

  std::vector<std::string> command() const {
    return quern_command({"convert", source_, "-o", folder_.file("out.gguf"), "--no-tokenizer", "--threads",
                          "1", "--type", "q6_k", "--force"});
  }

  // Runs until it converts: before that, signals may not be caught yet.
  void run_until_it_writes(Process& convert) const {
    constexpr double kStartSeconds = 0.15 * kSlowdown;
    for (int i = 0; i < 4000 && convert.running() && convert.cpu_seconds() < kStartSeconds; ++i)
      convert.run_for(0.005);
  }

  TempFolder folder_;
  std::string source_ = write_big_checkpoint(folder_, kMegabytes);
};

TEST_F(Interrupted, BySignalLeavesTheOldTargetAndNothingElse) {
  folder_.write("out.gguf", "old");
  for (const int signal : {SIGINT, SIGTERM}) {
    for (const double delay : {0.0, 0.1, 0.25}) {
      Process convert(command(), with_test_environment());
      run_until_it_writes(convert);
      convert.run_for(delay);
      ASSERT_TRUE(convert.running()) << "the checkpoint is too small for this machine: "
                                     << describe(convert.wait());
      const auto start = std::chrono::steady_clock::now();
      convert.send_signal(signal);
      const ProcessResult result = convert.wait();
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      EXPECT_EQ(result.exit_code, 128 + signal) << describe(result);
      EXPECT_LT(elapsed.count(), 1 * kSlowdown);
      EXPECT_EQ(read_file(folder_.file("out.gguf")), "old");
      EXPECT_EQ(folder_.names(), (std::vector<std::string>{"big", "out.gguf"}));
    }
  }
}

// Where the file system has no files without a name, what is left must not pass for a model.
TEST_F(Interrupted, ByKillNeverLeavesAFileThatLoads) {
  for (const double delay : {0.0, 0.05, 0.1, 0.2, 0.3}) {
    Process convert(command(), with_test_environment());
    run_until_it_writes(convert);
    convert.run_for(delay);
    ASSERT_TRUE(convert.running()) << "the checkpoint is too small for this machine: "
                                   << describe(convert.wait());
    convert.send_signal(SIGKILL);
    EXPECT_EQ(convert.wait().signal, SIGKILL);
    EXPECT_FALSE(fs::exists(folder_.file("out.gguf")));
    for (const std::string& name : folder_.names()) {
      if (name == "big") continue;
      EXPECT_EQ(quern({"inspect", folder_.file(name)}).exit_code, 2) << name;
      fs::remove(folder_.file(name));
    }
  }
}

// tiny-mistral as a folder of the test's own, for a change.
std::string copied_checkpoint(const TempFolder& folder, const std::string& name) {
  const fs::path copy = folder.path() / name;
  fs::copy(test_data("tiny-mistral"), copy);
  return copy.string();
}

void replace_in(const std::string& path, const std::string& from, const std::string& to) {
  std::string text = read_file(path);
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  std::ofstream(path) << text.replace(at, from.size(), to);
}

double perplexity_of(const std::string& model) {
  const ProcessResult result =
      quern({"perplexity", model, "-f", test_data("tiny-mistral/test.txt"), "--chunks", "2", "--json"});
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  return Json::parse(result.out)["perplexity"];
}

TEST(Convert, KeepsAHeadOfItsOwnWhereTheModelIsSaidToBeTied) {
  const TempFolder folder;
  const std::string source = copied_checkpoint(folder, "tied");
  replace_in(source + "/config.json", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
  const ProcessResult result = quern({"convert", source, "-o", folder.file("tied.gguf"), "--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_NE(result.err.find("lm_head.weight differs"), std::string::npos) << describe(result);
  EXPECT_NE(Json::parse(result.out)["notices"].dump().find("lm_head.weight differs"), std::string::npos);
  EXPECT_EQ(perplexity_of(folder.file("tied.gguf")),
            perplexity_of(converted(folder, "tiny-mistral", "q4_0")));
}

TEST(Convert, IgnoresTheWindowThatALlamaDoesNotHave) {
  const TempFolder folder;
  const double without = perplexity_of(converted(folder, "tiny-mistral", "q4_0"));
  const std::string source = copied_checkpoint(folder, "window");
  replace_in(source + "/config.json", "\"sliding_window\": null", "\"sliding_window\": 64");
  const std::string mistral = folder.file("mistral.gguf"), llama = folder.file("llama.gguf");
  ASSERT_EQ(quern({"convert", source, "-o", mistral}).exit_code, 0);
  replace_in(source + "/config.json", "MistralForCausalLM", "LlamaForCausalLM");
  replace_in(source + "/config.json", "\"mistral\"", "\"llama\"");
  const ProcessResult result = quern({"convert", source, "-o", llama});
  EXPECT_NE(result.err.find("sliding_window = 64 is ignored"), std::string::npos) << describe(result);
  EXPECT_EQ(perplexity_of(llama), without);
  EXPECT_NE(perplexity_of(mistral), without);
}

TEST(Convert, NamesTheZerosOfAnIncompleteDownload) {
  const TempFolder folder;
  const std::string source = copied_checkpoint(folder, "zeros");
  std::string bytes = read_file(source + "/model.safetensors");
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 2), bytes.end(), '\0');
  std::ofstream(source + "/model.safetensors") << bytes;
  const std::string output = folder.file("zeros.gguf");
  for (const bool dry : {true, false}) {
    std::vector<std::string> arguments = {"convert", source, "-o", output, "--json"};
    if (dry) arguments.emplace_back("--dry-run");
    const ProcessResult result = quern(arguments);
    ASSERT_EQ(result.exit_code, 0) << describe(result);
    EXPECT_NE(result.err.find("zeros where weights should be: "), std::string::npos) << describe(result);
    EXPECT_NE(result.err.find(" (all)"), std::string::npos);
    EXPECT_GT(Json::parse(result.out)["zero_tails"].size(), 5u);
  }
  for (const std::string& path : {output, source, source + "/model.safetensors"}) {
    EXPECT_NE(quern({"inspect", path}).out.find("zeros where weights should be"), std::string::npos) << path;
    EXPECT_GT(Json::parse(quern({"inspect", path, "--json"}).out)["zero_tails"].size(), 5u) << path;
  }
  const ProcessResult whole = quern({"inspect", test_data("tiny-mistral")});
  EXPECT_EQ(whole.exit_code, 0) << describe(whole);
  EXPECT_EQ(whole.out.find("zeros where"), std::string::npos);
}

TEST(Convert, SaysThatItsSourceIsQuantizedAlready) {
  const TempFolder folder;
  const std::string q4 = converted(folder, "tiny-mistral", "q4_0"),
                    f16 = converted(folder, "tiny-mistral", "f16");
  const ProcessResult again = quern({"convert", q4, "-o", folder.file("a.gguf"), "--type", "q8_0", "--json"});
  EXPECT_NE(again.err.find("quantized already (Q4_0, Q6_K)"), std::string::npos) << describe(again);
  EXPECT_EQ(Json::parse(again.out)["n_requantized"], 23);
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{q4, "--layout", "p16"}, std::vector<std::string>{f16, "--type", "q8_0"}}) {
    std::vector<std::string> all = {"convert", "-o", folder.file("b.gguf"), "--force"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const ProcessResult result = quern(all);
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    EXPECT_EQ(result.err.find("quantized already"), std::string::npos);
  }
}

TEST(Convert, ClosedDescriptorsAreNotWrittenInto) {
  const TempFolder folder;
  const std::vector<std::string> convert = {"convert", test_data("tiny-mistral"), "--no-tokenizer",
                                            "--verbose", "-o"};
  const auto to = [&](const std::string& name) {
    std::vector<std::string> arguments = convert;
    arguments.push_back(folder.file(name));
    return arguments;
  };
  ASSERT_EQ(quern(to("open.gguf")).exit_code, 0);
  ASSERT_EQ(quern_after("exec <&- 2>&-", to("closed.gguf")).exit_code, 0);
  EXPECT_TRUE(read_file(folder.file("open.gguf")) == read_file(folder.file("closed.gguf")));
}

TEST(Convert, StandardOutputIsNoPlaceForAModel) {
  const TempFolder folder;
  const ProcessResult result = quern({"convert", test_data("tiny-mistral"), "-o", "-"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("./- for a file of that name"), std::string::npos) << describe(result);
}

TEST(Convert, SaysThatThereIsNoChatTemplate) {
  const TempFolder folder;
  const ProcessResult result =
      quern({"convert", test_data("stories260k"), "-o", folder.file("x.gguf"), "--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_NE(result.err.find("no chat template (tokenizer_config.json or chat_template.jinja hold it)"),
            std::string::npos)
      << describe(result);
  const ProcessResult quiet =
      quern({"convert", test_data("stories260k"), "-o", folder.file("x.gguf"), "--force", "-q"});
  EXPECT_EQ(quiet.err.find("chat template"), std::string::npos) << describe(quiet);
  const std::string snapshot = folder.file("models--mistralai--Mistral-7B-Instruct-v0.3/snapshots/0");
  std::filesystem::create_directories(snapshot);
  std::filesystem::copy(test_data("stories260k"), snapshot);
  const ProcessResult known = quern({"convert", snapshot, "-o", folder.file("y.gguf")});
  EXPECT_NE(known.err.find("trained on mistral-v3 (override: --chat-format mistral-v3"), std::string::npos)
      << describe(known);
  // No format is offered that the vocabulary has no marks of.
  const ProcessResult chat = quern({"chat", folder.file("x.gguf")});
  EXPECT_EQ(chat.exit_code, 1) << describe(chat);
  EXPECT_NE(chat.err.find("give --template FILE; none of the formats of --chat-format fits its vocabulary"),
            std::string::npos)
      << describe(chat);
  // And nobody waits for a model that will not talk.
  const std::string broken = folder.write("broken.jinja", "{% if %}");
  for (const std::vector<std::string>& more : {std::vector<std::string>{},
                                               {"--template", folder.file("none.jinja")},
                                               {"--template", broken},
                                               {"--chat-format", "none"}}) {
    std::vector<std::string> arguments = {"chat", folder.file("x.gguf")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProcessResult refused = quern(arguments);
    EXPECT_NE(refused.exit_code, 0) << describe(refused);
    EXPECT_EQ(count_lines_with_prefix(refused.err, ""), 1u) << describe(refused);
    EXPECT_EQ(refused.err.find("kernels: "), std::string::npos) << describe(refused);
  }
}

TEST(Convert, NamesOfModelsAreNotFetchedAndThatIsSaid) {
  const TempFolder folder;
  const std::string hint = "quern fetches no models: give the path of a file or folder that you have";
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"convert", "mistralai/Mistral-7B-v0.1", "-o", folder.file("x.gguf")},
        {"run", "llama3", "-p", "x"},
        {"chat", "llama3"}}) {
    const ProcessResult result = quern(arguments);
    EXPECT_EQ(result.exit_code, 5) << describe(result);
    EXPECT_NE(result.err.find(hint), std::string::npos) << describe(result);
  }
  const ProcessResult mistyped = quern({"run", folder.file("mistral.gguf"), "-p", "x"});
  EXPECT_EQ(mistyped.exit_code, 5) << describe(mistyped);
  EXPECT_EQ(mistyped.err.find(hint), std::string::npos) << describe(mistyped);
}

TEST(Convert, ModelThatIsNotThereIsLookedForUnderANearName) {
  const TempFolder folder;
  folder.write("My Model-Q4_0.gguf", "");
  folder.write("phi.gguf", "");
  const std::string near = folder.file("My Model-Q4_0.gguf"), phi = folder.file("phi.gguf");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {folder.file("My Model-q4_0.gguf"), "did you mean '" + near + "'?"},  // in quotes, for the shell
      {folder.file("My Model-Q4_0.ggfu"), "did you mean '" + near + "'?"},
      {folder.file("phi"), "did you mean " + phi + "?"},
      {folder.file("phy.gguf"), "did you mean " + phi + "?"},
      {folder.file("none/phi.gguf"), "its folder is not there: " + folder.file("none")},
      {folder.file("quite-another.gguf"), "No such file or directory; ls shows"},
      {"~/phi.gguf", "the shell replaces a ~ only"},
      {"https://example.org/phi.gguf", "quern fetches no models"},
      {"-", "not read from a pipe"},
      {"", "a model's name is empty"},
  };
  for (const auto& [path, expected] : cases) {
    const ProcessResult result = quern({"run", path, "-p", "x"});
    EXPECT_EQ(result.exit_code, 5) << describe(result);
    EXPECT_NE(result.err.find(expected), std::string::npos) << describe(result);
  }
}

TEST(Convert, EveryCommandSaysWhereAModelMayBe) {
  const TempFolder folder;
  const std::string there = converted(folder, "stories260k", "q8_0"), text = folder.write("a.txt", "a");
  const std::string wrong = there.substr(0, there.size() - 5) + "x.gguf";
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"chat", wrong},
                                             {"serve", wrong},
                                             {"imatrix", wrong, "-f", text, "-o", folder.file("i.gguf")},
                                             {"perplexity", wrong, "-f", text},
                                             {"bench", wrong},
                                             {"doctor", wrong},
                                             {"tokenize", wrong, "-p", "a"},
                                             {"inspect", wrong},
                                             {"inspect", there, "--diff", wrong},
                                             {"run", there, "-p", "a", "--draft", wrong}}) {
    const ProcessResult result = quern(arguments);
    EXPECT_EQ(result.exit_code, 5) << describe(result);
    EXPECT_NE(result.err.find("did you mean " + there + "?"), std::string::npos) << describe(result);
  }
}

TEST(Convert, TokenizeNamesWhatItWasGivenInPlaceOfAVocabulary) {
  const TempFolder folder, models;
  const ProcessResult text = quern({"tokenize", folder.write("a.txt", "Hello, world\n"), "-p", "a"});
  EXPECT_EQ(text.exit_code, 2) << describe(text);
  EXPECT_NE(text.err.find("but a text; expected a GGUF"), std::string::npos) << describe(text);
  const std::string model = models.write("m.gguf", "GGUF");
  const ProcessResult other = quern({"tokenize", models.path().string(), "-p", "a"});
  EXPECT_EQ(other.exit_code, 2) << describe(other);
  EXPECT_NE(other.err.find(model + " is a GGUF file: give that file"), std::string::npos) << describe(other);
}

TEST(Convert, CommandsThatAreProposedSurviveTheShell) {
  const TempFolder folder;
  const std::string source = folder.file("my model"), model = folder.write("it's.gguf", "GGUF");
  std::filesystem::copy(test_data("tiny-mistral"), source);
  EXPECT_NE(quern({"run", source, "-p", "x"}).err.find("quern convert '" + source + "' -o"),
            std::string::npos);
  EXPECT_NE(quern({model}).err.find("`quern chat '" + folder.file("it'\\''s.gguf") + "'`"),
            std::string::npos);
}

TEST(Convert, FolderOfAHuggingFaceCacheNamesTheModelInIt) {
  const TempFolder folder;
  const std::string snapshot = folder.file("models--a--b/snapshots/0123");
  std::filesystem::create_directories(snapshot);
  EXPECT_NE(quern({"run", folder.file("models--a--b"), "-p", "x"}).err.find("look in "), std::string::npos);
  folder.write("models--a--b/snapshots/0123/b.gguf", "GGUF");
  const ProcessResult result = quern({"run", folder.file("models--a--b"), "-p", "x"});
  EXPECT_EQ(result.exit_code, 5) << describe(result);
  EXPECT_NE(result.err.find("give " + snapshot + "/b.gguf"), std::string::npos) << describe(result);
}

TEST(Convert, SaysThatATypeForExpertsHasNoneToEncode) {
  const TempFolder folder;
  const ProcessResult dense =
      quern({"convert", test_data("tiny-mistral"), "-o", folder.file("x.gguf"), "--type", "mxfp4_moe", "-q"});
  ASSERT_EQ(dense.exit_code, 0) << describe(dense);
  EXPECT_NE(
      dense.err.find("the model has no matrices of experts, which mxfp4_moe is for: nothing becomes MXFP4"),
      std::string::npos)
      << describe(dense);
  const ProcessResult wanted = quern({"convert", test_data("tiny-mistral"), "-o", folder.file("y.gguf"),
                                      "--type", "mxfp4_moe", "--tensor-type", "ffn_down=mxfp4", "-q"});
  EXPECT_EQ(wanted.err, "") << describe(wanted);
}

}  // namespace
}  // namespace quern::test
