// The results of `bench` as llama-bench prints them (conventions.md 4.1), and behind these what it does not
// say: how close to the machine's limits they are.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/bench_result.h"

namespace quern {

struct HParams;

struct BenchModel {
  std::string filename, cpu_info;
  std::string description;  // "llama 7B Q4_0"
  uint64_t size = 0;        // bytes of all tensors
  uint64_t n_params = 0;
  std::string kv_type;      // "f16"
  std::string gpu_info;     // names of the GPUs that have layers; empty: none
  size_t n_gpu_layers = 0;  // on them
  bool use_mmap = true;
  bool speculates = false;           // there are tests of a text: the table has a column for its guesses
  bool probed = false;               // the machine's limits were measured: the table has columns for them
  bool reads_mapping = false;        // weights were compared with a plain read of the mapped file
  std::string multiply_instruction;  // "vpmaddubsw"
};

// Architecture, size and file type, "llama 7B Q4_0".
std::string describe_model(const HParams& hparams, uint64_t n_params);

// A form of the output: header, results joined by the separator, footer.
struct BenchFormat {
  std::string_view name;  // "md"
  std::string (*header)(const BenchModel& model);
  std::string (*result)(const BenchModel& model, const BenchResult& result);
  std::string_view separator;
  std::string (*footer)(const BenchModel& model, std::span<const BenchResult> results);
};

std::span<const BenchFormat> bench_formats() noexcept;

}  // namespace quern
