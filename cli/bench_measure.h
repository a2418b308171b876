// How `bench` measures: random tokens through a session, the machine's limits beside them, and the memory
// that a test takes.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>

#include "cli/bench_result.h"
#include "kernels/machine_probe.h"
#include "quant/machine/stop_signal.h"
#include "runtime/model.h"

namespace quern {

// The most memory that the process has taken in a stretch of its life, without the read probe's.
class MemoryPeak {
 public:
  // False where a stretch cannot begin anew: it then goes on.
  bool begin();
  // The probe has taken n_bytes for the rest of the process's life; before: peak_memory() until then.
  void probe_taken(uint64_t before, uint64_t n_bytes);
  uint64_t bytes() const;

 private:
  uint64_t before_probe_ = 0, probe_bytes_ = 0;
};

// What the machine gives at most, measured in short runs between the repetitions.
class BenchProbes {
 public:
  explicit BenchProbes(bool wanted) : wanted_(wanted) {}

  // Weights that are read where a file is mapped are compared with a plain read of that mapping, others with
  // one of memory of the probe's own; that is taken where the test needs it and there is room. Call when the
  // test has run once: what that took is then known.
  void prepare(const Model& model, const BenchResult& result);
  // The peak that limits a test, in runs of about `seconds`; 0: not measured.
  double peak(const Model& model, const BenchResult& result, double seconds);
  // A smaller mapping would stay in caches.
  static bool reads_mapping(const Model& model);
  // Before a model goes.
  void let_go_of_model() { read_mapping_.reset(); }

  MemoryPeak& memory() { return memory_; }

 private:
  bool wanted_, refused_ = false;
  std::optional<ReadProbe> read_, read_mapping_;
  MemoryPeak memory_;
};

using BenchClock = std::chrono::steady_clock;
uint64_t nanoseconds_since(BenchClock::time_point start);

struct BenchTask {
  int64_t repetitions;
  std::span<const int32_t> text;  // of tests of a text
  uint64_t load_ns, load_bytes;   // what the model took
  const StopScope& stop;
};

// Runs one test: fills in all of *result but what is to be done. Adds to *peaks_are_own whether the test's
// peak memory is its own. Throws Interrupted when task.stop is asked.
void measure_bench(const Model& model, const BenchTask& task, BenchProbes* probes, bool* peaks_are_own,
                   BenchResult* result);

}  // namespace quern
