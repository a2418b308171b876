// bench: llama-bench's tables, so that what reads those reads these.
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

// llama-bench's fields of February 2025 (conventions.md 4.1), in its order.
const std::vector<std::string> kFields = {
    "build_commit", "build_number", "cpu_info",       "gpu_info",   "backends",     "model_filename",
    "model_type",   "model_size",   "model_n_params", "n_batch",    "n_ubatch",     "n_threads",
    "cpu_mask",     "cpu_strict",   "poll",           "type_k",     "type_v",       "n_gpu_layers",
    "split_mode",   "main_gpu",     "no_kv_offload",  "flash_attn", "tensor_split", "use_mmap",
    "embeddings",   "n_prompt",     "n_gen",          "test_time",  "avg_ns",       "stddev_ns",
    "avg_ts",       "stddev_ts"};

class Bench : public testing::Test {
 protected:
  ProcessResult bench(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"bench", model_, "-p", "16", "-n", "4", "-r", "3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern(arguments);
  }

  TempFolder folder_;
  std::string model_ = converted(folder_, "stories260k", "q4_0");
};

TEST_F(Bench, JsonHasTheFieldsInTheirOrder) {
  const ProcessResult result = bench({"-o", "json", "-t", "1,2"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const nlohmann::ordered_json rows = nlohmann::ordered_json::parse(result.out);
  ASSERT_EQ(rows.size(), 4u);  // two tests for each number of threads
  std::vector<std::string> expected = kFields;
  expected.insert(expected.end(), {"samples_ns", "samples_ts"});
  for (const nlohmann::ordered_json& row : rows) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : row.items()) {
      if (key != "n_depth") keys.push_back(key);
    }
    EXPECT_EQ(keys, expected);
    EXPECT_TRUE(row.contains("n_depth"));
    EXPECT_EQ(row["samples_ns"].size(), 3u);
    double sum = 0;
    for (const double ts : row["samples_ts"]) sum += ts;
    EXPECT_NEAR(row["avg_ts"].get<double>(), sum / 3, 1e-3 * sum);
  }
  EXPECT_EQ(rows[0]["n_prompt"], 16);
  EXPECT_EQ(rows[0]["n_gen"], 0);
  EXPECT_EQ(rows[0]["n_threads"], 1);
  EXPECT_EQ(rows[1]["n_prompt"], 0);
  EXPECT_EQ(rows[1]["n_gen"], 4);
  EXPECT_EQ(rows[2]["n_threads"], 2);
}

TEST_F(Bench, CsvQuotesEveryValue) {
  const ProcessResult result = bench({"-o", "csv"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  std::istringstream in(result.out);
  std::string header, row;
  std::getline(in, header);
  EXPECT_EQ(header.substr(0, 26), "build_commit,build_number,");
  size_t rows = 0;
  for (; std::getline(in, row); ++rows) {
    EXPECT_TRUE(row.starts_with('"') && row.ends_with('"')) << row;
  }
  EXPECT_EQ(rows, 2u);
}

TEST_F(Bench, MarkdownIsLlamaBenchsTable) {
  const ProcessResult result = bench({});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_NE(
      result.out.find("| model                          |       size |     params | backend    | threads |"),
      std::string::npos)
      << describe(result);
  EXPECT_NE(result.out.find("pp16 |"), std::string::npos);
  EXPECT_NE(result.out.find("tg4 |"), std::string::npos);
  EXPECT_NE(result.out.find(" \u00b1 "), std::string::npos);
}

TEST_F(Bench, ZeroSkipsATest) {
  const ProcessResult result = quern({"bench", model_, "-p", "0", "-n", "4", "-r", "1", "-o", "json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(nlohmann::json::parse(result.out).size(), 1u);
}

TEST_F(Bench, LongerThanTheTrainedContextStillWorksOrSaysWhy) {
  const ProcessResult result = quern({"bench", model_, "-p", "600", "-n", "0", "-r", "1"});
  EXPECT_EQ(result.exit_code, 0) << describe(result);
}

}  // namespace
}  // namespace quern::test
