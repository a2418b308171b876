// quern convert: a checkpoint or a GGUF -> one quantized GGUF file.
#include "cli/arguments.h"
#include "cli/calibrated_conversion.h"
#include "cli/command.h"
#include "cli/model_progress.h"
#include "cli/parse.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "convert/convert.h"
#include "quant/format_size.h"
#include "quant/json/json_writer.h"
#include "quant/machine/cpu_count.h"
#include "quant/machine/memory.h"
#include "quant/machine/stop_signal.h"
#include "quant/recipe.h"
#include "runtime/chat_format.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace quern {
namespace {

struct Options {
  ConvertOptions convert;
  CalibrationArguments calibration;
  std::string layout;
  std::vector<std::string> tensor_types;
  bool verbose = false, json = false;
};

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser(
      "convert",
      "Turns a checkpoint folder (safetensors) or a GGUF into one quantized GGUF file, in one pass. "
      "The target appears whole or not at all. --layout p16 stores the matrices as the kernels read "
      "them: such a file starts at once and is shared between processes, and only quern reads it; "
      "--layout standard turns it back, byte for byte.",
      "  quern convert Mistral-7B-Instruct-v0.2 -o mistral.gguf\n"
      "  quern convert Mistral-7B-Instruct-v0.2 -o q8.gguf --type q8_0 --verbose\n"
      "  quern convert Mistral-7B-Instruct-v0.2 -o mistral-q4km.gguf --type q4_k_m\n"
      "  quern convert SmolLM2-135M -o smollm2-q4.gguf --type q4_0 --calibrate\n"
      "  quern convert model-f16.gguf -o model-q4.gguf --type q4_0 --dry-run\n"
      "  quern convert mistral.gguf -o mistral-p16.gguf --layout p16\n"
      "  quern convert model-00001-of-00003.gguf -o model.gguf\n"
      "  quern convert model.gguf -o parts.gguf --split-size 4G");
  std::vector<std::string> types;
  for (const Recipe& recipe : recipes()) types.emplace_back(recipe.name);
  ConvertOptions& convert = options->convert;
  parser.positional("SOURCE",
                    "A Hugging Face or Mistral folder, or a GGUF file (of a split one the first; its "
                    "parts become one file)",
                    &convert.source);
  parser.text("-o,--output", "FILE", "The GGUF file to write (required)", &convert.output);
  parser.choice("--type", "Number format of the weights (default: q4_0; from a GGUF: as they are)", types,
                &convert.type,
                {{"q3_k", "q3_k_m"}, {"q4_k", "q4_k_m"}, {"q5_k", "q5_k_m"}});  // as llama-quantize has them
  parser.texts("--tensor-type", "PATTERN=FORMAT",
               "Format of the matrices whose names a regular expression fits; the first that fits counts",
               &options->tensor_types);
  parser.option("--output-type", "FORMAT", "Format of output.weight, or of the embedding that serves as it",
                [&](std::string_view name, const std::string& text) {
                  convert.formats.output = parse_written_format(name, text);
                });
  parser.option("--embedding-type", "FORMAT", "Format of token_embd.weight",
                [&](std::string_view name, const std::string& text) {
                  convert.formats.embedding = parse_written_format(name, text);
                });
  parser.flag("--pure", "One format for all matrices, without --type's exceptions", &convert.formats.pure);
  parser.text("--imatrix", "FILE",
              "Importance of the columns (llama.cpp's GGUF or .dat): the search weighs errors by it",
              &convert.importance);
  options->calibration.declare(parser);
  parser.choice("--layout", "Order of the bytes of matrices (default standard)", {"standard", "p16"},
                &options->layout);
  parser.option(
      "--split-size", "SIZE",
      "Write several files of at most SIZE (500M, 4G, 2GiB), OUT-00001-of-0000N.gguf, where one would be "
      "larger; the first of them is the model",
      [&convert](std::string_view name, const std::string& text) {
        convert.most_file_bytes = parse_bytes(name, text);
      });
  parser.flag("--force", "Replace an existing target", &convert.force);
  parser.flag("--dry-run",
              "Show the plan, write nothing; with --calibrate the model is loaded for its memory and time",
              &convert.dry_run);
  parser.flag("--strict", "Fail where a tensor cannot get the format of --type", &convert.strict);
  parser.flag("--no-tokenizer", "Write a file without a vocabulary", &convert.no_tokenizer);
  declare_pre_tokenizer(parser, &convert.pre_tokenizer);
  declare_threads(parser, &convert.n_threads);
  parser.flag("--verbose", "One line per tensor", &options->verbose);
  parser.flag("--json", "Print the report as one object", &options->json);
  if (!parser.parse(arguments)) return false;
  if (options->layout == to_string(TensorLayout::kPanels)) convert.layout = TensorLayout::kPanels;
  for (const std::string& text : options->tensor_types)
    convert.formats.tensors.push_back(parse_tensor_format(text));
  if (convert.output.empty()) fail(ErrorCode::kUsage, "--output is required (see quern convert --help)");
  options->calibration.check(convert);
  if (convert.output == "-")
    fail(ErrorCode::kUsage,
         "--output -: a GGUF is written in place, not as a stream; give a file name (./- for a file of that "
         "name)");
  return true;
}

