// doctor: what the machine has, and what is chosen on it.
#include <gtest/gtest.h>

#include "tests/cli/quern_cli.h"

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
  const ProcessResult result = quern({"doctor", "--json", "-t", "1"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const nlohmann::json json = nlohmann::json::parse(result.out);
  EXPECT_GT(json["read_bytes_per_second"], 1e6);
  EXPECT_GT(json["multiply_macs_per_second"], 1e6);
  EXPECT_EQ(json["n_threads"], 1);
}

TEST(Doctor, ShowsWhatAnOptionWouldChoose) {
  const ProcessResult result = quern({"doctor", "--no-probe", "--isa", "scalar", "--threads", "7", "--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const nlohmann::json json = nlohmann::json::parse(result.out);
  for (const nlohmann::json& set : json["kernel_sets"]) EXPECT_EQ(set["chosen"], set["name"] == "scalar");
  EXPECT_EQ(json["n_threads"], 7);
  EXPECT_EQ(quern({"doctor", "--isa", "mmx"}).exit_code, 1);
  EXPECT_EQ(quern({"doctor", "model.gguf"}).exit_code, 1);
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

}  // namespace
}  // namespace quern::test
