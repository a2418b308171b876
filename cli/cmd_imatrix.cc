// quern imatrix: importance of the columns of a model's matrices, for convert --imatrix.
#include <algorithm>
#include <filesystem>
#include <vector>

#include "cli/command.h"
#include "cli/model_source.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/text_input.h"
#include "quant/json/json_writer.h"
#include "quant/machine/stop_signal.h"
#include "quant/output_file.h"
#include "runtime/importance_measurement.h"

namespace quern {
namespace {

struct Options {
  std::string model, output;
  std::optional<std::string> file;
  bool parse_special = false, force = false, json = false;
  uint64_t max_chunks = 0;
  SessionArguments session;
};

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser(
      "imatrix",
      "Measures on a text how much each column of a model's matrices counts (the mean square of "
      "what it is multiplied with), for quern convert --imatrix and llama-quantize.",
      "  quern imatrix model-bf16.gguf -f text.txt -o model.imatrix.gguf\n"
      "  quern imatrix model-bf16.gguf -f text.txt -o model.imatrix.gguf --chunks 100\n"
      "  quern convert model-bf16.gguf -o model-q4.gguf --type q4_k_m --imatrix model.imatrix.gguf");
  parser.positional("MODEL", "A GGUF file or a checkpoint folder", &options->model);
  parser.text("-f,--file", "FILE", "The text, less one trailing newline; '-' is stdin (required)",
              &options->file);
  parser.text("-o,--output", "FILE", "The file to write, in llama.cpp's GGUF format (required)",
              &options->output);
  add_parse_special(parser, &options->parse_special);
  parser.integer<uint64_t>("--chunks", "Chunks to measure at most (default: all)", 1, UINT32_MAX,
                           &options->max_chunks);
  parser.flag("--force", "Replace an existing file", &options->force);
  parser.flag("--json", "Print one object at the end", &options->json);
  options->session.model.context = 512;
  options->session.cpu_alone = true;  // it listens to the CPU's products
  options->session.declare(parser, "512: the size of a chunk");
  if (!parser.parse(arguments)) return false;
  if (!options->file) fail(ErrorCode::kUsage, "--file is required (see quern imatrix --help)");
  if (options->output.empty()) fail(ErrorCode::kUsage, "--output is required (see quern imatrix --help)");
  return true;
}

void report_chunk(uint64_t done, uint64_t total, double seconds) {
  if (done != 1) return;
  timing(fmt::format("imatrix: {:.2f} seconds per chunk - ETA {}", seconds,
                     format_duration(seconds * static_cast<double>(total - done))));
}

// Experts that no token chose: their columns count alike when the file is used.
void warn_of_unchosen(const std::vector<ImportanceSums>& entries) {
  for (const ImportanceSums& entry : entries) {
    const auto n = std::ranges::count(entry.counts, uint64_t{0});
    if (n > 0)
      notice(fmt::format(
          "warning: tensor '{}': {} of {} experts were never chosen; a longer text may reach them",
          printable(entry.tensor), n, entry.counts.size()));
  }
}

}  // namespace

int run_imatrix(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  refuse_input("--output", options.output, std::vector{options.model, *options.file});
  {  // What is wrong with it is said before the work.
    const OutputFile tried(options.output, 0, options.force);
  }
  TextInput input;
  input.file = options.file;
  const std::string text = read_text(input, TextRule::kExact);
  const std::unique_ptr<Model> model =
      load_model_or_checkpoint(options.model, options.session.options(), FolderTokenizer::kRead);
  const std::vector<TokenId> tokens = model->tokenizer().encode_prompt(text, role_of(options.parse_special));
  const StopScope stop;
  const ImportanceOptions measurement{model->context(), options.max_chunks};
  uint64_t n_chunks = 0;
  const double start = now_seconds();
  const std::vector<ImportanceSums> sums = measure_importance(
      *model, tokens, measurement,
      [&](uint64_t done, uint64_t total) {
        n_chunks = done;
        report_chunk(done, total, now_seconds() - start);
      },
      stop.flag());
  if (stop.requested()) return stop_exit_code();
  warn_of_unchosen(sums);
  const ImportanceOrigin origin{std::filesystem::path(*options.file).filename().string(),
                                static_cast<uint32_t>(n_chunks), static_cast<uint32_t>(model->context())};
  write_importance(options.output, sums, origin, options.force);
  const double seconds = now_seconds() - start;
  if (options.json) {
    JsonWriter json;
    json.begin_object()
        .field("output", options.output)
        .field("tensors", sums.size())
        .field("chunks", n_chunks)
        .field("n_ctx", model->context())
        .field("seconds", seconds);
    write_out(json.end_object().text() + "\n");
  } else {
    print_out("{}: importance of {} tensors, {} chunks of {} tokens, {}\n", options.output, sums.size(),
              n_chunks, model->context(), format_duration(seconds));
  }
  return 0;
}

}  // namespace quern