std::string_view format_name(DType dtype) { return block_format(dtype).name; }

// "Q4_0", "Q4_0 p16"
std::string format_written(const ConvertedTensor& tensor) {
  return fmt::format("{}{}", format_name(tensor.to), tensor.layout == TensorLayout::kPanels ? " p16" : "");
}

std::string tensor_line(const ConvertedTensor& tensor) {
  const std::string error =
      std::isnan(tensor.relative_rms_error) ? "" : fmt::format("  error {:.5f}", tensor.relative_rms_error);
  return fmt::format("{:<32} {:<16} {:>5} -> {:<8} {:>12} bytes{}", tensor.name, to_string(tensor.shape),
                     format_name(tensor.from), format_written(tensor), tensor.bytes_out, error);
}

double gigabytes_per_second(const ConvertReport& report) {
  return report.seconds > 0 ? static_cast<double>(report.bytes_in) / report.seconds / 1e9 : 0.0;
}

void append_findings(const ConvertReport& report, const std::vector<std::string>& notices, JsonWriter* json) {
  json->key("unwritten").begin_array();
  for (const UnwrittenTensor& tensor : report.unwritten)
    json->begin_object()
        .field("name", tensor.name)
        .field("file", tensor.file)
        .field("reason", tensor.reason)
        .end_object();
  json->end_array().field("unread_files", report.unread_files);
  json->key("zero_tails").begin_array();
  for (const ZeroTail& tail : report.zero_tails)
    json->begin_object()
        .field("tensor", tail.tensor)
        .field("first_row", tail.first_row)
        .field("n_rows", tail.n_rows)
        .end_object();
  json->end_array().field("n_requantized", report.n_requantized).field("notices", notices);
}

std::string report_json(const Options& options, const ConvertReport& report,
                        const std::vector<std::string>& notices, const CalibratedConversion* calibrated) {
  JsonWriter json;
  json.begin_object()
      .field("source", options.convert.source)
      .field("output", options.convert.output)
      .field("files", report.files)
      .field("type", report.type)
      .field("layout", to_string(options.convert.layout))
      .field("dry_run", options.convert.dry_run)
      .field("bytes_in", report.bytes_in)
      .field("tensor_bytes", report.tensor_bytes)
      .field("file_bytes", report.file_bytes)
      .field("n_params", report.n_params)
      .field("bits_per_weight", report.bits_per_weight)
      .field("threads", options.convert.n_threads)
      .field("seconds", report.seconds)
      .field("fsync_seconds", report.fsync_seconds)
      .field("gigabytes_per_second", gigabytes_per_second(report));
  append_findings(report, notices, &json);
  if (calibrated != nullptr) calibrated->append_json(&json);
  json.key("tensors").begin_array();
  for (const ConvertedTensor& tensor : report.tensors)
    json.begin_object()
        .field("name", tensor.name)
        .field("source_name", tensor.source_name)
        .field("shape", tensor.shape)
        .field("from", format_name(tensor.from))
        .field("to", format_name(tensor.to))
        .field("wanted", format_name(tensor.wanted))
        .field("layout", to_string(tensor.layout))
        .field("weighted", tensor.weighted)
        .field("bytes_in", tensor.bytes_in)
        .field("bytes_out", tensor.bytes_out)
        .field("relative_rms_error", tensor.relative_rms_error)
        .end_object();
  return json.end_array().end_object().text() + "\n";
}

