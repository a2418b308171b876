#include "cli/doctor.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "cli/option_table.h"
#include "cli/report.h"
#include "kernels/dispatch.h"
#include "quant/error.h"
#include "quant/format_size.h"
#include "quant/json/json_writer.h"

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

// Bounds: the speed at which memory, or the multipliers, would do all of the work and nothing else took time.
struct ModelSpeed {
  double generation_empty, generation_full, prompt;  // tokens per second at most; 0: not measured
};

ModelSpeed speed_of(const Diagnosis& d) {
  const ModelSurvey& survey = d.model->survey;
  const auto per_second = [](double rate, uint64_t amount) {
    return amount > 0 ? rate / static_cast<double>(amount) : 0;
  };
  return {per_second(d.read_rate, survey.bytes_per_token),
          per_second(d.read_rate, survey.bytes_per_token + survey.kv_bytes),
          per_second(d.multiply_rate, survey.macs_per_token)};
}

std::string rate_text(double per_second) {
  return per_second < 100 ? fmt::format("{:.3g}", per_second) : fmt::format("{:.0f}", per_second);
}

std::string fit_text(const ModelSurvey& survey) {
  const MemoryPlan& memory = survey.memory;
  return fmt::format("{}: weights {} + cache {} (context of {}) + scratch {} = {} of {} available",
                     memory.total() <= survey.available_bytes ? "fits" : "does not fit",
                     format_size(memory.weights), format_size(memory.kv), survey.context,
                     format_size(memory.scratch), format_size(memory.total()),
                     format_size(survey.available_bytes));
}

std::string gpu_text(const ModelSurvey& survey) {
  std::string text;
  for (size_t g = 0; g < survey.gpu.names.size(); ++g) {
    const Placement::Taken& taken = survey.gpu.placement.taken[g];
    text += fmt::format("{}{} on {}: {} of {}", text.empty() ? "" : "; ", taken.n_layers, survey.gpu.names[g],
                        format_size(taken.total()), format_size(survey.gpu.rooms[g].free));
  }
  return text;
}

std::string context_text(const ModelSurvey& survey) {
  if (survey.fitting_context >= survey.trained_context)
    return fmt::format("{} at most, all that the model was trained on (--ctx 0)", survey.trained_context);
  if (survey.fitting_context < 64)
    return fmt::format("none fits, of {} that the model was trained on", survey.trained_context);
  return fmt::format("{} at most (--ctx), of {} that the model was trained on",
                     survey.fitting_context / 64 * 64, survey.trained_context);
}

// Names and what is said of them; "": it goes on with what stands above.
using Facts = std::vector<std::pair<std::string, std::string>>;

// A line each; those that the terminal is too narrow for go on below where they began.
std::string facts_text(const Facts& facts) {
  size_t column = 0;
  for (const auto& [name, value] : facts) column = std::max(column, display_width(name) + 2);
  std::string text;
  for (const auto& [name, value] : facts)
    text += wrap(fmt::format("{:<{}}{}", name, column, value), stdout_width(SIZE_MAX), column) + "\n";
  return text;
}

std::string model_text(const Diagnosis& d) {
  const ModelDiagnosis& model = *d.model;
  Facts facts;
  const auto row = [&](std::string name, std::string value) {
    facts.emplace_back(std::move(name), std::move(value));
  };
  row("model", printable(model.path, kPathBytes));
  if (!model.problem.empty()) {
    row("runs", "no: " + model.problem);
  } else {
    const ModelSurvey& survey = model.survey;
    row("runs", fmt::format("yes: {}, {} weights in {}", survey.architecture, format_count(survey.n_params),
                            format_size(survey.weight_bytes)));
    if (!survey.ids_only.empty()) row("", "on token ids only: " + survey.ids_only);
    row("memory", fit_text(survey));
    if (!survey.gpu.names.empty()) row("GPU layers", gpu_text(survey));
    row("context", context_text(survey));
    const ModelSpeed speed = speed_of(d);
    const std::string not_measured = fmt::format("not measured: {}", d.not_measured);
    row("generation",
        speed.generation_empty > 0
            ? fmt::format("at most {} tokens/s ({} of weights a token, by the read bandwidth), {} "
                          "at the end of the context",
                          rate_text(speed.generation_empty), format_size(survey.bytes_per_token),
                          rate_text(speed.generation_full))
            : not_measured);
    row("prompts", speed.prompt > 0
                       ? fmt::format("at most {} tokens/s ({} multiply-adds a token)",
                                     rate_text(speed.prompt), format_count(survey.macs_per_token))
                       : not_measured);
  }
  return facts_text(facts) + "\n";
}

