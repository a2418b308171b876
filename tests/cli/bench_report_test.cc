#include "cli/bench_report.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "quant/recipe.h"
#include "runtime/hparams.h"
#include "tests/support/json.h"

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
  return text + form.footer(model, results);
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

TEST(BenchReport, LayersOnAGpuAreAColumnAsLlamaBenchHasIt) {
  BenchModel model = mistral();
  model.n_gpu_layers = 33;
  model.gpu_info = "0: GPU (NVIDIA H200)";
  const std::string text = document(format("md"), model, {prompt_512()});
  EXPECT_NE(text.find("| backend    | ngl | threads |"), std::string::npos) << text;
  EXPECT_NE(text.find("| CUDA       |  33 |       2 |"), std::string::npos) << text;
  const std::string json = document(format("json"), model, {prompt_512()});
  EXPECT_NE(json.find("\"gpu_info\": \"0: GPU (NVIDIA H200)\""), std::string::npos) << json;
  EXPECT_NE(json.find("\"n_gpu_layers\": 33"), std::string::npos) << json;
}

// Half a second's and a second's work of 100 G at peaks of 400 G and 125 G: half and four fifths.
BenchResult limited(BenchResult result) {
  result.samples_ns = {500'000'000, 1'000'000'000};
  result.limit = {100'000'000'000, {400e9, 125e9}};
  result.attention = {0.15, 3'000'000'000, 6'000'000'000};
  result.load_ns = 310'000'000;
  result.first_token_ns = 1'020'000'000;
  result.peak_memory_bytes = uint64_t{3} << 30;
  return result;
}

TEST(BenchReport, SharesAreOfEachRepetitionsOwnPeak) {
  const BenchResult result = limited(prompt_512());
  EXPECT_EQ(result.shares(), (std::vector<double>{0.5, 0.8}));
  EXPECT_DOUBLE_EQ(result.work_rate(), 150e9);
  EXPECT_DOUBLE_EQ(result.peak_rate(), 262.5e9);
  EXPECT_DOUBLE_EQ(result.attention_share(), 0.1);
  EXPECT_TRUE(prompt_512().shares().empty());
  EXPECT_EQ(prompt_512().peak_rate(), 0);
}

TEST(BenchReport, MarkdownAddsTheLimitsBehindLlamaBenchsColumns) {
  BenchModel model = mistral();
  model.probed = true;
  model.multiply_instruction = "vpmaddubsw";
  BenchResult generation = limited(prompt_512());
  generation.n_prompt = 0;
  generation.n_gen = 128;
  const std::string text = document(format("md"), model, {limited(prompt_512()), generation});
  const std::string plain = document(format("md"), mistral(), {});
  EXPECT_TRUE(text.starts_with(plain.substr(0, plain.find('\n'))));
  EXPECT_NE(text.find(" |  150.0 GMAC/s |   65 % (50-80) |  10.0 %, 40.0 GMAC/s |\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find(" |    150.0 GB/s |   65 % (50-80) |    10.0 %, 20.0 GB/s |\n"), std::string::npos)
      << text;
  EXPECT_NE(
      text.find("\n\npeak: 2 threads; plain read 262.5 GB/s; vpmaddubsw 262.5 GMAC/s\n"
                "start: load 0.31 s, first token of pp512 after 1.02 s; peak memory 3.00 GiB\n\nbuild: "),
      std::string::npos)
      << text;
}

TEST(BenchReport, NamesWhatAPlainReadReads) {
  BenchModel model = mistral();
  model.probed = model.reads_mapping = true;
  BenchResult generation = limited(prompt_512());
  generation.n_prompt = 0;
  generation.n_gen = 128;
  const std::string text = document(format("md"), model, {generation});
  EXPECT_NE(text.find("peak: 2 threads; plain read of the mapped file 262.5 GB/s\n"), std::string::npos)
      << text;
  const test::Json rows = test::Json::parse(document(format("json"), model, {generation}));
  EXPECT_EQ(rows[0]["read_of"], "mapped file");
}

TEST(BenchReport, JsonHasNullForWhatWasNotMeasured) {
  BenchResult both = limited(prompt_512());
  both.n_gen = 16;
  both.limit = {};
  const test::Json rows =
      test::Json::parse(document(format("json"), mistral(), {limited(prompt_512()), prompt_512(), both}));
  EXPECT_EQ(rows[0]["multiply_share"], 0.65);
  EXPECT_EQ(rows[0]["multiply_share_min"], 0.5);
  EXPECT_EQ(rows[0]["multiply_share_max"], 0.8);
  EXPECT_EQ(rows[0]["samples_share"], (std::vector<double>{0.5, 0.8}));
  EXPECT_EQ(rows[0]["attention_kv_bytes_per_second"], 20e9);
  EXPECT_TRUE(rows[0]["read_share"].is_null());
  for (const char* key : {"multiply_share", "read_share", "load_ns", "attention_share"})
    EXPECT_TRUE(rows[1][key].is_null()) << key;
  for (const char* key : {"multiply_share", "read_share", "weight_bytes_per_second", "layer_macs_per_second"})
    EXPECT_TRUE(rows[2][key].is_null()) << key;
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
  const test::Json parsed = test::Json::parse(text);
  ASSERT_EQ(parsed.size(), 2u);
  std::vector<std::string> keys;
  for (const auto& item : parsed[0].members()) keys.push_back(item.first);
  ASSERT_GT(keys.size(), expected.size());
  keys.resize(expected.size());  // ours stand behind these
  EXPECT_EQ(keys, expected);
  EXPECT_EQ(parsed[0]["model_filename"], "mistral \"7B\".gguf");
  EXPECT_EQ(parsed[0]["cpu_strict"], false);
  EXPECT_EQ(parsed[0]["avg_ns"], 1'500'000'000);
  EXPECT_EQ(parsed[0]["samples_ns"], (std::vector<uint64_t>{1'000'000'000, 2'000'000'000}));
}

TEST(BenchReport, CsvQuotesEveryValue) {
  const std::string text = document(format("csv"), mistral(), {prompt_512()});
  EXPECT_TRUE(text.starts_with("build_commit,build_number,cpu_info,"));
  EXPECT_NE(text.find(",\"384.000000\",\"181.019336\",\"\","), std::string::npos) << text;
  EXPECT_TRUE(text.ends_with(",\"\"\n")) << text;
  const std::string header = text.substr(0, text.find('\n'));
  EXPECT_NE(header.find(",avg_ts,stddev_ts,load_ns,"), std::string::npos) << header;
  EXPECT_EQ(std::count(header.begin(), header.end(), ','), std::count(text.begin(), text.end(), ',') / 2);
  EXPECT_NE(text.find(",\"mistral \"\"7B\"\".gguf\","), std::string::npos);
}

TEST(BenchReport, JsonLinesHoldTheSameObjects) {
  const std::string lines = document(format("jsonl"), mistral(), {prompt_512(), prompt_512()});
  const test::Json objects = test::Json::parse(document(format("json"), mistral(), {prompt_512()}));
  ASSERT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2);
  EXPECT_EQ(test::Json::parse(lines.substr(0, lines.find('\n'))), objects[0]);
}

TEST(BenchReport, EveryTypeThatConvertWritesHasAName) {
  HParams hparams;
  for (const Recipe& recipe : recipes()) {
    hparams.file_type = recipe.file_type;
    EXPECT_EQ(describe_model(hparams, 1'000'000).find("unknown"), std::string::npos) << recipe.name;
  }
  hparams.file_type = 4;  // long gone
  EXPECT_NE(describe_model(hparams, 1'000'000).find("unknown type"), std::string::npos);
}

TEST(BenchReport, ModelsAreDescribedByTheirNumberOfWeights) {
  HParams hparams;
  hparams.architecture = "llama";
  hparams.file_type = 2;
  EXPECT_EQ(describe_model(hparams, 7'241'732'096), "llama 7B Q4_0");
  hparams.file_type = 15;
  EXPECT_EQ(describe_model(hparams, 8'030'261'248), "llama 8B Q4_K - Medium");
  hparams.file_type = 0;
  for (const auto& [n_params, size] : {std::pair<uint64_t, const char*>{2'295'552, "2.3M"},
                                       {134'515'008, "135M"},
                                       {999'000'000, "1B"},
                                       {1'100'048'384, "1.1B"},
                                       {23'572'403'200, "24B"},
                                       {70'553'706'496, "71B"}})
    EXPECT_EQ(describe_model(hparams, n_params), fmt::format("llama {} all F32", size));
}

}  // namespace
}  // namespace quern
