// Layers on the emulated GPU, through the whole program: the same text, and what is said of it.
#include <gtest/gtest.h>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

class Gpu : public testing::Test {
 protected:
  static ProcessResult on(const std::string& gpu, const std::string& layers,
                          std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--gpu", gpu, "--gpu-layers", layers});
    return quern(arguments);
  }
  TempFolder folder_;
};

TEST_F(Gpu, RunGivesTheSameTextWithAnyNumberOfLayers) {
  const std::string model = converted(folder_, "tiny-mistral", "q4_0");
  const std::vector<std::string> run = {"run", model, "-p", "ROMEO:", "-n", "12", "--seed", "3"};
  const ProcessResult cpu = quern(run);
  ASSERT_EQ(cpu.exit_code, 0) << describe(cpu);
  for (const char* layers : {"0", "1", "all", "auto", "99"}) {
    const ProcessResult result = on("emulated", layers, run);
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    EXPECT_EQ(result.out, cpu.out) << layers;
    EXPECT_NE(result.err.find("gpu: "), std::string::npos) << describe(result);
  }
  EXPECT_NE(on("emulated", "1", run).err.find("gpu: 1 of "), std::string::npos);
  EXPECT_EQ(on("emulated,emulated", "all", run).out, cpu.out);
}

TEST_F(Gpu, TheVariableNamesItToo) {
  const std::string model = converted(folder_, "stories260k", "q8_0");
  ProcessOptions options;
  options.environment = {"QUERN_GPU=emulated"};
  const ProcessResult result = quern({"run", model, "-p", "Once", "-n", "3", "--temp", "0"}, options);
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_NE(result.err.find("on 0: GPU (emulated)"), std::string::npos) << describe(result);
}

TEST_F(Gpu, PerplexityBenchAndDoctorTakeIt) {
  const std::string model = converted(folder_, "stories260k", "q8_0");
  std::string words;
  for (int i = 0; i < 60; ++i) words += "Once upon a time there was a little girl. ";
  const std::string text = folder_.write("text", words);
  const std::vector<std::string> measure = {"perplexity", model, "-f", text, "-c", "64", "--chunks", "2"};
  const ProcessResult cpu = quern(measure);
  ASSERT_EQ(cpu.exit_code, 0) << describe(cpu);
  EXPECT_EQ(on("emulated", "all", measure).out, cpu.out);

  const ProcessResult bench =
      on("emulated", "2", {"bench", model, "-p", "16", "-n", "2", "-r", "1", "--no-probe", "-o", "json"});
  ASSERT_EQ(bench.exit_code, 0) << describe(bench);
  const Json test = Json::parse(bench.out)[0];
  EXPECT_EQ(test["n_gpu_layers"], 2);
  EXPECT_EQ(test["gpu_info"], "0: GPU (emulated)");
  EXPECT_EQ(test["backends"], "CUDA");

  const ProcessResult doctor = on("emulated", "all", {"doctor", model, "--no-probe"});
  EXPECT_EQ(doctor.exit_code, 0) << describe(doctor);
  EXPECT_NE(doctor.out.find("GPU layers"), std::string::npos) << describe(doctor);
}

TEST_F(Gpu, ANumberThatDoesNotFitEndsWithTheTableAndAutoDoesNot) {
  const std::string model = converted(folder_, "tiny-mistral", "q8_0");
  const std::vector<std::string> run = {"run", model, "-p", "ROMEO:", "-n", "2", "--temp", "0"};
  const ProcessResult result = on("emulated:4", "all", run);
  EXPECT_EQ(result.exit_code, 4) << describe(result);
  EXPECT_NE(result.err.find("needed"), std::string::npos) << describe(result);
  const ProcessResult automatic = on("emulated:4", "auto", run);
  EXPECT_EQ(automatic.exit_code, 0) << describe(automatic);
  EXPECT_EQ(automatic.out, quern(run).out);
}

TEST_F(Gpu, LayersWithoutAGpuAreRefused) {
  const std::string model = converted(folder_, "stories260k", "q8_0");
  const ProcessResult result = on("none", "1", {"run", model, "-p", "a", "-n", "1"});
  EXPECT_EQ(result.exit_code, 4) << describe(result);
  EXPECT_NE(result.err.find("no GPU is there (none is asked for)"), std::string::npos) << describe(result);
  EXPECT_EQ(on("emulatd", "1", {"run", model, "-p", "a"}).exit_code, 1);
  EXPECT_EQ(quern({"run", model, "-p", "a", "-n", "1", "-ngl", "0"}).exit_code, 0);
}

}  // namespace
}  // namespace quern::test
