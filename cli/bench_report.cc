#include "cli/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "cli/build_info.h"
#include "cli/report.h"
#include "quant/format_size.h"
#include "quant/json/json_writer.h"
#include "quant/median.h"
#include "runtime/hparams.h"

namespace quern {
namespace {

// llama.cpp's names of general.file_type.
std::string_view file_type_name(uint32_t file_type) {
  static constexpr struct {
    uint32_t id;
    std::string_view name;
  } kNames[] = {
      {0, "all F32"},
      {1, "F16"},
      {2, "Q4_0"},
      {3, "Q4_1"},
      {7, "Q8_0"},
      {8, "Q5_0"},
      {9, "Q5_1"},
      {10, "Q2_K - Medium"},
      {11, "Q3_K - Small"},
      {12, "Q3_K - Medium"},
      {13, "Q3_K - Large"},
      {14, "Q4_K - Small"},
      {15, "Q4_K - Medium"},
      {16, "Q5_K - Small"},
      {17, "Q5_K - Medium"},
      {18, "Q6_K"},
      {19, "IQ2_XXS - 2.0625 bpw"},
      {20, "IQ2_XS - 2.3125 bpw"},
      {21, "Q2_K - Small"},
      {22, "IQ3_XS - 3.3 bpw"},
      {23, "IQ3_XXS - 3.0625 bpw"},
      {24, "IQ1_S - 1.5625 bpw"},
      {25, "IQ4_NL - 4.5 bpw"},
      {26, "IQ3_S - 3.4375 bpw"},
      {27, "IQ3_S mix - 3.66 bpw"},
      {28, "IQ2_S - 2.5 bpw"},
      {29, "IQ2_M - 2.7 bpw"},
      {30, "IQ4_XS - 4.25 bpw"},
      {31, "IQ1_M - 1.75 bpw"},
      {32, "BF16"},
      {36, "TQ1_0 - 1.69 bpw ternary"},
      {37, "TQ2_0 - 2.06 bpw ternary"},
      {38, "MXFP4 MoE"},
      {39, "NVFP4"},
  };
  for (const auto& row : kNames)
    if (row.id == file_type) return row.name;
  return "unknown type";
}

// "260K", "135M", "1.1B", "7B": what people call a model of so many weights. (llama.cpp goes by the number of
// layers and has no name for most.)
std::string size_class(uint64_t n_params) {
  const bool billions = n_params >= 950'000'000, millions = n_params >= 950'000;
  const double n = static_cast<double>(n_params) / (billions ? 1e9 : millions ? 1e6 : 1e3);
  const double fine_below = billions ? 3 : millions ? 10 : 0;  // where a tenth makes a difference
  const double rounded = n < fine_below ? std::round(n * 10) / 10 : std::round(n);
  return fmt::format("{}{}", rounded, billions ? 'B' : millions ? 'M' : 'K');
}

std::string size_cell(uint64_t bytes) { return format_size(bytes, SizeUnit::kMiB); }

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

// "34.6 GB/s", "198.2 GMAC/s": what a test did in a second.
std::string rate_cell(const BenchResult& result, double rate) {
  if (rate <= 0) return "";
  return fmt::format("{:.1f} {}", rate * 1e-9, result.is_prompt() ? "GMAC/s" : "GB/s");
}

// "91 % (88-93)": median, lowest and highest.
std::string share_cell(const BenchResult& result) {
  const std::vector<double> shares = result.shares();
  if (shares.empty()) return "";
  const auto [low, high] = std::minmax_element(shares.begin(), shares.end());
  return fmt::format("{:.0f} % ({:.0f}-{:.0f})", 100 * median(shares), 100 * *low, 100 * *high);
}

double attention_rate(const BenchResult& result, uint64_t work) {
  return result.attention.attention_seconds > 0
             ? static_cast<double>(work) / result.attention.attention_seconds
             : 0;
}

// "3.1 %, 25.1 GB/s": of the time, and the keys and values that it read in a second.
std::string attention_cell(const BenchResult& result) {
  const DeviceTimes& times = result.attention;
  if (times.attention_seconds <= 0) return "";
  const uint64_t work = result.is_prompt() ? times.attention_macs : times.attention_kv_bytes;
  return fmt::format("{:.1f} %, {}", 100 * result.attention_share(),
                     rate_cell(result, attention_rate(result, work)));
}

// "1.84x, 2.31 a pass"
std::string guesses_cell(const BenchResult& result) {
  if (result.gains.empty()) return "";
  return fmt::format("{:.2f}x, {:.2f} a pass", median(result.gains), result.tokens_per_pass);
}

// On a terminal that is too narrow the table gives up what -o json still has, the least telling columns
// first.
void make_room(size_t width, std::vector<Column>* columns) {
  const auto fits = [&] {
    size_t total = 1;
    for (const Column& column : *columns) total += static_cast<size_t>(std::abs(column.width)) + 3;
    return total <= width;
  };
  const auto drop = [&](std::initializer_list<std::string_view> titles) {
    for (const std::string_view title : titles)
      if (!fits()) std::erase_if(*columns, [title](const Column& column) { return column.title == title; });
  };
  if (fits()) return;
  Column& model = columns->front();
  model.width = -static_cast<int>(std::max(display_width(model.cell), display_width(model.title)));
  drop({"backend", "params", "attention", "work"});
  constexpr int kUsualSpeed = 17;  // "12345.67 ± 123.45"
  for (Column& column : *columns)
    if (!fits() && column.title == "t/s") column.width = kUsualSpeed;
  drop({"size", "of the peak", "threads", "model"});
}

// width: of the terminal's lines.
std::vector<Column> markdown_columns(const BenchModel& model, const BenchResult& result, size_t width) {
  std::vector<Column> columns = {{"model", -30, model.description},
                                 {"size", 10, size_cell(model.size)},
                                 {"params", 10, params_cell(model.n_params)},
                                 {"backend", -10, model.n_gpu_layers > 0 ? "CUDA" : "CPU"}};
  if (model.n_gpu_layers > 0) columns.push_back({"ngl", 3, std::to_string(model.n_gpu_layers)});
  columns.push_back({"threads", 7, std::to_string(result.n_threads)});
  if (model.kv_type != "f16") {  // shown where they are not the default
    columns.push_back({"type_k", 6, model.kv_type});
    columns.push_back({"type_v", 6, model.kv_type});
  }
  if (!model.use_mmap) columns.push_back({"mmap", 4, "0"});
  columns.push_back({"test", 13, test_name(result)});
  columns.push_back({"t/s", 20, fmt::format("{:.2f} ± {:.2f}", result.average_ts(), result.stddev_ts())});
  if (model.speculates) columns.push_back({"guesses", 19, guesses_cell(result)});
  if (model.probed) {
    columns.push_back({"work", 13, rate_cell(result, result.work_rate())});
    columns.push_back({"of the peak", 14, share_cell(result)});
    columns.push_back({"attention", 20, attention_cell(result)});
  }
  make_room(width, &columns);
  return columns;
}

std::string markdown_cell(std::string_view text, int width) {
  return width < 0 ? fmt::format("| {:<{}} ", text, -width) : fmt::format("| {:>{}} ", text, width);
}

std::string markdown_header(const BenchModel& model) {
  std::string titles, rule;
  for (const Column& column : markdown_columns(model, {}, stdout_width(SIZE_MAX))) {
    const auto width = static_cast<size_t>(std::abs(column.width));
    titles += markdown_cell(column.title, column.width);
    rule += "| " + (column.width < 0 ? std::string(width, '-') : std::string(width - 1, '-') + ":") + " ";
  }
  return titles + "|\n" + rule + "|\n";
}

std::string markdown_row(const BenchModel& model, const BenchResult& result) {
  std::string row;
  for (const Column& column : markdown_columns(model, result, stdout_width(SIZE_MAX)))
    row += markdown_cell(column.cell, column.width);
  return row + "|\n";
}

// What the columns behind llama-bench's mean, and what is true of a whole run.
std::string markdown_notes(const BenchModel& model, std::span<const BenchResult> results) {
  std::string notes;
  for (size_t begin = 0, end; begin < results.size(); begin = end) {
    const int n_threads = results[begin].n_threads;
    for (end = begin; end < results.size() && results[end].n_threads == n_threads;) ++end;
    std::vector<double> reads, multiplies;
    for (const BenchResult& result : results.subspan(begin, end - begin)) {
      std::vector<double>& peaks = result.is_prompt() ? multiplies : reads;
      peaks.insert(peaks.end(), result.limit.peaks.begin(), result.limit.peaks.end());
    }
    std::string peaks;
    if (!reads.empty())
      peaks += fmt::format("; plain read{} {:.1f} GB/s", model.reads_mapping ? " of the mapped file" : "",
                           median(reads) * 1e-9);
    if (!multiplies.empty())
      peaks += fmt::format("; {} {:.1f} GMAC/s", model.multiply_instruction, median(multiplies) * 1e-9);
    if (!peaks.empty())
      notes += fmt::format("peak: {} thread{}{}\n", n_threads, n_threads == 1 ? "" : "s", peaks);
  }
  if (results.empty() || results.front().first_token_ns == 0) return notes;
  const BenchResult& first = results.front();
  uint64_t peak_memory_bytes = 0;
  for (const BenchResult& result : results)
    peak_memory_bytes = std::max(peak_memory_bytes, result.peak_memory_bytes);
  notes += fmt::format("start: load {:.2f} s, first token of {} after {:.2f} s; peak memory {}\n",
                       static_cast<double>(first.load_ns) * 1e-9, test_name(first),
                       static_cast<double>(first.first_token_ns) * 1e-9, format_size(peak_memory_bytes));
  return notes;
}

std::string markdown_footer(const BenchModel& model, std::span<const BenchResult> results) {
  const std::string notes = model.probed ? markdown_notes(model, results) : "";
  return fmt::format("{}{}\nbuild: {} ({})\n", notes.empty() ? "" : "\n", notes, kBuildCommit,
                     QUERN_VERSION_NUMBER);
}

// With six decimals, as llama-bench writes what is not whole.
std::string fixed(double value) { return fmt::format("{:f}", value); }

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
  const auto real = [](std::string_view name, double value) { return Field{name, fixed(value), false}; };
  const auto nanoseconds = [&](std::string_view name, double value) {
    return number(name, static_cast<uint64_t>(value));
  };
  // The order of February 2025, with n_depth behind n_gen. Options that quern does not have stand with the
  // value that says so.
  return {text("build_commit", std::string(kBuildCommit)),
          number("build_number", QUERN_VERSION_NUMBER),
          text("cpu_info", model.cpu_info),
          text("gpu_info", model.gpu_info),
          text("backends", model.n_gpu_layers > 0 ? "CUDA" : "CPU"),
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
          number("n_gpu_layers", model.n_gpu_layers),
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

// What is not known is empty in csv, null in json.
std::vector<Field> more_fields(const BenchModel& model, const BenchResult& result) {
  const auto number = [](std::string_view name, double value) {
    return Field{name, value > 0 ? json_number(value) : "", false};
  };
  const auto count = [](std::string_view name, uint64_t value) {
    return Field{name, value > 0 ? fmt::format("{}", value) : "", false};
  };
  const std::vector<double> shares = result.shares();
  const auto extreme = [&](auto&& of) { return shares.empty() ? 0 : *of(shares.begin(), shares.end()); };
  const double share = median(shares);
  const double low = extreme([](auto a, auto b) { return std::min_element(a, b); });
  const double high = extreme([](auto a, auto b) { return std::max_element(a, b); });
  const auto if_prompt = [&](double value) { return result.is_prompt() ? value : 0; };
  const auto if_generation = [&](double value) { return result.is_generation() ? value : 0; };
  const bool has_read = if_generation(result.peak_rate()) > 0;
  const Field read_of{"read_of", !has_read ? "" : model.reads_mapping ? "mapped file" : "memory", has_read};
  const DeviceTimes& times = result.attention;
  return {count("load_ns", result.load_ns),
          count("first_token_ns", result.first_token_ns),
          count("peak_memory_bytes", result.peak_memory_bytes),
          number("weight_bytes_per_second", if_generation(result.work_rate())),
          number("read_bytes_per_second", if_generation(result.peak_rate())),
          read_of,
          number("read_share", if_generation(share)),
          number("read_share_min", if_generation(low)),
          number("read_share_max", if_generation(high)),
          number("layer_macs_per_second", if_prompt(result.work_rate())),
          number("multiply_macs_per_second", if_prompt(result.peak_rate())),
          number("multiply_share", if_prompt(share)),
          number("multiply_share_min", if_prompt(low)),
          number("multiply_share_max", if_prompt(high)),
          number("attention_share", result.attention_share()),
          number("attention_kv_bytes_per_second", attention_rate(result, times.attention_kv_bytes)),
          number("attention_macs_per_second", attention_rate(result, times.attention_macs)),
          count("n_sequences", result.n_sequences),
          number("tokens_per_pass", result.tokens_per_pass),
          number("speculation_gain", median(result.gains))};
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
  for (const Field& field : more_fields({}, {})) line += fmt::format(",{}", field.name);
  return line + "\n";
}

std::string csv_row(const BenchModel& model, const BenchResult& result) {
  std::string line;
  for (const Field& field : fields(model, result)) {
    if (!line.empty()) line += ',';
    line += csv_quote(field.text);
  }
  for (const Field& field : more_fields(model, result)) {
    line += ',';
    line += csv_quote(field.text);
  }
  return line + "\n";
}

std::string no_footer(const BenchModel&, std::span<const BenchResult>) { return ""; }

std::string json_header(const BenchModel&) { return "[\n"; }
std::string json_footer(const BenchModel&, std::span<const BenchResult>) { return "\n]\n"; }

// An object, its fields on lines of their own or all on one.
std::string json_fields(const BenchModel& model, const BenchResult& result, bool on_one_line) {
  JsonWriter json(on_one_line ? JsonWriter::Style::kCompact : JsonWriter::Style::kSpaced);
  const auto next_line = [&] {
    if (!on_one_line) json.line(4);
  };
  const auto add = [&](const Field& field) {
    next_line();
    json.key(field.name);
    if (field.text.empty() && !field.quoted)
      json.null();
    else
      field.quoted ? json.value(field.text) : json.literal(field.text);
  };
  const auto add_samples = [&](std::string_view name, const std::vector<double>& samples) {
    next_line();
    json.key(name).begin_array();
    for (const double sample : samples) json.literal(fixed(sample));
    json.end_array();
  };
  json.begin_object();
  for (const Field& field : fields(model, result)) add(field);
  next_line();
  json.field("samples_ns", result.samples_ns);
  add_samples("samples_ts", result.samples_ts());
  for (const Field& field : more_fields(model, result)) add(field);
  add_samples("samples_share", result.shares());
  if (!on_one_line) json.line(2);
  return json.end_object().text();
}

std::string json_object(const BenchModel& model, const BenchResult& result) {
  return "  " + json_fields(model, result, false);
}

std::string no_header(const BenchModel&) { return ""; }
std::string json_line(const BenchModel& model, const BenchResult& result) {
  return json_fields(model, result, true) + "\n";
}

}  // namespace

std::string describe_model(const HParams& hparams, uint64_t n_params) {
  return fmt::format("{} {} {}", hparams.architecture, size_class(n_params),
                     file_type_name(hparams.file_type));
}

std::span<const BenchFormat> bench_formats() noexcept {
  static constexpr BenchFormat kFormats[] = {
      {"md", markdown_header, markdown_row, "", markdown_footer},
      {"csv", csv_header, csv_row, "", no_footer},
      {"json", json_header, json_object, ",\n", json_footer},
      {"jsonl", no_header, json_line, "", no_footer},
  };
  return kFormats;
}

}  // namespace quern
