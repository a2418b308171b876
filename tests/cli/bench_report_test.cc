#include "cli/bench_report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/hparams.h"

namespace quern {
namespace {

BenchModel mistral() {
  BenchModel model;
  model.filename = "mistral \"7B\".gguf";
  model.cpu_info = "A CPU";
  model.description = "llama 7B Q4_0";
  model.size = 4'108'181'504;
  model.n_params = 7'241'732'096;
  model.kv_type = "f16";
  return model;
}

BenchResult prompt_512() {
  BenchResult result;
  result.n_threads = 2;
  result.n_prompt = 512;
  result.test_time = "2025-02-03T04:05:06Z";
  result.samples_ns = {1'000'000'000, 2'000'000'000};
  return result;
}

const BenchFormat& format(std::string_view name) {
  for (const BenchFormat& row : bench_formats())
    if (row.name == name) return row;
  throw std::runtime_error("no such format");
}

std::string document(const BenchFormat& form, const BenchModel& model,
                     const std::vector<BenchResult>& results) {
  std::string text = form.header(model);
  for (size_t i = 0; i < results.size(); ++i) {
    if (i > 0) text += form.separator;
    text += form.result(model, results[i]);
  }
  return text + form.footer();
}

TEST(BenchReport, AverageIsTheMeanOfTheRates) {
  // 512 and 256 tokens per second: not 1024 tokens in 3 seconds.
  EXPECT_DOUBLE_EQ(prompt_512().average_ts(), 384);
  EXPECT_DOUBLE_EQ(prompt_512().stddev_ts(), 128 * std::sqrt(2.0));
  EXPECT_DOUBLE_EQ(prompt_512().average_ns(), 1.5e9);
  BenchResult once = prompt_512();
  once.samples_ns.resize(1);
  EXPECT_EQ(once.stddev_ts(), 0);
}

TEST(BenchReport, MarkdownIsLlamaBenchsToTheLetter) {
  BenchResult generation = prompt_512();
  generation.n_prompt = 0;
  generation.n_gen = 128;
  generation.n_depth = 512;
  const std::string text = document(format("md"), mistral(), {prompt_512(), generation});
  EXPECT_EQ(text.substr(0, text.find("\nbuild")),
            "| model                          |       size |     params | backend    | threads |          "
            "test |                  t/s |\n"
            "| ------------------------------ | ---------: | ---------: | ---------- | ------: | "
            "------------: | -------------------: |\n"
            "| llama 7B Q4_0                  |   3.83 GiB |     7.24 B | CPU        |       2 |         "
            "pp512 |      384.00 ± 181.02 |\n"
            "| llama 7B Q4_0                  |   3.83 GiB |     7.24 B | CPU        |       2 |  tg128 @ "
            "d512 |        96.00 ± 45.25 |\n");
}

TEST(BenchReport, MarkdownShowsWhatIsNotTheDefault) {
  BenchModel model = mistral();
  model.kv_type = "f32";
  EXPECT_NE(format("md").header(model).find("| type_k | type_v |"), std::string::npos);
}

TEST(BenchReport, JsonHasLlamaBenchsFieldsInTheirOrder) {
  const std::vector<std::string> expected = {
      "build_commit", "build_number", "cpu_info",       "gpu_info",   "backends",     "model_filename",
      "model_type",   "model_size",   "model_n_params", "n_batch",    "n_ubatch",     "n_threads",
      "cpu_mask",     "cpu_strict",   "poll",           "type_k",     "type_v",       "n_gpu_layers",
      "split_mode",   "main_gpu",     "no_kv_offload",  "flash_attn", "tensor_split", "use_mmap",
      "embeddings",   "n_prompt",     "n_gen",          "n_depth",    "test_time",    "avg_ns",
      "stddev_ns",    "avg_ts",       "stddev_ts",      "samples_ns", "samples_ts"};
  const std::string text = document(format("json"), mistral(), {prompt_512(), prompt_512()});
  const nlohmann::ordered_json parsed = nlohmann::ordered_json::parse(text);
  ASSERT_EQ(parsed.size(), 2u);
  std::vector<std::string> keys;
  for (const auto& item : parsed[0].items()) keys.push_back(item.key());
  EXPECT_EQ(keys, expected);
  EXPECT_EQ(parsed[0]["model_filename"], "mistral \"7B\".gguf");
  EXPECT_EQ(parsed[0]["cpu_strict"], false);
  EXPECT_EQ(parsed[0]["avg_ns"], 1'500'000'000);
  EXPECT_EQ(parsed[0]["samples_ns"], (std::vector<uint64_t>{1'000'000'000, 2'000'000'000}));
}

TEST(BenchReport, CsvQuotesEveryValue) {
  const std::string text = document(format("csv"), mistral(), {prompt_512()});
  EXPECT_TRUE(text.starts_with("build_commit,build_number,cpu_info,"));
  EXPECT_TRUE(text.ends_with(",\"384.000000\",\"181.019336\"\n")) << text;
  EXPECT_NE(text.find(",\"mistral \"\"7B\"\".gguf\","), std::string::npos);
}

TEST(BenchReport, ModelsAreDescribedAsLlamaCppDoes) {
  HParams hparams;
  hparams.architecture = "llama";
  hparams.n_layers = 32;
  hparams.vocab_size = 32000;
  hparams.file_type = 2;
  EXPECT_EQ(describe_model(hparams), "llama 7B Q4_0");
  hparams.vocab_size = 128256;
  hparams.file_type = 15;
  EXPECT_EQ(describe_model(hparams), "llama 8B Q4_K - Medium");
  hparams.n_layers = 3;
  hparams.file_type = 0;
  EXPECT_EQ(describe_model(hparams), "llama ?B all F32");
}

}  // namespace
}  // namespace quern
