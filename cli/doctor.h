// What quern finds on a machine, and what it makes of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernel_set.h"
#include "quant/machine/cache_sizes.h"
#include "quant/machine/cpu_count.h"
#include "quant/machine/cpu_features.h"
#include "runtime/model.h"

namespace quern {

// What `quern doctor MODEL` finds out about a model.
struct ModelDiagnosis {
  std::string path;
  std::string problem;  // why it does not run; empty: it does
  ModelSurvey survey;   // without a problem
  bool fits() const { return survey.memory.total() <= survey.available_bytes; }
};

struct GpuFound {
  std::string name, driver;
  uint64_t free = 0, total = 0;  // bytes
};

struct Diagnosis {
  CpuFeatures features;
  const KernelSet* kernels = nullptr;
  CpuCount cpus{};
  CacheSizes caches{};
  int n_threads = 1;
  bool threads_given = false;  // by --threads
  uint64_t memory_bytes = 0, available_bytes = 0;
  std::string huge_pages;  // huge_page_mode()
  // Of n_threads threads with the loops of `kernels`, the best of several short runs; 0: not measured.
  double read_rate = 0;      // bytes per second
  double multiply_rate = 0;  // int8 multiply-adds per second
  std::string not_measured;  // why, where the rates are 0
  std::vector<GpuFound> gpus;
  std::string no_gpu;  // why there is none
  std::optional<ModelDiagnosis> model;

  // What runs without being asked for, and how to ask for something else.
  struct Choice {
    std::string_view name;           // "threads"
    std::string value;               // "2"
    std::string reason;              // "physical cores"; may be empty
    std::string_view override_with;  // "--threads"; empty: nothing else is there to choose
  };
  std::vector<Choice> choices() const;
};

std::string render_text(const Diagnosis& diagnosis);
std::string render_json(const Diagnosis& diagnosis);

}  // namespace quern
