#include "cli/doctor.h"

#include <fmt/format.h>

#include "cli/json_writer.h"
#include "cli/report.h"
#include "kernels/dispatch.h"

namespace quern {
namespace {

struct NamedFeature {
  std::string_view name, key;
  bool CpuFeatures::*has;
};
constexpr NamedFeature kFeatures[] = {
    {"AVX2", "avx2", &CpuFeatures::avx2},
    {"FMA", "fma", &CpuFeatures::fma},
    {"F16C", "f16c", &CpuFeatures::f16c},
    {"AVX-VNNI", "avx_vnni", &CpuFeatures::avx_vnni},
    {"AVX-512 (F, BW, DQ, VL)", "avx512", &CpuFeatures::avx512},
    {"AVX-512 VNNI", "avx512_vnni", &CpuFeatures::avx512_vnni},
};

// Bytes of weights that Mistral-7B in Q4_0 reads per decoded token: what users ask about first.
constexpr double kExampleBytes = 4.034e9;

std::string features_text(const CpuFeatures& features) {
  std::string has, lacks;
  for (const NamedFeature& feature : kFeatures) {
    std::string& list = features.*feature.has ? has : lacks;
    if (!list.empty()) list += ", ";
    list += feature.name;
  }
  if (has.empty()) has = "none that quern knows";
  return lacks.empty() ? has : fmt::format("{}; not: {}", has, lacks);
}

std::string size_or_unknown(uint64_t bytes) { return bytes == 0 ? "unknown" : format_size(bytes); }

std::string huge_pages_text(const std::string& mode) {
  if (mode == "always" || mode == "madvise") return mode + ": weights and cache get them";
  if (mode == "never")
    return "never: expect some percent less speed (/sys/kernel/mm/transparent_hugepage/enabled)";
  return "unknown";
}

std::string quota_text(int quota) { return quota == 0 ? "none" : fmt::format("{} CPUs", quota); }

}  // namespace

std::vector<Diagnosis::Choice> Diagnosis::choices() const {
  return {{"kernels", kernels->name, explain_kernel_set(*kernels, features), "--isa"},
          {"threads", std::to_string(n_threads), threads_given ? "asked for" : reason_of_usable(cpus),
           "--threads"},
          {"context", "4096", "or the length that the model was trained on, where that is less", "--ctx"},
          {"KV cache", "f16", "half of f32's memory", "--kv"},
          {"model file", "mapped", "shared with other processes", "--no-mmap"},
          {"tensor check", "small files", "below 64 MiB it takes no time", "--check-tensors"},
          {"layers on GPU", "0", "this build has no CUDA", ""}};
}

std::string render_text(const Diagnosis& d) {
  Table machine({{"", Table::Align::kLeft}, {"", Table::Align::kLeft}});
  const auto row = [&](std::string name, std::string value) {
    machine.add_row({std::move(name), std::move(value)});
  };
  row("CPU", d.features.model_name.empty() ? "unknown" : d.features.model_name);
  row("features", features_text(d.features));
  row("cores", fmt::format("{} physical, {} logical within the affinity mask; cgroup quota: {}",
                           d.cpus.physical_cores, d.cpus.affinity, quota_text(d.cpus.quota)));
  row("caches", fmt::format("L1 {}, L2 {}, L3 {}", size_or_unknown(d.caches.l1), size_or_unknown(d.caches.l2),
                            size_or_unknown(d.caches.l3)));
  row("memory",
      fmt::format("{}, {} available", size_or_unknown(d.memory_bytes), format_size(d.available_bytes)));
  row("huge pages", huge_pages_text(d.huge_pages));
  row("GPU", "none: this build has no CUDA");
  const std::string not_measured = fmt::format("not measured: {}", d.not_measured);
  row("read bandwidth", d.read_rate > 0
                            ? fmt::format("{:.1f} GB/s (Mistral-7B Q4_0: at most {:.1f} tokens/s)",
                                          d.read_rate * 1e-9, d.read_rate / kExampleBytes)
                            : not_measured);
  row("multiply rate", d.multiply_rate > 0
                           ? fmt::format("{:.1f} G int8 multiply-adds/s ({})", d.multiply_rate * 1e-9,
                                         d.kernels->probe->multiply_name)
                           : not_measured);
  std::string text = machine.render();
  text.erase(0, text.find_first_not_of('\n'));  // the table has no titles
  text += "\nWhat runs without being asked for:\n";
  for (const Diagnosis::Choice& choice : d.choices()) {
    const bool both = !choice.reason.empty() && !choice.override_with.empty();
    text += fmt::format("{}: {} ({}{}{}{})\n", choice.name, choice.value, choice.reason, both ? "; " : "",
                        choice.override_with.empty() ? "" : "override: ", choice.override_with);
  }
  return text;
}

std::string render_json(const Diagnosis& d) {
  JsonWriter json;
  json.begin_object().field("version", QUERN_VERSION).field("cpu", d.features.model_name);
  json.key("features").begin_object();
  for (const NamedFeature& feature : kFeatures) json.field(feature.key, d.features.*feature.has);
  json.end_object();
  json.key("kernel_sets").begin_array();
  for (const KernelSetRow& row : kernel_sets())
    json.begin_object()
        .field("name", row.set->name)
        .field("needs", row.needs)
        .field("supported", row.supported(d.features))
        .field("chosen", row.set == d.kernels)
        .end_object();
  json.end_array();
  json.key("cores").begin_object();
  json.field("physical", d.cpus.physical_cores).field("affinity", d.cpus.affinity).key("quota");
  d.cpus.quota == 0 ? json.null() : json.value(d.cpus.quota);
  json.end_object();
  json.key("cache_bytes").begin_object();
  json.field("l1", d.caches.l1).field("l2", d.caches.l2).field("l3", d.caches.l3).end_object();
  json.field("memory_bytes", d.memory_bytes)
      .field("available_bytes", d.available_bytes)
      .field("huge_pages", d.huge_pages);
  json.key("gpu").null();
  json.field("n_threads", d.n_threads).key("read_bytes_per_second");
  d.read_rate > 0 ? json.value(d.read_rate) : json.null();
  json.key("multiply_macs_per_second");
  d.multiply_rate > 0 ? json.value(d.multiply_rate) : json.null();
  json.field("multiply_instruction", d.kernels->probe->multiply_name);
  json.key("choices").begin_array();
  for (const Diagnosis::Choice& choice : d.choices())
    json.begin_object()
        .field("name", choice.name)
        .field("value", choice.value)
        .field("reason", choice.reason)
        .field("override", choice.override_with)  // empty: there is none
        .end_object();
  return json.end_array().end_object().text() + "\n";
}

}  // namespace quern
