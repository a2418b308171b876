// doctor: what the machine has, and what is chosen on it.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"
#include "tests/support/paths.h"

namespace quern::test {
namespace {

TEST(Doctor, DescribesThisMachine) {
  const ProcessResult result = quern({"doctor", "--no-probe"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  for (const char* name : {"CPU ", "features ", "cores ", "caches ", "memory ", "huge pages ", "GPU ",
                           "kernels: ", "threads: ", "context: "})
    EXPECT_EQ(count_lines_with_prefix(result.out, name), 1u) << name << describe(result);
  EXPECT_EQ(result.err, "");
}

TEST(Doctor, MeasuresReadingAndMultiplying) {
  if (!has_memory_to_probe()) GTEST_SKIP() << "less than 3 GiB of memory are available";
  const ProcessResult result = quern({"doctor", "--json", "-t", "1"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json json = Json::parse(result.out);
  EXPECT_GT(json["read_bytes_per_second"], 1e6);
  EXPECT_GT(json["multiply_macs_per_second"], 1e6);
  EXPECT_EQ(json["n_threads"], 1);
}

TEST(Doctor, SaysWhyItMeasuresNothingWhereMemoryIsShort) {
  if (kSanitized) GTEST_SKIP() << "sanitizers do not run within a limit on addresses";
  const ProcessResult text = quern_after("ulimit -v 1000000", {"doctor", "-t", "2"});
  ASSERT_EQ(text.exit_code, 0) << describe(text);
  for (const char* name : {"read bandwidth", "multiply rate"})
    EXPECT_EQ(count_lines_with_prefix(text.out, name), 1u) << describe(text);
  EXPECT_NE(text.out.find("not measured: that takes 1.25 GiB"), std::string::npos) << describe(text);
  const ProcessResult json = quern_after("ulimit -v 1000000", {"doctor", "-t", "2", "--json"});
  ASSERT_EQ(json.exit_code, 0) << describe(json);
  EXPECT_TRUE(Json::parse(json.out)["read_bytes_per_second"].is_null()) << describe(json);
}

TEST(Doctor, ShowsWhatAnOptionWouldChoose) {
  const ProcessResult result = quern({"doctor", "--no-probe", "--isa", "scalar", "--threads", "7", "--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json json = Json::parse(result.out);
  for (const Json& set : json["kernel_sets"]) EXPECT_EQ(set["chosen"], set["name"] == "scalar");
  EXPECT_EQ(json["n_threads"], 7);
  EXPECT_EQ(quern({"doctor", "--isa", "mmx"}).exit_code, 1);
  EXPECT_EQ(quern({"doctor", "a.gguf", "b.gguf"}).exit_code, 1);
  EXPECT_EQ(quern({"doctor", "/no/such/model.gguf"}).exit_code, 5);
}

// Of every set that the machine lacks or has: what --isa and QUERN_ISA make of its name.
class IsaOption : public testing::Test {
 protected:
  void SetUp() override {
    const ProcessResult result = quern({"doctor", "--no-probe", "--json"});
    ASSERT_EQ(result.exit_code, 0) << describe(result);
    sets_ = Json::parse(result.out)["kernel_sets"];
    ASSERT_FALSE(sets_.empty());
  }
  // The commands that choose a set, with the set named in either way.
  std::vector<ProcessResult> choose(const std::string& name) const {
    const std::vector<std::string> doctor = {"doctor", "--no-probe"};
    const std::vector<std::string> run = {"run", model_, "-p", "Once", "-n", "1", "--temp", "0"};
    std::vector<ProcessResult> results;
    for (std::vector<std::string> command : {doctor, run}) {
      ProcessOptions options;
      options.environment = {"QUERN_ISA=" + name};
      results.push_back(quern(command, options));
      command.insert(command.end(), {"--isa", name});
      options.environment = {"QUERN_ISA=scalar"};  // has no say
      results.push_back(quern(command, options));
    }
    return results;
  }

  TempFolder folder_;
  std::string model_ = converted(folder_, "stories260k", "q4_0");
  Json sets_;
};

TEST_F(IsaOption, ChoosesASetThatTheMachineHasAndSaysSo) {
  for (const Json& set : sets_) {
    if (!set["supported"]) continue;
    const std::string name = set["name"];
    for (const ProcessResult& result : choose(name)) {
      EXPECT_EQ(result.exit_code, 0) << describe(result);
      EXPECT_EQ(count_lines_with_prefix(result.out + result.err, "kernels: " + name), 1u) << describe(result);
    }
  }
}

TEST_F(IsaOption, NamesInOneLineWhatAMachineLacks) {
  bool all_supported = true;
  for (const Json& set : sets_) {
    if (set["supported"]) continue;
    all_supported = false;
    for (const ProcessResult& result : choose(set["name"])) {
      EXPECT_EQ(result.exit_code, 1) << describe(result);
      EXPECT_EQ(result.out, "");
      EXPECT_EQ(count_lines_with_prefix(result.err, "error: "), 1u) << describe(result);
      EXPECT_NE(
          result.err.find("needs " + set["needs"].get<std::string>() + ", which this CPU or system lacks"),
          std::string::npos)
          << describe(result);
    }
  }
  if (all_supported) GTEST_SKIP() << "this machine has every set (the tests of dispatch make machines up)";
}

TEST(Doctor, ARunNamesTheSetThatItMissesInTheSameLine) {
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "q4_0");
  const ProcessResult result =
      quern({"run", model, "-p", "Once", "-n", "1", "--temp", "0", "--isa", "scalar"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(count_lines_with_prefix(result.err, "kernels: scalar ("), 1u) << describe(result);
  EXPECT_NE(result.err.find("; override: --isa)\n"), std::string::npos) << describe(result);
}

TEST(DoctorOfAModel, SaysThatItRunsAndFits) {
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "q8_0");
  const ProcessResult text = quern({"doctor", model, "--no-probe"});
  EXPECT_EQ(text.exit_code, 0) << describe(text);
  EXPECT_NE(text.out.find("yes: llama, 292800 weights in "), std::string::npos) << describe(text);
  EXPECT_NE(text.out.find("all that the model was trained on (--ctx 0)"), std::string::npos)
      << describe(text);
  EXPECT_NE(text.out.find("not measured: --no-probe"), std::string::npos) << describe(text);
  EXPECT_EQ(text.err, "");
}

TEST(DoctorOfAModel, SaysWhyItDoesNotRun) {
  const ProcessResult strange =
      quern({"doctor", unpacked_data("corpus/M146_split_count_3.gguf"), "--no-probe"});
  EXPECT_EQ(strange.exit_code, 2) << describe(strange);
  EXPECT_NE(strange.out.find("no: is part 1 of 3 of a split GGUF"), std::string::npos) << describe(strange);
}

TEST(DoctorOfAModel, SaysThatItDoesNotFit) {
  if (kSanitized) GTEST_SKIP() << "sanitizers do not run within a limit on addresses";
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "q8_0");
  const ProcessResult large =
      quern_after("ulimit -v 1500000", {"doctor", model, "--no-probe", "--ctx", "16000000", "--json"});
  EXPECT_EQ(large.exit_code, 4) << describe(large);
  EXPECT_NE(large.out.find("\"runs\":true"), std::string::npos) << describe(large);
  EXPECT_NE(large.out.find("\"fits\":false"), std::string::npos) << describe(large);
}

}  // namespace
}  // namespace quern::test
