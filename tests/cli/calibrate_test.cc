// convert --calibrate: the file, its report, and what does not go together with it.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"
#include "tests/support/gguf_files.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;

class Calibrate : public testing::Test {
 protected:
  ProcessResult convert(const std::string& output, const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {"convert", test_data("tiny-mistral"), "-o", folder_.file(output)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern(arguments);
  }
  static std::vector<std::string> few_tokens(std::vector<std::string> more = {}) {
    std::vector<std::string> all = {"--type", "q4_0", "--calibrate", "--calibrate-tokens", "1536"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  TempFolder folder_;
};

TEST_F(Calibrate, WritesAnOrdinaryFileThatSaysHowItWasMade) {
  const ProcessResult result = convert("calibrated.gguf", few_tokens({"--json", "--threads", "1"}));
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json calibration = Json::parse(result.out)["calibration"];
  EXPECT_EQ(calibration["tokens"], 1536);
  EXPECT_EQ(calibration["held_out"], 512);
  ASSERT_EQ(calibration["matrices"].size(), 21u);
  for (const Json& matrix : calibration["matrices"])
    EXPECT_LE(matrix["error"].get<double>(), matrix["importance_error"].get<double>()) << matrix;
  const ProcessResult inspected = quern({"inspect", folder_.file("calibrated.gguf"), "--json"});
  ASSERT_EQ(inspected.exit_code, 0) << describe(inspected);
  for (const char* key :
       {"quern.calibration.method", "quern.calibration.text_xxh3", "quern.calibration.tokens"})
    EXPECT_NE(inspected.out.find(key), std::string::npos) << key;
  const ProcessResult plain = convert("plain.gguf", {"--type", "q4_0"});
  ASSERT_EQ(plain.exit_code, 0) << describe(plain);
  EXPECT_NE(read_file(folder_.file("plain.gguf")), read_file(folder_.file("calibrated.gguf")));
  const ProcessResult run = quern({"run", folder_.file("calibrated.gguf"), "-p", "ROMEO:", "-n", "8"});
  EXPECT_EQ(run.exit_code, 0) << describe(run);

  // The same in the other layout, and back.
  ASSERT_EQ(convert("p16.gguf", few_tokens({"--layout", "p16", "--threads", "2"})).exit_code, 0);
  ASSERT_EQ(
      quern({"convert", folder_.file("p16.gguf"), "-o", folder_.file("back.gguf"), "--layout", "standard"})
          .exit_code,
      0);
  EXPECT_EQ(read_file(folder_.file("back.gguf")), read_file(folder_.file("calibrated.gguf")));
}

TEST_F(Calibrate, DryRunSaysTokensTimeAndMemoryAndWritesNothing) {
  const ProcessResult planned = convert("a.gguf", few_tokens({"--dry-run", "--json"}));
  ASSERT_EQ(planned.exit_code, 0) << describe(planned);
  EXPECT_TRUE(folder_.names().empty());
  EXPECT_EQ(count_lines_with_prefix(planned.err, "memory: "), 1u) << describe(planned);
  EXPECT_EQ(count_lines_with_prefix(planned.err, "calibration: 1536 tokens (512 held out), about "), 1u)
      << describe(planned);
  const Json plan = Json::parse(planned.out), of_calibration = plan["calibration"];
  EXPECT_EQ(of_calibration["tokens"], 1536);
  EXPECT_EQ(of_calibration["held_out"], 512);
  EXPECT_GT(of_calibration["estimated_seconds"].get<double>(), 0);
  EXPECT_FALSE(of_calibration.contains("matrices"));
  const ProcessResult text = convert("a.gguf", few_tokens({"--dry-run"}));
  EXPECT_EQ(text.out.find("calibrated on"), std::string::npos) << describe(text);

  // What was promised is what is done.
  const ProcessResult done = convert("a.gguf", few_tokens({"--json"}));
  ASSERT_EQ(done.exit_code, 0) << describe(done);
  const Json report = Json::parse(done.out);
  EXPECT_EQ(report["file_bytes"], plan["file_bytes"]);
  EXPECT_EQ(report["calibration"]["memory_bytes"], of_calibration["memory_bytes"]);
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"a.gguf"});  // and no state of it
}

class InterruptedCalibration : public Calibrate {
 protected:
  ProcessResult convert_again(const std::vector<std::string>& more) const {
    std::vector<std::string> all = {"--type", "q4_0", "--calibrate", "--calibrate-tokens", "1024"};
    all.insert(all.end(), more.begin(), more.end());
    return convert("a.gguf", all);
  }

