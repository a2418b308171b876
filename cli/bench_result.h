// What a test of `bench` has measured, and the figures that follow from it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/device.h"

namespace quern {

// Tokens evaluated in one call and at once, llama-bench's defaults (-b, -ub).
inline constexpr size_t kBenchBatch = 2048;
inline constexpr size_t kBenchMicroBatch = 512;

// How close the repetitions of a test came to a limit of the machine. Bytes of weights and read bandwidth for
// generation; int8 multiply-adds of the layers and multiply rate for prompts.
struct BenchLimit {
  uint64_t work = 0;          // of one repetition
  std::vector<double> peaks;  // work per second that the machine gave right before and after each repetition
};

struct BenchResult {
  int n_threads = 1;
  uint64_t n_prompt = 0, n_gen = 0, n_depth = 0;
  uint64_t n_sequences = 1;          // each generates n_gen tokens, one of all in a pass
  bool of_text = false;              // greedy, behind a text, with guesses
  std::string test_time;             // start, RFC 3339 UTC
  std::vector<uint64_t> samples_ns;  // of each repetition, at least one

  // Of texts: tokens that a pass brought, and how much faster each repetition was than one without guesses
  // right before or after it.
  double tokens_per_pass = 0;
  std::vector<double> gains;

  // Beyond llama-bench; zeros: not known.
  BenchLimit limit;       // without peaks where they were not measured
  DeviceTimes attention;  // of all repetitions together
  uint64_t load_ns = 0;   // of the model
  uint64_t first_token_ns =
      0;  // from the start of the load, but for earlier tests, to this test's first logits
  uint64_t peak_memory_bytes = 0;  // of the load and this test, without the memory of the probe

  bool is_prompt() const { return n_gen == 0; }
  bool is_generation() const { return n_prompt == 0; }
  std::vector<double> shares() const;  // of each repetition: work per second / peak
  double work_rate() const;            // median of the repetitions; 0: not known
  double peak_rate() const;            // likewise
  double attention_share() const;      // of the repetitions' time

  double average_ns() const;
  double stddev_ns() const;
  std::vector<double> samples_ts() const;  // tokens per second of each repetition
  double average_ts() const;               // arithmetic mean of the above
  double stddev_ts() const;                // sample standard deviation, n - 1; 0 for one sample
};

// "pp512", "tg128 @ d512", "tg128 x8", "tg128 text"
std::string test_name(const BenchResult& result);

}  // namespace quern
