// bench: llama-bench's tables, so that what reads those reads these.
#include <gtest/gtest.h>
#include <signal.h>

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

// What stands behind these.
const std::vector<std::string> kMoreFields = {"load_ns",
                                              "first_token_ns",
                                              "peak_memory_bytes",
                                              "weight_bytes_per_second",
                                              "read_bytes_per_second",
                                              "read_of",
                                              "read_share",
                                              "read_share_min",
                                              "read_share_max",
                                              "layer_macs_per_second",
                                              "multiply_macs_per_second",
                                              "multiply_share",
                                              "multiply_share_min",
                                              "multiply_share_max",
                                              "attention_share",
                                              "attention_kv_bytes_per_second",
                                              "attention_macs_per_second",
                                              "n_sequences",
                                              "tokens_per_pass",
                                              "speculation_gain"};

class Bench : public testing::Test {
 protected:
  ProcessResult bench(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"bench", model_, "-p", "16", "-n", "4", "-r", "3", "--no-probe"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern(arguments);
  }

  TempFolder folder_;
  std::string model_ = converted(folder_, "stories260k", "q4_0");
};

TEST_F(Bench, JsonIsAnOptionOfItsOwnToo) {
  const ProcessResult result = bench({"--json", "-ngl", "0"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(Json::parse(result.out).size(), 2u);
  EXPECT_EQ(Json::parse(result.out)[0]["model_type"], "llama 293K Q4_0");
}

TEST_F(Bench, JsonHasTheFieldsInTheirOrder) {
  const ProcessResult result = bench({"-o", "json", "-t", "1,2"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json rows = Json::parse(result.out);
  ASSERT_EQ(rows.size(), 4u);  // two tests for each number of threads
  std::vector<std::string> expected = kFields;
  expected.insert(expected.end(), {"samples_ns", "samples_ts"});
  expected.insert(expected.end(), kMoreFields.begin(), kMoreFields.end());
  expected.emplace_back("samples_share");
  for (const Json& row : rows) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : row.members()) {
      if (key != "n_depth") keys.push_back(key);
    }
    EXPECT_EQ(keys, expected);
    EXPECT_TRUE(row.contains("n_depth"));
    EXPECT_EQ(row["samples_ns"].size(), 3u);
    double sum = 0;
    for (const double ts : row["samples_ts"]) sum += ts;
    EXPECT_NEAR(row["avg_ts"].get<double>(), sum / 3, 1e-3 * sum);
    EXPECT_TRUE(row["samples_share"].empty());  // not measured
    EXPECT_TRUE(row["read_share"].is_null() && row["multiply_share"].is_null()) << row;
    EXPECT_GT(row["load_ns"], 0);
    EXPECT_GT(row["first_token_ns"], row["load_ns"]);
    EXPECT_GT(row["peak_memory_bytes"], 1 << 20);
    EXPECT_GT(row["attention_share"], 0.0);
    EXPECT_LT(row["attention_share"], 1.0);
  }
  // The commit as `quern version` says it, in a clone or outside of one.
  EXPECT_NE(quern({"version"}).out.find("\ncommit: " + rows[0]["build_commit"].get<std::string>() + "\n"),
            std::string::npos)
      << rows[0]["build_commit"];
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

TEST_F(Bench, SharesAreOfLimitsMeasuredInTheSameRun) {
  if (!has_memory_to_probe()) GTEST_SKIP() << "less than 3 GiB of memory are available";
  const ProcessResult result = quern({"bench", model_, "-p", "32", "-n", "8", "-pg", "16,4", "-r", "3", "-t",
                                      "1", "--isa", "scalar", "-o", "json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json rows = Json::parse(result.out);
  ASSERT_EQ(rows.size(), 3u);
  const Json &prompt = rows[0], &generation = rows[1], &both = rows[2];
  EXPECT_EQ(prompt["samples_share"].size(), 3u);
  EXPECT_GT(prompt["multiply_share"], 0.0);
  EXPECT_TRUE(prompt["read_share"].is_null());
  EXPECT_EQ(generation["samples_share"].size(), 3u);
  EXPECT_GT(generation["read_share"], 0.0);
  EXPECT_EQ(generation["read_of"], "memory");
  EXPECT_TRUE(prompt["read_of"].is_null());
  EXPECT_TRUE(generation["multiply_share"].is_null());
  EXPECT_EQ(both["n_prompt"], 16);
  EXPECT_EQ(both["n_gen"], 4);
  EXPECT_TRUE(both["samples_share"].empty()) << "two kinds of work have no common limit";
  // stories260k: 5 layers of dim 64, 8 heads of 8 on 4 KV heads, hidden 172; q4_0 leaves the narrow ones
  // alone.
  const double macs = 5 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 172 * 64);
  const double rate = prompt["layer_macs_per_second"], tokens = prompt["avg_ts"];
  EXPECT_GT(rate, 0.3 * macs * tokens);  // a median beside a mean, on a machine that does other things
  EXPECT_LT(rate, 3 * macs * tokens);
  EXPECT_LT(both["peak_memory_bytes"], 512 << 20) << "the probe's own memory does not count";
}

// Keys and values of 4000 tokens in f32, of 5 layers with 4 KV heads of 8 (stories260k), take 5.1 MB, and
// only the first test's session has them.
TEST_F(Bench, PeakMemoryIsOfEachTestAlone) {
  if (kSanitized) GTEST_SKIP() << "sanitizers keep memory that was given back";
  const ProcessResult result = quern({"bench", model_, "-p", "4000,16", "-n", "0", "-r", "1", "--kv", "f32",
                                      "-o", "json", "--no-probe", "-t", "1"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  if (result.err.find("/proc/self/clear_refs") != std::string::npos) GTEST_SKIP() << "one peak for all tests";
  const Json rows = Json::parse(result.out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_GT(rows[0]["peak_memory_bytes"], rows[1]["peak_memory_bytes"].get<int64_t>() + 2'500'000) << rows;
}

// bench has no --ctx: what it says of the context names what sets it.
TEST_F(Bench, SpeaksOfTheContextByItsOwnOptions) {
  const std::string options = "the longest test (-p, -n or -pg, plus -d) of ";
  const ProcessResult refused =
      quern({"bench", model_, "-p", "0", "-n", "0", "-pg", "8388608,8388608", "-d", "1", "--no-probe"});
  EXPECT_EQ(refused.exit_code, 1) << describe(refused);
  EXPECT_NE(refused.err.find("error: " + options + "16777217: expected at most 16777216\n"),
            std::string::npos)
      << describe(refused);
  const ProcessResult warned = quern({"bench", model_, "-p", "600", "-n", "0", "-r", "1", "--no-probe"});
  EXPECT_EQ(warned.exit_code, 0) << describe(warned);
  EXPECT_NE(warned.err.find("warning: " + options + "600 is beyond the 512 tokens"), std::string::npos)
      << describe(warned);
  for (const ProcessResult& result : {refused, warned})
    EXPECT_EQ(result.err.find("--ctx"), std::string::npos) << describe(result);
}

TEST_F(Bench, SaysWhyAShareIsMissingWhereMemoryIsShort) {
  if (kSanitized) GTEST_SKIP() << "sanitizers do not run within a limit on addresses";
  const ProcessResult result = quern_after(
      "ulimit -v 1000000", {"bench", model_, "-p", "16", "-n", "4", "-r", "2", "-t", "2", "-o", "json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(count_lines_with_prefix(result.err, "no read bandwidth: its measurement needs 1.25 GiB"), 1u)
      << describe(result);
  const Json rows = Json::parse(result.out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_GT(rows[0]["multiply_share"], 0.0);  // that takes no memory
  EXPECT_TRUE(rows[1]["read_share"].is_null() && rows[1]["read_bytes_per_second"].is_null()) << rows[1];
}

TEST_F(Bench, MarkdownWithLimitsBeginsAsWithout) {
  if (!has_memory_to_probe()) GTEST_SKIP() << "less than 3 GiB of memory are available";
  const ProcessResult without = bench({});
  const ProcessResult with = quern({"bench", model_, "-p", "16", "-n", "4", "-r", "1"});
  ASSERT_EQ(without.exit_code, 0) << describe(without);
  ASSERT_EQ(with.exit_code, 0) << describe(with);
  const std::string header = without.out.substr(0, without.out.find('\n'));
  EXPECT_TRUE(with.out.starts_with(header)) << describe(with);
  EXPECT_NE(with.out.find("|          work |    of the peak |            attention |\n"), std::string::npos)
      << describe(with);
  EXPECT_NE(with.out.find("\npeak: "), std::string::npos);
  EXPECT_NE(with.out.find("\nstart: load "), std::string::npos);
  EXPECT_NE(with.out.find("\n\nbuild: "), std::string::npos);
  EXPECT_EQ(without.out.find("peak"), std::string::npos);
}

TEST_F(Bench, RefusesPairsThatAreNone) {
  for (const char* pair : {"512", "1,2,3", "a,b", "-1,4", ""}) {
    const ProcessResult result = quern({"bench", model_, "-pg", pair});
    EXPECT_EQ(result.exit_code, 1) << pair << ": " << describe(result);
  }
}

TEST_F(Bench, ZeroSkipsATest) {
  const ProcessResult result =
      quern({"bench", model_, "-p", "0", "-n", "4", "-r", "1", "-o", "json", "--no-probe"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(Json::parse(result.out).size(), 1u);
}

TEST_F(Bench, PassesHaveARowOfEachSequence) {
  const ProcessResult result = bench({"--batch", "1,3", "-p", "0", "-d", "5", "--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json rows = Json::parse(result.out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["n_sequences"], 1);
  EXPECT_EQ(rows[1]["n_sequences"], 3);
  EXPECT_TRUE(rows[1]["tokens_per_pass"].is_null());
  for (size_t i = 0; i < 3; ++i) {  // of all sequences together
    const double ns = rows[1]["samples_ns"][i], rate = rows[1]["samples_ts"][i];
    EXPECT_NEAR(rate, 3 * 4 * 1e9 / ns, 1e-3 * rate);
  }
  const ProcessResult table = bench({"--batch", "3", "-p", "0"});
  EXPECT_NE(table.out.find(" tg4 x3 |"), std::string::npos) << describe(table);
  EXPECT_EQ(bench({"--batch", "0"}).exit_code, 1);
}

TEST_F(Bench, ATextIsGoneOnWithWithGuessesAndWithout) {
  std::string text;
  for (int i = 0; i < 6; ++i) text += "Once upon a time there was a little girl who had a red ball. ";
  const std::string file = folder_.write("text.txt", text);
  const ProcessResult result =
      quern({"bench", model_, "-p", "0", "-n", "80", "-r", "2", "-f", file, "--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json rows = Json::parse(result.out);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_GT(rows[0]["speculation_gain"], 0.0);
  EXPECT_GE(rows[0]["tokens_per_pass"], 1.0);
  EXPECT_GT(rows[0]["n_depth"], 60);
  EXPECT_TRUE(rows[0]["read_share"].is_null());
  const ProcessResult table = bench({"-f", file, "-p", "0"});
  EXPECT_NE(table.out.find("tg4 text @ d"), std::string::npos) << describe(table);
  EXPECT_NE(table.out.find(" a pass |"), std::string::npos) << describe(table);
}

// What was measured until then can be read.
TEST_F(Bench, StoppedHasWholeDocuments) {
  for (const std::string format : {"json", "jsonl"}) {
    Process process(quern_command({"bench", model_, "-p", "8", "-n", "900", "-r", "1000", "-pg", "8,0", "-o",
                                   format, "--no-probe"}),
                    with_test_environment());
    ASSERT_TRUE(process.wait_for_stdout("avg_ts")) << describe(process.wait());
    process.send_signal(SIGINT);
    const ProcessResult result = process.wait();
    EXPECT_EQ(result.exit_code, 130) << describe(result);
    const Json report = Json::parse(result.out);
    EXPECT_EQ(format == "json" ? report[0]["n_prompt"] : report["n_prompt"], 8);
  }
}

}  // namespace
}  // namespace quern::test
