#include "cli/bench_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "cli/json_writer.h"
#include "runtime/hparams.h"

namespace quern {
namespace {

template <class T>
double mean(const std::vector<T>& samples) {
  double sum = 0;
  for (const T sample : samples) sum += static_cast<double>(sample);
  return samples.empty() ? 0 : sum / static_cast<double>(samples.size());
}

template <class T>
double sample_stddev(const std::vector<T>& samples) {
  if (samples.size() < 2) return 0;
  const double average = mean(samples);
  double squares = 0;
  for (const T sample : samples) {
    const double difference = static_cast<double>(sample) - average;
    squares += difference * difference;
  }
  return std::sqrt(squares / static_cast<double>(samples.size() - 1));
}

// llama.cpp's names of general.file_type.
std::string_view file_type_name(uint32_t file_type) {
  static constexpr struct {
    uint32_t id;
    std::string_view name;
  } kNames[] = {
      {0, "all F32"},        {1, "F16"},
      {2, "Q4_0"},           {3, "Q4_1"},
      {7, "Q8_0"},           {8, "Q5_0"},
      {9, "Q5_1"},           {10, "Q2_K - Medium"},
      {11, "Q3_K - Small"},  {12, "Q3_K - Medium"},
      {13, "Q3_K - Large"},  {14, "Q4_K - Small"},
      {15, "Q4_K - Medium"}, {16, "Q5_K - Small"},
      {17, "Q5_K - Medium"}, {18, "Q6_K"},
      {32, "BF16"},
  };
  for (const auto& row : kNames)
    if (row.id == file_type) return row.name;
  return "unknown, may not work";
}

// llama.cpp's size class of a llama, which goes by the number of layers.
std::string_view size_class(const HParams& hparams) {
  switch (hparams.n_layers) {
    case 16:
    case 22:
      return "1B";
    case 26:
    case 28:
      return "3B";
    case 32:
      return hparams.vocab_size == 49152 ? "3B" : hparams.vocab_size < 40000 ? "7B" : "8B";
    case 36:
      return "8B";
    case 40:
      return "13B";
    case 48:
      return "34B";
    case 60:
      return "30B";
    case 80:
      return hparams.n_heads == hparams.n_kv_heads ? "65B" : "70B";
    default:
      return "?B";
  }
}

std::string size_cell(uint64_t bytes) {
  const double b = static_cast<double>(bytes);
  return bytes < 1ull << 30 ? fmt::format("{:.2f} MiB", b / 0x1p20) : fmt::format("{:.2f} GiB", b / 0x1p30);
}

std::string params_cell(uint64_t n) {
  const double x = static_cast<double>(n);
  return n < 1'000'000'000 ? fmt::format("{:.2f} M", x / 1e6) : fmt::format("{:.2f} B", x / 1e9);
}

// A column of the Markdown table: its width, and the cell's text. fmt counts the sign of "±" as one character
// wide, as the table needs.
struct Column {
  std::string_view title;
  int width;  // negative: to the left
  std::string cell;
};

std::vector<Column> markdown_columns(const BenchModel& model, const BenchResult& result) {
  std::vector<Column> columns = {{"model", -30, model.description},
                                 {"size", 10, size_cell(model.size)},
                                 {"params", 10, params_cell(model.n_params)},
                                 {"backend", -10, "CPU"},
                                 {"threads", 7, std::to_string(result.n_threads)}};
  if (model.kv_type != "f16") {  // shown where they are not the default
    columns.push_back({"type_k", 6, model.kv_type});
    columns.push_back({"type_v", 6, model.kv_type});
  }
  if (!model.use_mmap) columns.push_back({"mmap", 4, "0"});
  columns.push_back({"test", 13, test_name(result)});
  columns.push_back({"t/s", 20, fmt::format("{:.2f} ± {:.2f}", result.average_ts(), result.stddev_ts())});
  return columns;
}

std::string markdown_cell(std::string_view text, int width) {
  return width < 0 ? fmt::format("| {:<{}} ", text, -width) : fmt::format("| {:>{}} ", text, width);
}

std::string markdown_header(const BenchModel& model) {
  std::string titles, rule;
  for (const Column& column : markdown_columns(model, {})) {
    const auto width = static_cast<size_t>(std::abs(column.width));
    titles += markdown_cell(column.title, column.width);
    rule += "| " + (column.width < 0 ? std::string(width, '-') : std::string(width - 1, '-') + ":") + " ";
  }
  return titles + "|\n" + rule + "|\n";
}

std::string markdown_row(const BenchModel& model, const BenchResult& result) {
  std::string row;
  for (const Column& column : markdown_columns(model, result))
    row += markdown_cell(column.cell, column.width);
  return row + "|\n";
}

std::string markdown_footer() {
  return fmt::format("\nbuild: {} ({})\n", QUERN_VERSION, QUERN_VERSION_NUMBER);
}

// A field of the csv and json documents: `text` is bare for numbers and truth values.
struct Field {
  std::string_view name;
  std::string text;
  bool quoted;
};

std::vector<Field> fields(const BenchModel& model, const BenchResult& result) {
  const auto text = [](std::string_view name, std::string value) {
    return Field{name, std::move(value), true};
  };
  const auto number = [](std::string_view name, auto value) {
    return Field{name, fmt::format("{}", value), false};
  };
  const auto real = [](std::string_view name, double value) {
    return Field{name, fmt::format("{:f}", value), false};
  };
  const auto nanoseconds = [&](std::string_view name, double value) {
    return number(name, static_cast<uint64_t>(value));
  };
  // The order of February 2025, with n_depth behind n_gen. Options that quern does not have stand with the
  // value that says so.
  return {text("build_commit", QUERN_VERSION),
          number("build_number", QUERN_VERSION_NUMBER),
          text("cpu_info", model.cpu_info),
          text("gpu_info", ""),
          text("backends", "CPU"),
          text("model_filename", model.filename),
          text("model_type", model.description),
          number("model_size", model.size),
          number("model_n_params", model.n_params),
          number("n_batch", kBenchBatch),
          number("n_ubatch", kBenchMicroBatch),
          number("n_threads", result.n_threads),
          text("cpu_mask", "0x0"),
          number("cpu_strict", false),
          number("poll", 50),
          text("type_k", model.kv_type),
          text("type_v", model.kv_type),
          number("n_gpu_layers", 0),
          text("split_mode", "layer"),
          number("main_gpu", 0),
          number("no_kv_offload", false),
          number("flash_attn", false),
          text("tensor_split", "0.00"),
          number("use_mmap", model.use_mmap),
          number("embeddings", false),
          number("n_prompt", result.n_prompt),
          number("n_gen", result.n_gen),
          number("n_depth", result.n_depth),
          text("test_time", result.test_time),
          nanoseconds("avg_ns", result.average_ns()),
          nanoseconds("stddev_ns", result.stddev_ns()),
          real("avg_ts", result.average_ts()),
          real("stddev_ts", result.stddev_ts())};
}

std::string csv_quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

std::string csv_header(const BenchModel& model) {
  std::string line;
  for (const Field& field : fields(model, {}))
    line += fmt::format("{}{}", line.empty() ? "" : ",", field.name);
  return line + "\n";
}

std::string csv_row(const BenchModel& model, const BenchResult& result) {
  std::string line;
  for (const Field& field : fields(model, result)) {
    if (!line.empty()) line += ',';
    line += csv_quote(field.text);
  }
  return line + "\n";
}

std::string no_footer() { return ""; }

std::string json_header(const BenchModel&) { return "[\n"; }
std::string json_footer() { return "\n]\n"; }

std::string json_object(const BenchModel& model, const BenchResult& result) {
  std::string object = "  {\n";
  for (const Field& field : fields(model, result))
    object +=
        fmt::format("    \"{}\": {},\n", field.name, field.quoted ? json_quote(field.text) : field.text);
  object += fmt::format("    \"samples_ns\": [ {} ],\n", fmt::join(result.samples_ns, ", "));
  object += fmt::format("    \"samples_ts\": [ {:.6f} ]\n", fmt::join(result.samples_ts(), ", "));
  return object + "  }";
}

}  // namespace

double BenchResult::average_ns() const { return mean(samples_ns); }
double BenchResult::stddev_ns() const { return sample_stddev(samples_ns); }

std::vector<double> BenchResult::samples_ts() const {
  const auto n_tokens = static_cast<double>(n_prompt + n_gen);
  std::vector<double> samples;
  for (const uint64_t ns : samples_ns)
    samples.push_back(1e9 * n_tokens / static_cast<double>(std::max<uint64_t>(ns, 1)));
  return samples;
}

double BenchResult::average_ts() const { return mean(samples_ts()); }
double BenchResult::stddev_ts() const { return sample_stddev(samples_ts()); }

std::string describe_model(const HParams& hparams) {
  return fmt::format("{} {} {}", hparams.architecture, size_class(hparams),
                     file_type_name(hparams.file_type));
}

std::string test_name(const BenchResult& result) {
  std::string name = result.n_prompt > 0 ? fmt::format("pp{}", result.n_prompt) : "";
  if (result.n_gen > 0) name += fmt::format("{}tg{}", name.empty() ? "" : "+", result.n_gen);
  if (result.n_depth > 0) name += fmt::format(" @ d{}", result.n_depth);
  return name;
}

std::span<const BenchFormat> bench_formats() noexcept {
  static constexpr BenchFormat kFormats[] = {
      {"md", markdown_header, markdown_row, "", markdown_footer},
      {"csv", csv_header, csv_row, "", no_footer},
      {"json", json_header, json_object, ",\n", json_footer},
  };
  return kFormats;
}

}  // namespace quern
