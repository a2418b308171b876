// quern doctor: what the machine has and gives, and what quern chooses on it.
#include <algorithm>
#include <optional>
#include <string>

#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/doctor.h"
#include "cli/model_progress.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "kernels/cuda/gpu_list.h"
#include "kernels/dispatch.h"
#include "kernels/machine_probe.h"
#include "quant/format_size.h"
#include "quant/machine/memory.h"

namespace quern {
namespace {

struct Options {
  bool json = false, no_probe = false;
  std::optional<std::string> model;
  SessionArguments session;
};

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser(
      "doctor",
      "Shows what this machine has, how fast it reads memory and multiplies, and what quern chooses by "
      "itself. Takes about two seconds and 1 GiB of memory. With a MODEL: whether it runs here, whether it "
      "fits, with which context, and how fast it is at most, before anything of it is loaded; the exit code "
      "is then "
      "what running it would end with.",
      "  quern doctor\n"
      "  quern doctor mistral.gguf --ctx 32k\n"
      "  quern doctor --no-probe\n"
      "  quern doctor --threads 1 --json");
  parser.optional_positional("MODEL", "A GGUF file to judge (default: none)", &options->model);
  options->session.declare(parser);
  parser.flag("--no-probe", "Measure nothing: done at once", &options->no_probe);
  parser.flag("--json", "Print a JSON object", &options->json);
  return parser.parse(arguments);
}

void measure(Diagnosis* d) {
  // Many short runs: the best of them met the least of whatever else runs.
  constexpr int kRuns = 60;
  constexpr double kSeconds = 0.005;
  if (d->available_bytes < ReadProbe::kBytes + ReadProbe::kBytes / 4) {
    d->not_measured = fmt::format("that takes {}", format_size(ReadProbe::kBytes + ReadProbe::kBytes / 4));
    return;
  }
  ReadProbe read(d->n_threads);
  for (int i = 0; i < kRuns; ++i) {
    d->read_rate = std::max(d->read_rate, read.rate(*d->kernels, d->n_threads, kSeconds));
    d->multiply_rate = std::max(d->multiply_rate, multiply_rate(*d->kernels, d->n_threads, kSeconds));
  }
}

ModelDiagnosis diagnose(const std::string& path, const ModelOptions& options) {
  ModelDiagnosis model;
  model.path = path;
  try {
    model.survey = Model::survey(path, options, [](std::string_view) {});
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed) throw;  // nothing was learned of the model
    const std::string message = error.what(), name = printable(path, kPathBytes) + ": ";
    model.problem = message.starts_with(name) ? message.substr(name.size()) : message;
  }
  return model;
}

}  // namespace

int run_doctor(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  if (options.model) require_model_path(*options.model);
  Diagnosis d;
  if (options.model) d.model = diagnose(*options.model, options.session.options());
  d.features = cpu_features();
  d.kernels = &select_kernel_set(options.session.model.isa);
  d.cpus = count_cpus();
  d.caches = cache_sizes();
  const int n_threads = options.session.model.n_threads;
  d.threads_given = n_threads > 0;
  d.n_threads = d.threads_given ? n_threads : d.cpus.usable;
  d.memory_bytes = total_memory();
  d.available_bytes = available_memory();
  d.huge_pages = huge_page_mode();
  const ModelOptions model_options = options.session.options();
  for (const auto& gpu : cuda::open_gpus(model_options.gpu))
    d.gpus.push_back({gpu->name(), gpu->driver(), gpu->free_memory(), gpu->total_memory()});
  if (d.gpus.empty()) d.no_gpu = cuda::why_no_gpu(model_options.gpu);
  if (options.no_probe)
    d.not_measured = "--no-probe";
  else
    measure(&d);
  write_out(options.json ? render_json(d) : render_text(d));
  if (!d.model) return 0;
  if (!d.model->problem.empty()) return static_cast<int>(ErrorCode::kMalformed);
  return d.model->fits() ? 0 : static_cast<int>(ErrorCode::kResource);
}

}  // namespace quern
