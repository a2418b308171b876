#include "cli/doctor.h"

#include <gtest/gtest.h>

#include "kernels/dispatch.h"
#include "tests/support/json.h"

namespace quern {
namespace {

Diagnosis laptop() {
  Diagnosis d;
  d.features.model_name = "A Laptop's CPU";
  d.features.avx2 = d.features.fma = d.features.f16c = true;
  d.kernels = kernel_sets().front().set;
  d.cpus = {.physical_cores = 4, .affinity = 8, .quota = 3, .usable = 3};
  d.caches = {.l1 = 48 << 10, .l2 = 1280 << 10, .l3 = 0};
  d.n_threads = 3;
  d.memory_bytes = uint64_t{16} << 30;
  d.available_bytes = uint64_t{9} << 30;
  d.huge_pages = "madvise";
  d.no_gpu = "no driver";
  d.read_rate = 40.34e9;
  d.multiply_rate = 412e9;
  return d;
}

void expect_line(const std::string& text, const std::string& line) {
  EXPECT_NE(("\n" + text).find("\n" + line + "\n"), std::string::npos) << line << "\nin\n" << text;
}

TEST(DoctorReport, IsALineAFact) {
  const std::string text = render_text(laptop());
  EXPECT_TRUE(text.starts_with("CPU             A Laptop's CPU\n")) << text;
  expect_line(text, "features        AVX2, FMA, F16C; not: AVX-VNNI, AVX-512 (F, BW, DQ, VL), AVX-512 VNNI");
  expect_line(text, "cores           4 physical, 8 logical within the affinity mask; cgroup quota: 3 CPUs");
  expect_line(text, "caches          L1 48.00 KiB, L2 1.25 MiB, L3 unknown");
  expect_line(text, "memory          16.00 GiB, 9.00 GiB available");
  expect_line(text, "huge pages      madvise: weights and cache get them");
  expect_line(text, "GPU             none: no driver");
  expect_line(text, "read bandwidth  40.3 GB/s (Mistral-7B Q4_0: at most 10.0 tokens/s)");
  expect_line(text, "multiply rate   412.0 G int8 multiply-adds/s (a plain loop)");
}

TEST(DoctorReport, NamesTheReasonAndTheOverrideOfEveryChoice) {
  const std::string text = render_text(laptop());
  expect_line(text, "threads: 3 (the cgroup's CPU quota; override: --threads)");
  EXPECT_NE(text.find("\nkernels: scalar (asked for; this CPU could also run avx2; "), std::string::npos)
      << text;
  EXPECT_NE(text.find(", which this CPU lacks; override: --isa)\n"), std::string::npos) << text;
  expect_line(text, "layers on GPU: 0 (no driver; override: --gpu-layers)");
  Diagnosis given = laptop();
  given.threads_given = true;
  given.n_threads = 8;
  expect_line(render_text(given), "threads: 8 (asked for; override: --threads)");
  Diagnosis best = laptop();
  best.kernels = kernel_sets().back().set;
  expect_line(render_text(best), std::string("kernels: ") + best.kernels->name + " (override: --isa)");
}

TEST(DoctorReport, SaysWhyNothingWasMeasured) {
  Diagnosis d = laptop();
  d.read_rate = d.multiply_rate = 0;
  d.not_measured = "--no-probe";
  expect_line(render_text(d), "read bandwidth  not measured: --no-probe");
  const test::Json json = test::Json::parse(render_json(d));
  EXPECT_TRUE(json["read_bytes_per_second"].is_null());
  EXPECT_TRUE(json["multiply_macs_per_second"].is_null());
}

TEST(DoctorReport, JsonHoldsTheSame) {
  const test::Json json = test::Json::parse(render_json(laptop()));
  EXPECT_EQ(json["cpu"], "A Laptop's CPU");
  EXPECT_EQ(json["features"]["avx2"], true);
  EXPECT_EQ(json["features"]["avx512_vnni"], false);
  EXPECT_EQ(json["cores"]["physical"], 4);
  EXPECT_EQ(json["cores"]["quota"], 3);
  EXPECT_EQ(json["cache_bytes"]["l2"], 1280 << 10);
  EXPECT_EQ(json["memory_bytes"], uint64_t{16} << 30);
  EXPECT_EQ(json["huge_pages"], "madvise");
  EXPECT_EQ(json["gpus"].size(), 0u);
  EXPECT_EQ(json["read_bytes_per_second"], 40.34e9);
  ASSERT_EQ(json["kernel_sets"].size(), kernel_sets().size());
  EXPECT_EQ(json["kernel_sets"][0]["chosen"], true);
  size_t with_override = 0;
  for (const test::Json& choice : json["choices"])
    with_override += !choice["override"].get<std::string>().empty();
  EXPECT_EQ(with_override, json["choices"].size());
}

TEST(DoctorReport, NamesEveryGpuAndWhatIsOnIt) {
  Diagnosis d = laptop();
  d.gpus = {{"GPU (NVIDIA H200)", "13.1", uint64_t{139} << 30, uint64_t{140} << 30},
            {"GPU (emulated)", "", uint64_t{4} << 30, uint64_t{4} << 30}};
  std::string text = render_text(d);
  expect_line(text, "GPU             GPU (NVIDIA H200) (driver: CUDA 13.1), 140.00 GiB, 139.00 GiB free");
  expect_line(text, "GPU             GPU (emulated), 4.00 GiB, 4.00 GiB free");
  expect_line(text, "layers on GPU: as many as fit (override: --gpu-layers)");
  const test::Json json = test::Json::parse(render_json(d));
  EXPECT_EQ(json["gpus"][0]["driver"], "13.1");
  EXPECT_EQ(json["gpus"][1]["free_bytes"], uint64_t{4} << 30);
  ModelSurvey& survey = d.model.emplace().survey;
  survey.gpu.names = {"0: GPU (NVIDIA H200)"};
  survey.gpu.rooms = {{uint64_t{100} << 30, 1 << 20}};
  survey.gpu.placement.n_moved = 3;
  survey.gpu.placement.taken = {{3, uint64_t{1} << 30, uint64_t{2} << 30, 0}};
  text = render_text(d);
  expect_line(text, "GPU layers  3 on 0: GPU (NVIDIA H200): 3.00 GiB of 100.00 GiB");
  EXPECT_EQ(test::Json::parse(render_json(d))["model"]["gpu_layers"], 3);
}

TEST(DoctorReport, JudgesAModelByWhatWasMeasured) {
  Diagnosis d = laptop();
  ModelDiagnosis& model = d.model.emplace();
  model.path = "model.gguf";
  model.survey.architecture = "llama";
  model.survey.n_params = 7'241'732'096;
  model.survey.weight_bytes = uint64_t{4} << 30;
  model.survey.trained_context = 32768;
  model.survey.context = 4096;
  model.survey.memory = {
      .weights = uint64_t{4} << 30, .in_place = 0, .kv = uint64_t{512} << 20, .scratch = uint64_t{64} << 20};
  model.survey.available_bytes = uint64_t{9} << 30;
  model.survey.fitting_context = 20000;
  model.survey.bytes_per_token = model.survey.kv_bytes = 4'034'000'000;
  model.survey.macs_per_token = 4'120'000'000;
  const std::string text = render_text(d);
  expect_line(text, "model       model.gguf");
  expect_line(text, "runs        yes: llama, 7.24 B weights in 4.00 GiB");
  expect_line(text,
              "memory      fits: weights 4.00 GiB + cache 512.00 MiB (context of 4096) + scratch 64.00 MiB = "
              "4.56 GiB "
              "of 9.00 GiB available");
  expect_line(text, "context     19968 at most (--ctx), of 32768 that the model was trained on");
  expect_line(
      text,
      "generation  at most 10 tokens/s (3.76 GiB of weights a token, by the read bandwidth), 5 at the end of "
      "the context");
  expect_line(text, "prompts     at most 100 tokens/s (4.12 B multiply-adds a token)");
  EXPECT_NE(render_json(d).find("\"fits\":true"), std::string::npos);
  model.survey.available_bytes = uint64_t{2} << 30;
  EXPECT_FALSE(model.fits());
  EXPECT_NE(render_text(d).find("memory      does not fit: "), std::string::npos);
  model.problem = "unsupported architecture 'bert'";
  expect_line(render_text(d), "runs   no: unsupported architecture 'bert'");
}

}  // namespace
}  // namespace quern
