#include "cli/inspection.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <unordered_map>

#include "cli/report.h"
#include "convert/checkpoint.h"
#include "convert/safetensors.h"
#include "convert/tensor_names.h"
#include "quant/gguf_files.h"
#include "quant/gguf_reader.h"
#include "quant/json/json.h"
#include "quant/json/json_writer.h"
#include "quant/mapped_file.h"
#include "runtime/model.h"

namespace quern {
namespace {

constexpr uint64_t kShownElements = 8;  // of an array
constexpr size_t kShownBytes = 128;     // of a text, for people

Inspection::Entry number_entry(std::string key, uint64_t value) {
  return {std::move(key), "", std::to_string(value), std::to_string(value)};
}

Inspection::Entry text_entry(std::string key, std::string type, std::string_view text) {
  return {std::move(key), std::move(type), printable(text, kShownBytes), json_quote(text)};
}

// A scalar of GGUF's metadata: into a document, and as text.
std::string describe_scalar(const GgufValue& value, JsonWriter* json) {
  if (const auto string = value.as_string()) {
    json->value(*string);
    return printable(*string, kShownBytes);
  }
  const auto shown = [&](auto plain) {
    json->value(plain);
    return fmt::format("{}", plain);
  };
  if (const auto boolean = value.as_bool()) return shown(*boolean);
  // The shortest decimal of a float: 1e-05, not 9.999999747378752e-06.
  if (value.type == GgufType::kF32) return shown(static_cast<float>(value.as_float().value_or(0)));
  if (const auto number = value.as_float()) return shown(*number);
  if (const auto natural = value.as_uint()) return shown(*natural);
  return shown(value.as_int().value_or(0));
}

// Bytes that the first element of `payload` takes.
size_t element_bytes(GgufType type, std::span<const uint8_t> payload) {
  if (type != GgufType::kString) return size_of(type);
  uint64_t length = 0;
  std::memcpy(&length, payload.data(), sizeof length);
  return sizeof length + length;
}

Inspection::Entry describe_value(const GgufReader::KeyValue& entry) {
  const GgufValue& value = entry.value;
  Inspection::Entry out{std::string(entry.key), std::string(to_string(value.type)), "", ""};
  JsonWriter json;
  if (value.type != GgufType::kArray) {
    out.text = describe_scalar(value, &json);
    out.json = json.text();
    return out;
  }
  out.type = fmt::format("{}[{}]", to_string(value.element_type), value.count);
  std::span<const uint8_t> rest = value.payload;
  json.begin_object().field("count", value.count).key("first").begin_array();
  for (uint64_t i = 0; i < std::min(value.count, kShownElements); ++i) {
    const size_t size = element_bytes(value.element_type, rest);
    const GgufValue element{value.element_type, GgufType::kU8, 1, rest.first(size)};
    rest = rest.subspan(size);
    out.text += (i == 0 ? "" : ", ") + describe_scalar(element, &json);
  }
  if (value.count > kShownElements) out.text += ", ...";
  out.json = json.end_array().end_object().text();
  return out;
}

// A part of a split model whose other parts are not there, or do not fit, is shown by itself.
std::optional<GgufFiles> open_all_parts(const std::string& path, const Notice& notice) try {
  return std::optional<GgufFiles>(std::in_place, path, true, notice);
} catch (const Error& error) {
  const MappedFile file(path);
  if (GgufReader(file.bytes(), path).uint_or(kSplitCountKey, 1, 0, UINT16_MAX) <= 1) throw;
  if (notice) notice(fmt::format("warning: {}; this part is shown alone", error.what()));
  return std::nullopt;
}

// What running the file would say of it, without its name.
void judge(const std::string& path, Inspection* out) try {
  out->ids_only = Model::check(path, {});
  out->runs_not = "";
} catch (const Error& error) {
  const std::string message = error.what(), name = printable(path, kPathBytes) + ": ";
  out->runs_not = message.starts_with(name) ? message.substr(name.size()) : message;
}

void describe_gguf(const GgufReader& gguf, std::span<const MappedFile> files, Inspection* out) {
  uint64_t n_bytes = 0;
  for (const MappedFile& file : files) n_bytes += file.bytes().size();
  out->header = {number_entry("version", gguf.version()),
                 number_entry("alignment", gguf.alignment()),
                 number_entry("data_offset", gguf.data_offset()),
                 number_entry("file_bytes", n_bytes),
                 number_entry("n_metadata", gguf.metadata().size()),
                 number_entry("n_tensors", gguf.tensors().size())};
  if (files.size() > 1) out->header.push_back(number_entry("n_files", files.size()));
  for (const GgufReader::KeyValue& entry : gguf.metadata()) out->metadata.push_back(describe_value(entry));
  for (const TensorView& tensor : gguf.tensors()) {
    const MappedFile& file = *std::find_if(files.begin(), files.end(), [&](const MappedFile& candidate) {
      return tensor.data >= candidate.bytes().data() &&
             tensor.data < candidate.bytes().data() + candidate.bytes().size();
    });
    const std::string name =
        files.size() > 1 ? std::filesystem::path(file.path()).filename().string() : std::string();
    out->tensors.push_back({tensor.name, tensor.shape, block_format(tensor.dtype).name, tensor.n_elements(),
                            tensor.n_bytes, static_cast<uint64_t>(tensor.data - file.bytes().data()), name,
                            tensor.layout});
  }
  out->zero_tails = find_zero_tails(gguf.tensors(), gguf.find("tokenizer.ggml.token_type"));
}

Inspection inspect_gguf(const std::string& path, const Notice& notice) {
  Inspection out;
  out.path = path;
  out.kind = "GGUF";
  if (const std::optional<GgufFiles> all = open_all_parts(path, notice)) {
    describe_gguf(all->gguf(), all->files(), &out);
    judge(all->gguf().path(), &out);
    return out;
  }
  const MappedFile file(path);
  describe_gguf(GgufReader(file.bytes(), path, notice), {&file, 1}, &out);
  return out;
}

// Of a float tensor of a checkpoint. In the rows of embedding and output only large parts count: how many
// rows have a token, the tokenizer knows.
void add_zero_tail(const SafetensorsTensor& tensor, std::span<const uint8_t> file, Inspection* out) {
  if (!tensor.type->dtype) return;
  const TensorView view{tensor.name, *tensor.type->dtype, tensor.shape, file.data() + tensor.begin,
                        tensor.end - tensor.begin};
  auto tail = find_zero_tail(view);
  const bool has_tokens = tensor.name.find("embed") != tensor.name.npos || is_output_tensor(tensor.name);
  if (!tail || (has_tokens && tail->n_rows * 4 < tail->rows)) return;
  out->zero_tails.push_back(std::move(*tail));
}

Inspection::Tensor describe_tensor(const SafetensorsTensor& tensor, std::string file) {
  uint64_t n_elements = 1;
  for (const uint64_t size : tensor.shape) n_elements *= size;  // checked by the reader
  return {tensor.name,  tensor.shape,    tensor.type->name,  n_elements, tensor.end - tensor.begin,
          tensor.begin, std::move(file), TensorLayout::kRows};
}

Inspection inspect_safetensors(const std::string& path) {
  const MappedFile file(path);
  const SafetensorsHeader header = read_safetensors_header(file.bytes(), path);
  Inspection out;
  out.path = path;
  out.kind = "safetensors";
  out.header = {number_entry("data_offset", header.data_offset),
                number_entry("file_bytes", file.bytes().size()),
                number_entry("n_tensors", header.tensors.size())};
  for (const auto& [key, value] : header.metadata) out.metadata.push_back(text_entry(key, "string", value));
  for (const SafetensorsTensor& tensor : header.tensors) {
    out.tensors.push_back(describe_tensor(tensor, ""));
    add_zero_tail(tensor, file.bytes(), &out);
  }
  return out;
}

Inspection inspect_checkpoint(const std::string& path, const Notice& notice) {
  const CheckpointFiles files = open_checkpoint_files(path, notice);
  std::string config_path;
  const Json config = read_checkpoint_config(files, &config_path);
  Inspection out;
  out.path = path;
  out.kind = "checkpoint";
  out.header = {
      text_entry("layout", "", files.dialect == ConfigDialect::kHuggingFace ? "Hugging Face" : "Mistral"),
      text_entry("config", "", config_path), number_entry("n_files", files.files.size()),
      number_entry("n_tensors", files.tensors.size())};
  if (const Json::Object* members = config.as_object())
    for (const JsonMember& member : *members)
      out.metadata.push_back(text_entry(member.key, "", member.value.describe()));
  for (const CheckpointFiles::Tensor& tensor : files.tensors) {
    const std::filesystem::path file = files.files[tensor.file].path();
    out.tensors.push_back(describe_tensor(tensor.info, file.filename().string()));
    add_zero_tail(tensor.info, files.files[tensor.file].bytes(), &out);
  }
  return out;
}

// Any text of the file as one cell.
std::string cell(std::string_view text) { return printable(text, kShownBytes); }

void append_entries(const std::vector<Inspection::Entry>& entries, std::string* out) {
  Table table({{"key", Table::Align::kLeft}, {"type", Table::Align::kLeft}, {"value", Table::Align::kLeft}});
  for (const Inspection::Entry& entry : entries) table.add_row({cell(entry.key), entry.type, entry.text});
  *out += '\n';
  *out += table.render(stdout_width(SIZE_MAX));
}

void append_tensors(const Inspection& inspection, std::string* out) {
  std::vector<Table::Column> columns = {{"tensor", Table::Align::kLeft},
                                        {"shape", Table::Align::kLeft},
                                        {"format", Table::Align::kLeft},
                                        {"bytes", Table::Align::kRight},
                                        {"offset", Table::Align::kRight}};
  const bool with_files = std::any_of(inspection.tensors.begin(), inspection.tensors.end(),
                                      [](const auto& tensor) { return !tensor.file.empty(); });
  if (with_files) columns.push_back({"file", Table::Align::kLeft});
  Table table(columns);
  for (const Inspection::Tensor& tensor : inspection.tensors) {
    const std::string format =
        fmt::format("{}{}", tensor.format, tensor.layout == TensorLayout::kPanels ? " p16" : "");
    std::vector<std::string> row = {cell(tensor.name), to_string(tensor.shape), format,
                                    std::to_string(tensor.bytes), fmt::format("{:#x}", tensor.offset)};
    if (with_files) row.push_back(cell(tensor.file));
    table.add_row(std::move(row));
  }
  *out += '\n';
  *out += table.render(stdout_width(SIZE_MAX));
}

void append_totals(const Inspection& inspection, std::string* out) {
  Table table({{"format", Table::Align::kLeft},
               {"tensors", Table::Align::kRight},
               {"weights", Table::Align::kRight},
               {"bytes", Table::Align::kRight},
               {"bits per weight", Table::Align::kRight}});
  const auto add = [&](const Inspection::FormatTotal& total) {
    table.add_row({std::string(total.format), std::to_string(total.n_tensors),
                   std::to_string(total.n_elements), std::to_string(total.bytes),
                   fmt::format("{:.3f}", bits_per_weight(total))});
  };
  for (const Inspection::FormatTotal& total : inspection.totals()) add(total);
  add(inspection.total());
  *out += '\n';
  *out += table.render(stdout_width(SIZE_MAX));
}

}  // namespace

std::vector<Inspection::FormatTotal> Inspection::totals() const {
  std::vector<FormatTotal> totals;
  std::unordered_map<std::string_view, size_t> place;
  for (const Tensor& tensor : tensors) {
    const auto [found, is_new] = place.try_emplace(tensor.format, totals.size());
    if (is_new) totals.push_back({tensor.format});
    FormatTotal& total = totals[found->second];
    ++total.n_tensors;
    total.n_elements += tensor.n_elements;
    total.bytes += tensor.bytes;
  }
  return totals;
}

Inspection::FormatTotal Inspection::total() const {
  FormatTotal sum{"all"};
  for (const FormatTotal& total : totals()) {
    sum.n_tensors += total.n_tensors;
    sum.n_elements += total.n_elements;
    sum.bytes += total.bytes;
  }
  return sum;
}

double bits_per_weight(const Inspection::FormatTotal& total) {
  if (total.n_elements == 0) return 0;
  return static_cast<double>(total.bytes) * 8 / static_cast<double>(total.n_elements);
}

Inspection inspect(const std::string& path, const Notice& notice) {
  if (std::error_code error; std::filesystem::is_directory(path, error))
    return inspect_checkpoint(path, notice);
  return path.ends_with(".safetensors") ? inspect_safetensors(path) : inspect_gguf(path, notice);
}

std::string render_text(const Inspection& inspection) {
  std::string out = fmt::format("{}: {}\n", cell(inspection.path), inspection.kind);
  for (const Inspection::Entry& entry : inspection.header)
    out += fmt::format("  {:<12} {}\n", entry.key, entry.text);
  if (inspection.runs_not)
    out += fmt::format("  {:<12} {}\n", "runs",
                       !inspection.runs_not->empty() ? "no: " + *inspection.runs_not
                       : inspection.ids_only.empty() ? "yes"
                                                     : "on token ids only: " + inspection.ids_only);
  if (!inspection.metadata.empty()) append_entries(inspection.metadata, &out);
  if (!inspection.tensors.empty()) {
    append_tensors(inspection, &out);
    append_totals(inspection, &out);
  }
  if (const std::string warning = zero_tail_warning(inspection.path, inspection.zero_tails); !warning.empty())
    out += "\n" + warning + "\n";
  return out;
}

std::string render_json(const Inspection& inspection) {
  JsonWriter json;
  json.begin_object().field("path", inspection.path).field("kind", inspection.kind);
  for (const Inspection::Entry& entry : inspection.header) json.key(entry.key).literal(entry.json);
  if (inspection.runs_not) {
    json.field("runs", inspection.runs_not->empty());
    if (!inspection.runs_not->empty()) json.field("runs_not", *inspection.runs_not);
    if (!inspection.ids_only.empty()) json.field("ids_only", inspection.ids_only);
  }
  json.key("metadata").begin_object();
  for (const Inspection::Entry& entry : inspection.metadata) {
    json.key(entry.key).begin_object();
    if (!entry.type.empty()) json.field("type", entry.type);
    json.key("value").literal(entry.json).end_object();
  }
  json.end_object().key("tensors").begin_array();
  for (const Inspection::Tensor& tensor : inspection.tensors) {
    json.begin_object()
        .field("name", tensor.name)
        .field("shape", tensor.shape)
        .field("format", tensor.format)
        .field("layout", to_string(tensor.layout))
        .field("bytes", tensor.bytes)
        .field("offset", tensor.offset);
    if (!tensor.file.empty()) json.field("file", tensor.file);
    json.end_object();
  }
  json.end_array().key("zero_tails").begin_array();
  for (const ZeroTail& tail : inspection.zero_tails)
    json.begin_object()
        .field("tensor", tail.tensor)
        .field("first_row", tail.first_row)
        .field("n_rows", tail.n_rows)
        .end_object();
  json.end_array().key("formats").begin_array();
  for (const Inspection::FormatTotal& total : inspection.totals())
    json.begin_object()
        .field("format", total.format)
        .field("n_tensors", total.n_tensors)
        .field("n_weights", total.n_elements)
        .field("bytes", total.bytes)
        .field("bits_per_weight", bits_per_weight(total))
        .end_object();
  const Inspection::FormatTotal total = inspection.total();
  json.end_array()
      .field("n_weights", total.n_elements)
      .field("tensor_bytes", total.bytes)
      .field("bits_per_weight", bits_per_weight(total));
  return json.end_object().text() + "\n";
}

}  // namespace quern
