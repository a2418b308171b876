// The results of `bench` as llama-bench prints them (conventions.md 4.1).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

struct HParams;

// Tokens evaluated in one call and at once, llama-bench's defaults (-b, -ub).
inline constexpr size_t kBenchBatch = 2048;
inline constexpr size_t kBenchMicroBatch = 512;

struct BenchModel {
  std::string filename, cpu_info;
  std::string description;  // "llama 7B Q4_0"
  uint64_t size = 0;        // bytes of all tensors
  uint64_t n_params = 0;
  std::string kv_type;  // "f16"
  bool use_mmap = true;
};

struct BenchResult {
  int n_threads = 1;
  uint64_t n_prompt = 0, n_gen = 0, n_depth = 0;
  std::string test_time;             // start, RFC 3339 UTC
  std::vector<uint64_t> samples_ns;  // of each repetition, at least one

  double average_ns() const;
  double stddev_ns() const;
  std::vector<double> samples_ts() const;  // tokens per second of each repetition
  double average_ts() const;               // arithmetic mean of the above
  double stddev_ts() const;                // sample standard deviation, n - 1; 0 for one sample
};

// Architecture, size class and file type as llama.cpp names them.
std::string describe_model(const HParams& hparams);

// "pp512", "tg128 @ d512"
std::string test_name(const BenchResult& result);

// A form of the output: header, results joined by the separator, footer.
struct BenchFormat {
  std::string_view name;  // "md"
  std::string (*header)(const BenchModel& model);
  std::string (*result)(const BenchModel& model, const BenchResult& result);
  std::string_view separator;
  std::string (*footer)();
};

std::span<const BenchFormat> bench_formats() noexcept;

}  // namespace quern
