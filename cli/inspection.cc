#include "cli/inspection.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <unordered_map>

#include "cli/json_writer.h"
#include "cli/report.h"
#include "convert/checkpoint.h"
#include "convert/json.h"
#include "convert/safetensors.h"
#include "quant/gguf_reader.h"
#include "quant/mapped_file.h"

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

// A scalar of GGUF's metadata.
void describe_scalar(const GgufValue& value, std::string* text, std::string* json) {
  if (const auto string = value.as_string()) {
    *text = printable(*string, kShownBytes);
    *json = json_quote(*string);
  } else if (const auto boolean = value.as_bool()) {
    *text = *json = *boolean ? "true" : "false";
  } else if (value.type == GgufType::kF32) {
    // Shown as the shortest decimal of a float: 1e-05, not 9.999999747378752e-06.
    const auto number = static_cast<float>(value.as_float().value_or(0));
    *text = fmt::format("{}", number);
    *json = json_number(number) == "null" ? "null" : *text;
  } else if (const auto number = value.as_float()) {
    *text = fmt::format("{}", *number);
    *json = json_number(*number);
  } else if (const auto natural = value.as_uint()) {
    *text = *json = std::to_string(*natural);
  } else {
    *text = *json = std::to_string(value.as_int().value_or(0));
  }
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
  if (value.type != GgufType::kArray) {
    describe_scalar(value, &out.text, &out.json);
    return out;
  }
  out.type = fmt::format("{}[{}]", to_string(value.element_type), value.count);
  std::span<const uint8_t> rest = value.payload;
  std::string items;
  for (uint64_t i = 0; i < std::min(value.count, kShownElements); ++i) {
    const size_t size = element_bytes(value.element_type, rest);
    const GgufValue element{value.element_type, GgufType::kU8, 1, rest.first(size)};
    rest = rest.subspan(size);
    std::string text, json;
    describe_scalar(element, &text, &json);
    out.text += (i == 0 ? "" : ", ") + text;
    items += (i == 0 ? "" : ",") + json;
  }
  if (value.count > kShownElements) out.text += ", ...";
  out.json = fmt::format("{{\"count\":{},\"first\":[{}]}}", value.count, items);
  return out;
}

Inspection inspect_gguf(const std::string& path, const Notice& notice) {
  const MappedFile file(path);
  const GgufReader gguf(file.bytes(), path, notice);
  Inspection out;
  out.path = path;
  out.kind = "GGUF";
  out.header = {number_entry("version", gguf.version()),
                number_entry("alignment", gguf.alignment()),
                number_entry("data_offset", gguf.data_offset()),
                number_entry("file_bytes", gguf.file_size()),
                number_entry("n_metadata", gguf.metadata().size()),
                number_entry("n_tensors", gguf.tensors().size())};
  for (const GgufReader::KeyValue& entry : gguf.metadata()) out.metadata.push_back(describe_value(entry));
  for (const TensorView& tensor : gguf.tensors())
    out.tensors.push_back({tensor.name, tensor.shape, block_format(tensor.dtype).name, tensor.n_elements(),
                           tensor.n_bytes, static_cast<uint64_t>(tensor.data - file.bytes().data()), "",
                           tensor.layout});
  return out;
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
  for (const SafetensorsTensor& tensor : header.tensors) out.tensors.push_back(describe_tensor(tensor, ""));
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
  }
  return out;
}

// Any text of the file as one cell.
std::string cell(std::string_view text) { return printable(text, kShownBytes); }

void append_entries(const std::vector<Inspection::Entry>& entries, std::string* out) {
  Table table({{"key", Table::Align::kLeft}, {"type", Table::Align::kLeft}, {"value", Table::Align::kLeft}});
  for (const Inspection::Entry& entry : entries) table.add_row({cell(entry.key), entry.type, entry.text});
  *out += '\n';
  *out += table.render();
}

void append_tensors(const Inspection& inspection, std::string* out) {
  std::vector<Table::Column> columns = {{"tensor", Table::Align::kLeft},
                                        {"shape", Table::Align::kLeft},
                                        {"format", Table::Align::kLeft},
                                        {"bytes", Table::Align::kRight},
                                        {"offset", Table::Align::kRight}};
  const bool with_files = inspection.kind == "checkpoint";
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
  *out += table.render();
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
  *out += table.render();
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
  if (!inspection.metadata.empty()) append_entries(inspection.metadata, &out);
  if (!inspection.tensors.empty()) {
    append_tensors(inspection, &out);
    append_totals(inspection, &out);
  }
  return out;
}

std::string render_json(const Inspection& inspection) {
  JsonWriter json;
  json.begin_object().field("path", inspection.path).field("kind", inspection.kind);
  for (const Inspection::Entry& entry : inspection.header) json.key(entry.key).literal(entry.json);
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