void print_worst_tensors(std::vector<ConvertedTensor> tensors) {
  constexpr size_t kShown = 3;
  const auto end = std::remove_if(tensors.begin(), tensors.end(),
                                  [](const auto& tensor) { return !(tensor.relative_rms_error > 0); });
  const size_t n = std::min<size_t>(kShown, static_cast<size_t>(end - tensors.begin()));
  std::partial_sort(tensors.begin(), tensors.begin() + n, end,
                    [](const auto& a, const auto& b) { return a.relative_rms_error > b.relative_rms_error; });
  if (n > 0) write_out("largest relative RMS errors:\n");
  for (size_t i = 0; i < n; ++i)
    print_out("  {:.5f}  {} ({})\n", tensors[i].relative_rms_error, tensors[i].name,
              format_name(tensors[i].to));
}

void print_summary(const Options& options, const ConvertReport& report) {
  if (options.convert.dry_run)
    for (const ConvertedTensor& tensor : report.tensors) write_out(tensor_line(tensor) + "\n");
  const std::string target =
      report.files.size() == 1 ? options.convert.output
                               : fmt::format("{} and {} more", report.files.front(), report.files.size() - 1);
  print_out("{}{}: {} ({} bytes), {} tensors, {} weights, {:.2f} bits per weight\n",
            options.convert.dry_run ? "would write " : "", target, format_size(report.file_bytes),
            report.file_bytes, report.tensors.size(), format_count(report.n_params), report.bits_per_weight);
  if (options.convert.dry_run) return;
  if (options.calibration.calibrate)  // whose own line says how long that took
    print_out("read {}; {} to flush to the disk\n", format_size(report.bytes_in),
              format_duration(report.fsync_seconds));
  else
    print_out("read {} in {} ({:.2f} GB/s), then {} to flush to the disk\n", format_size(report.bytes_in),
              format_duration(report.seconds), gigabytes_per_second(report),
              format_duration(report.fsync_seconds));
  print_worst_tensors(report.tensors);
}

}  // namespace

int run_convert(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  require_model_path(options.convert.source);
  if (options.convert.n_threads == 0) {
    const CpuCount cpus = count_cpus();
    options.convert.n_threads = cpus.usable;
    print_notice("threads: {} ({}; override: --threads)", cpus.usable, reason_of_usable(cpus));
  }

  const StopScope stop;
  ProgressBar bar;
  ConvertCallbacks callbacks;
  std::vector<std::string> notices;
  callbacks.notice = [&](std::string_view line) {
    bar.clear();
    notices.emplace_back(line);
    notice(line);
  };
  callbacks.on_progress = [&](const ConvertProgress& p) { bar.update(p.bytes_done, p.bytes_total); };
  if (options.verbose && !options.convert.dry_run)
    callbacks.on_tensor = [&](const ConvertedTensor& tensor) {
      bar.clear();
      notice(tensor_line(tensor));
    };
  callbacks.recognise_chat_format = [](const Vocabulary& vocabulary) {
    return std::string(recognise_chat_format(vocabulary));
  };
  callbacks.available_memory = available_memory;
  callbacks.stop = [&] { return stop.requested(); };
  std::optional<CalibratedConversion> calibrated;
  if (options.calibration.calibrate) {
    calibrated.emplace(options.calibration, options.convert, callbacks.stop);
    callbacks.other_encoder = calibrated->encoder();
  }
  const ConvertReport report = convert(options.convert, callbacks);
  bar.clear();
  if (calibrated && !options.convert.dry_run) calibrated->remove_state();

  if (options.json) {
    write_out(report_json(options, report, notices, calibrated ? &*calibrated : nullptr));
    return 0;
  }
  print_summary(options, report);
  if (calibrated && !options.convert.dry_run) write_out(calibrated->summary());
  return 0;
}

}  // namespace quern