  // Ends it by a signal when its first layer, or a later one, is safe.
  ProcessResult interrupt(int signal) const {
    for (int i = 0; i < 10; ++i) {  // where it was done before the signal came
      fs::remove_all(state_);
      fs::remove(folder_.file("a.gguf"));
      Process process(quern_command({"convert", test_data("tiny-mistral"), "-o", folder_.file("a.gguf"),
                                     "--type", "q4_0", "--calibrate", "--calibrate-tokens", "1024"}),
                      with_test_environment());
      while (process.running() && !fs::exists(state_ / "streams")) process.run_for(0.002);
      process.send_signal(signal);
      const ProcessResult result = process.wait();
      if (result.exit_code != 0 && fs::exists(state_ / "streams")) return result;
    }
    ADD_FAILURE() << "it was never interrupted";
    return {};
  }

  const fs::path state_ = folder_.file("a.gguf.calibration");
};

TEST_F(InterruptedCalibration, KilledGoesOnWithResumeAndEndsWithTheSameBytes) {
  ASSERT_EQ(convert_again({}).exit_code, 0);
  const std::string whole = read_file(folder_.file("a.gguf"));
  EXPECT_EQ(interrupt(SIGKILL).signal, SIGKILL);
  EXPECT_FALSE(fs::exists(folder_.file("a.gguf")));
  const ProcessResult resumed = convert_again({"--resume", "--threads", "1", "--json"});
  ASSERT_EQ(resumed.exit_code, 0) << describe(resumed);
  EXPECT_EQ(count_lines_with_prefix(resumed.err, "resume: "), 1u) << describe(resumed);
  const Json report = Json::parse(resumed.out)["calibration"];
  EXPECT_GE(report["resumed_layers"], 1);
  EXPECT_EQ(report["matrices"].size(), 21u);
  EXPECT_TRUE(read_file(folder_.file("a.gguf")) == whole);
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"a.gguf"});
}

TEST_F(InterruptedCalibration, SaysHowToGoOnAndRefusesWhatDoesNotFit) {
  const ProcessResult stopped = interrupt(SIGTERM);
  EXPECT_EQ(stopped.exit_code, 128 + SIGTERM) << describe(stopped);
  EXPECT_NE(stopped.err.find("go on with --resume"), std::string::npos) << describe(stopped);
  const auto expect_refused = [&](const std::vector<std::string>& options, int exit_code, const char* words) {
    const ProcessResult result = convert_again(options);
    EXPECT_EQ(result.exit_code, exit_code) << describe(result);
    EXPECT_NE(result.err.find(words), std::string::npos) << describe(result);
  };
  expect_refused({}, 1, "--resume goes on with it, --force begins anew");
  expect_refused({"--resume", "--damping", "0.25"}, 2, "--damping was 0.1, is 0.25");
  expect_refused({"--resume", "--calibrate-tokens", "1536"}, 2, "the text's tokens was 1024");
  expect_refused({"--resume", "--pure"}, 2, "formats (--type and what changes them) was ");
  const std::string other_weights = converted(folder_, "tiny-mistral", "q8_0");
  const ProcessResult other = quern({"convert", other_weights, "-o", folder_.file("a.gguf"), "--type", "q4_0",
                                     "--calibrate", "--calibrate-tokens", "1024", "--resume"});
  EXPECT_EQ(other.exit_code, 2) << describe(other);
  EXPECT_NE(other.err.find("the source was "), std::string::npos) << describe(other);

  for (const char* name : {"layer-0.codes", "streams"}) {
    const fs::path file = state_ / name;
    std::string bytes = read_file(file);
    bytes[bytes.size() / 2] ^= 1;
    folder_.write("a.gguf.calibration/" + std::string(name), bytes);
    expect_refused({"--resume"}, 3, "is damaged");
    EXPECT_FALSE(fs::exists(folder_.file("a.gguf")));
  }
}

