// quern inspect: what a file or a folder holds, and how two of them differ.
#include <optional>

#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/inspection.h"
#include "cli/model_progress.h"
#include "cli/model_source.h"
#include "cli/plot.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/tensor_diff.h"
#include "cli/text_input.h"
#include "quant/machine/cpu_count.h"
#include "quant/machine/stop_signal.h"

namespace quern {
namespace {

struct Options {
  std::string path;
  std::optional<std::string> base, plot;
  int n_threads = 0;
  bool json = false;
};

void check(const Options& options) {
  if (!options.plot) return;
  if (!options.base) fail(ErrorCode::kUsage, "--plot draws what --diff BASE finds, which is not there");
  for (const std::string& input : {options.path, *options.base})
    if (is_same_file(*options.plot, input))
      fail(ErrorCode::kUsage, "--plot: '{}' is an input; it would be overwritten",
           printable(*options.plot, kPathBytes));
  require_picture_path(*options.plot);
}

int diff(const Options& options) {
  const int n_threads = options.n_threads > 0 ? options.n_threads : count_cpus().usable;
  ModelOptions of_folders;
  of_folders.n_threads = n_threads;
  const auto a = open_model_source(options.path, of_folders, FolderTokenizer::kLeftOut),
             base = open_model_source(*options.base, of_folders, FolderTokenizer::kLeftOut);
  const StopScope stop;
  const std::vector<TensorDiff> diffs = diff_tensors(*a, *base, n_threads, [&] { return stop.requested(); });
  if (stop.requested()) return stop_exit_code();
  if (options.plot) write_picture(*options.plot, plot_tensor_errors(options.path, *options.base, diffs));
  write_out(options.json ? render_diff_json(diffs, options.path, *options.base)
                         : render_diff_text(diffs, options.path, *options.base));
  return 0;
}

}  // namespace

int run_inspect(std::span<const std::string> arguments) {
  Options options;
  Arguments parser(
      "inspect",
      "Shows header, metadata, tensors and sizes of a GGUF file, a safetensors file or a checkpoint "
      "folder, or what differs between the tensors of two models.",
      "  quern inspect model.gguf\n"
      "  quern inspect Mistral-7B-Instruct-v0.2 --json\n"
      "  quern inspect model-q4_0.gguf --diff Mistral-7B-Instruct-v0.2");
  parser.positional("PATH", "A GGUF file, a safetensors file or a checkpoint folder", &options.path);
  parser.text("--diff", "BASE",
              "Compare the weights with those of BASE, tensor by tensor: relative RMS error, largest "
              "difference. Both are GGUF files or checkpoint folders, which are read as BF16",
              &options.base);
  parser.text("--plot", "FILE.svg", "With --diff: draw the error of each tensor by layer", &options.plot);
  declare_threads(parser, &options.n_threads);
  parser.flag("--json", "Print one object", &options.json);
  if (!parser.parse(arguments)) return 0;
  check(options);
  require_model_path(options.path);
  if (options.base) require_model_path(*options.base);
  if (options.base) return diff(options);
  const Inspection inspection = inspect(options.path, notice);
  write_out(options.json ? render_json(inspection) : render_text(inspection));
  return 0;
}

}  // namespace quern
