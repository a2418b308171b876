// What the micro-benchmarks measure with.
#pragma once

#include <benchmark/benchmark.h>

#include <cstddef>
#include <ctime>
#include <vector>

#include "quant/median.h"

namespace quern {

// Of a clock such as CLOCK_MONOTONIC, or CLOCK_THREAD_CPUTIME_ID: then what other processes take does not
// count.
inline double seconds_on(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <class Body>
double seconds_of(clockid_t clock, Body&& body) {
  const double start = seconds_on(clock);
  body();
  return seconds_on(clock) - start;
}

// Pair by pair: taken one right after the other, so that what else the machine does meets both.
inline std::vector<double> ratios(const std::vector<double>& of, const std::vector<double>& to) {
  std::vector<double> out;
  for (size_t i = 0; i < of.size(); ++i) out.push_back(of[i] / to[i]);
  return out;
}

// n numbers in [-0.5, 0.5): speed does not depend on them, as long as none is subnormal or infinite.
inline std::vector<float> some_floats(size_t n) {
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i * 2654435761u % 1000) * 0.001f - 0.5f;
  return x;
}

// What is left of main() when the benchmarks are registered.
inline int run_benchmarks(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace quern