TEST_F(Calibrate, RefusesMatricesWhoseProductsHaveAFactor) {
  ASSERT_EQ(convert("plain.gguf", {"--type", "bf16"}).exit_code, 0);
  add_float_to_gguf(folder_.file("plain.gguf"), folder_.file("scaled.gguf"), "blk.1.ffn_up.scale", 2);
  const ProcessResult result = quern({"convert", folder_.file("scaled.gguf"), "-o", folder_.file("none.gguf"),
                                      "--type", "q4_0", "--calibrate"});
  EXPECT_EQ(result.exit_code, 2) << describe(result);
  EXPECT_NE(result.err.find("'blk.1.ffn_up.scale'"), std::string::npos) << describe(result);
  EXPECT_NE(result.err.find("have a factor"), std::string::npos) << describe(result);
}

TEST_F(Calibrate, SaysWhatDoesNotGoTogether) {
  const struct {
    std::vector<std::string> options;
    const char* word;
  } cases[] = {
      {{"--type", "q4_0", "--damping", "0.2"}, "--calibrate"},
      {{"--type", "q4_0", "--resume"}, "--calibrate"},
      {{"--type", "q4_0", "--calibrate", "--imatrix", "x"}, "--imatrix"},
      {{"--type", "q3_k_m", "--calibrate"}, "no calibrated encoder"},
      {{"--type", "q3_k_m", "--calibrate", "--dry-run"}, "no calibrated encoder"},
      {{"--type", "q4_0", "--calibrate", "--no-tokenizer"}, "without a vocabulary"},
      {{"--type", "q4_0", "--calibrate", "--calibrate-strength", "1.5"}, "--calibrate-strength"},
  };
  for (const auto& [options, word] : cases) {
    const ProcessResult result = convert("none.gguf", options);
    EXPECT_EQ(result.exit_code, 1) << describe(result);
    EXPECT_NE(result.err.find(word), std::string::npos) << describe(result);
  }
}

TEST_F(Calibrate, OfAGgufKeepsWhatHasTheFormatAndRefusesPanels) {
  const auto again = [&](const std::string& source, const std::string& output,
                         std::vector<std::string> more) {
    std::vector<std::string> arguments = {"convert", folder_.file(source), "-o", folder_.file(output),
                                          "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern(arguments);
  };
  ASSERT_EQ(convert("k.gguf", {"--type", "q5_k_s"}).exit_code, 0);
  const ProcessResult kept =
      again("k.gguf", "kept.gguf", {"--type", "q5_k_s", "--calibrate", "--calibrate-tokens", "1024"});
  ASSERT_EQ(kept.exit_code, 0) << describe(kept);
  const Json matrices = Json::parse(kept.out)["calibration"]["matrices"];
  ASSERT_EQ(matrices.size(), 21u);
  for (const Json& matrix : matrices) EXPECT_EQ(matrix["encoding"], "exact") << matrix;

  // How codes were chosen is not said of others.
  ASSERT_EQ(again("kept.gguf", "other.gguf", {"--type", "q4_0"}).exit_code, 0);
  const ProcessResult inspected = quern({"inspect", folder_.file("other.gguf"), "--json"});
  ASSERT_EQ(inspected.exit_code, 0) << describe(inspected);
  EXPECT_EQ(inspected.out.find("quern.calibration"), std::string::npos);

  ASSERT_EQ(convert("panels.gguf", {"--type", "bf16", "--layout", "p16"}).exit_code, 0);
  const ProcessResult panels =
      again("panels.gguf", "none.gguf", {"--type", "q4_0", "--calibrate", "--calibrate-tokens", "1024"});
  EXPECT_EQ(panels.exit_code, 2) << describe(panels);
  EXPECT_NE(panels.err.find("--layout standard"), std::string::npos) << describe(panels);
}

TEST_F(Calibrate, RefusesAnArchitectureByName) {
  const ProcessResult result =
      quern({"convert", unpacked_data("architectures/phi3"), "-o", folder_.file("x.gguf"), "--type", "q4_0",
             "--calibrate", "--no-tokenizer"});
  EXPECT_EQ(result.exit_code, 2) << describe(result);
  EXPECT_NE(result.err.find("architecture 'phi3' cannot be calibrated"), std::string::npos)
      << describe(result);
}

}  // namespace
}  // namespace quern::test