void append_model_json(const Diagnosis& d, JsonWriter* json) {
  const ModelDiagnosis& model = *d.model;
  json->key("model").begin_object().field("path", model.path).field("runs", model.problem.empty());
  if (!model.problem.empty()) {
    json->field("problem", model.problem).end_object();
    return;
  }
  const ModelSurvey& survey = model.survey;
  const ModelSpeed speed = speed_of(d);
  json->field("architecture", survey.architecture)
      .field("n_params", survey.n_params)
      .field("ids_only", survey.ids_only)
      .field("weight_bytes", survey.weight_bytes)
      .field("fits", model.fits())
      .field("needed_bytes", survey.memory.total())
      .field("context", survey.context)
      .field("trained_context", survey.trained_context)
      .field("fitting_context", survey.fitting_context)
      .field("gpu_layers", uint64_t{survey.gpu.placement.n_moved})
      .field("bytes_per_token", survey.bytes_per_token)
      .field("macs_per_token", survey.macs_per_token);
  const auto rate = [&](const char* name, double value) {
    json->key(name);
    value > 0 ? json->value(value) : json->null();
  };
  rate("generation_tokens_per_second_at_most", speed.generation_empty);
  rate("generation_at_the_end_at_most", speed.generation_full);
  rate("prompt_tokens_per_second_at_most", speed.prompt);
  json->end_object();
}

std::string quota_text(int quota) { return quota == 0 ? "none" : fmt::format("{} CPUs", quota); }

}  // namespace

std::vector<Diagnosis::Choice> Diagnosis::choices() const {
  return {
      {"kernels", kernels->name, explain_kernel_set(*kernels, features), "--isa"},
      {"threads", std::to_string(n_threads), threads_given ? "asked for" : reason_of_usable(cpus),
       "--threads"},
      {"context", "4096", "or the length that the model was trained on, where that is less", "--ctx"},
      {"KV cache", "f16", "half of f32's memory", "--kv"},
      {"model file", "mapped", "shared with other processes", "--no-mmap"},
      {"tensor check", "small files", "below 64 MiB it takes no time", "--check-tensors"},
      {"layers on GPU", gpus.empty() ? "0" : "as many as fit", gpus.empty() ? no_gpu : "", "--gpu-layers"}};
}

std::string render_text(const Diagnosis& d) {
  Facts machine;
  const auto row = [&](std::string name, std::string value) {
    machine.emplace_back(std::move(name), std::move(value));
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
  if (d.gpus.empty()) row("GPU", "none: " + d.no_gpu);
  for (const GpuFound& gpu : d.gpus)
    row("GPU", fmt::format("{}{}, {}, {} free", gpu.name,
                           gpu.driver.empty() ? "" : fmt::format(" (driver: CUDA {})", gpu.driver),
                           format_size(gpu.total), format_size(gpu.free)));
  const std::string not_measured = fmt::format("not measured: {}", d.not_measured);
  row("read bandwidth", d.read_rate > 0
                            ? fmt::format("{:.1f} GB/s (Mistral-7B Q4_0: at most {:.1f} tokens/s)",
                                          d.read_rate * 1e-9, d.read_rate / kExampleBytes)
                            : not_measured);
  row("multiply rate", d.multiply_rate > 0
                           ? fmt::format("{:.1f} G int8 multiply-adds/s ({})", d.multiply_rate * 1e-9,
                                         d.kernels->probe->multiply_name)
                           : not_measured);
  std::string text = facts_text(machine);
  if (d.model) text = model_text(d) + text;
  text += "\nWhat runs without being asked for:\n";
  for (const Diagnosis::Choice& choice : d.choices()) {
    const bool both = !choice.reason.empty() && !choice.override_with.empty();
    const std::string line =
        fmt::format("{}: {} ({}{}{}{})", choice.name, choice.value, choice.reason, both ? "; " : "",
                    choice.override_with.empty() ? "" : "override: ", choice.override_with);
    text += wrap(line, stdout_width(SIZE_MAX), 2) + "\n";
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
  json.key("gpus").begin_array();
  for (const GpuFound& gpu : d.gpus)
    json.begin_object()
        .field("name", gpu.name)
        .field("driver", gpu.driver)
        .field("total_bytes", gpu.total)
        .field("free_bytes", gpu.free)
        .end_object();
  json.end_array();
  json.field("n_threads", d.n_threads).key("read_bytes_per_second");
  d.read_rate > 0 ? json.value(d.read_rate) : json.null();
  json.key("multiply_macs_per_second");
  d.multiply_rate > 0 ? json.value(d.multiply_rate) : json.null();
  json.field("multiply_instruction", d.kernels->probe->multiply_name);
  if (d.model) append_model_json(d, &json);
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
