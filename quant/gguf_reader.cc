#include "quant/gguf_reader.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "quant/checked_math.h"
#include "quant/download_check.h"
#include "quant/panel_layout.h"
#include "quant/utf8.h"

namespace quern {
namespace {

constexpr uint64_t kHeaderBytes = 24;
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxNameBytes = 64;
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kMaxDimension = uint64_t{1} << 40;
constexpr uint64_t kMaxTensors = 1'000'000;
constexpr uint64_t kMaxAlignment = 65536;
// The shortest entries that can stand in a file (R3): key "", type, one byte; and a nameless tensor.
constexpr uint64_t kMinKeyValueBytes = 8 + 0 + 4 + 1;
constexpr uint64_t kMinTensorInfoBytes = 8 + 0 + 4 + 0 + 4 + 8;

std::string_view as_text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A place in the file that only moves forward, and only over bytes that are there.
class Cursor {
 public:
  Cursor(std::span<const uint8_t> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }
  std::span<const uint8_t> since(uint64_t begin) const { return bytes_.subspan(begin, position_ - begin); }

  // R1: the one check that guards every read. It compares n with what remains; position + n could wrap.
  std::span<const uint8_t> take(uint64_t n, std::string_view what) {
    if (n > remaining()) refuse(position_, "truncated: {} reaches past end of file", what);
    const std::span<const uint8_t> taken = bytes_.subspan(position_, n);
    position_ += n;
    return taken;
  }

  template <class T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }

  template <class... Args>
  [[noreturn]] void refuse(uint64_t offset, fmt::format_string<Args...> problem, Args&&... args) const {
    fail(ErrorCode::kMalformed, "{}: {} (offset {:#x})", printable(path_, kPathBytes),
         fmt::format(problem, std::forward<Args>(args)...), offset);
  }

 private:
  std::span<const uint8_t> bytes_;
  const std::string& path_;
  uint64_t position_ = 0;
};

// What stands where a GGUF file was expected, named where that helps.
[[noreturn]] void refuse_magic(const Cursor& in, std::span<const uint8_t> bytes) {
  const std::string_view magic = as_text(bytes).substr(0, 4);
  for (const std::string_view old : {"tjgg", "fmgg", "lmgg", "algg"}) {
    if (magic == old) in.refuse(0, "old GGML/GGJT file, not supported; convert the original model again");
  }
  std::string hint = placeholder_hint(bytes);
  if (hint.empty() && magic.starts_with("{"))
    hint = "; this is a JSON file (config.json?): give `quern convert` the folder that it is in";
  in.refuse(0, "not a GGUF file: magic '{}', expected 'GGUF'{}", printable(magic), hint);
}

struct Header {
  uint32_t version;
  uint64_t n_tensors, n_keys;
};

Header read_header(Cursor& in, std::span<const uint8_t> bytes) {
  const auto require_size = [&](uint64_t size) {
    if (bytes.size() < size) {
      in.refuse(bytes.size(), "truncated header: the file has {} bytes, a GGUF header {}", bytes.size(),
                kHeaderBytes);
    }
  };
  require_size(4);
  if (as_text(in.take(4, "magic")) != "GGUF") refuse_magic(in, bytes);
  require_size(8);
  Header header{};
  header.version = in.number<uint32_t>("version");
  if (header.version == 1) in.refuse(4, "GGUF v1 is not supported; convert the original model again");
  if (header.version != 0 && (header.version & 0xFFFF) == 0)
    in.refuse(4, "big-endian GGUF not supported; convert the original model to little-endian GGUF");
  if (header.version != 2 && header.version != 3)
    in.refuse(4, "unsupported GGUF version {}: expected 2 or 3", header.version);
  require_size(kHeaderBytes);
  header.n_tensors = in.number<uint64_t>("tensor count");
  header.n_keys = in.number<uint64_t>("metadata count");
  const uint64_t max_tensors = std::min(in.remaining() / kMinTensorInfoBytes, kMaxTensors);
  if (header.n_tensors > max_tensors) {
    in.refuse(8, "tensor count {}: at most {} fit into the rest of the file (damaged or truncated?)",
              header.n_tensors, max_tensors);
  }
  const uint64_t max_keys = in.remaining() / kMinKeyValueBytes;
  if (header.n_keys > max_keys) {
    in.refuse(16, "metadata count {}: at most {} fit into the rest of the file (damaged or truncated?)",
              header.n_keys, max_keys);
  }
  return header;
}

// A length and as many bytes.
std::string_view read_string(Cursor& in, std::string_view what) {
  const uint64_t begin = in.position();
  const auto length = in.number<uint64_t>(what);
  if (length > in.remaining()) {
    in.refuse(begin, "{} length {} reaches past end of file ({} bytes left)", what, length, in.remaining());
  }
  return as_text(in.take(length, what));
}

std::string_view read_key(Cursor& in) {
  const uint64_t begin = in.position();
  const std::string_view key = read_string(in, "key");
  if (key.empty()) in.refuse(begin, "empty key (key length 0)");
  if (key.size() > kMaxKeyBytes) {
    in.refuse(begin, "key too long: {} bytes, at most {}", key.size(), kMaxKeyBytes);
  }
  if (!is_valid_key(key)) {
    in.refuse(begin, "invalid character in key '{}': expected printable ASCII", printable(key));
  }
  return key;
}

GgufType read_type(Cursor& in, std::string_view key) {
  const uint64_t begin = in.position();
  const auto type = in.number<uint32_t>("metadata type");
  if (type > static_cast<uint32_t>(GgufType::kF64)) {
    in.refuse(begin, "metadata type {} of key '{}' is unknown", type, printable(key));
  }
  return static_cast<GgufType>(type);
}

uint64_t read_array_length(Cursor& in, GgufType element_type, std::string_view key) {
  const uint64_t begin = in.position();
  const auto count = in.number<uint64_t>("array length");
  const uint64_t min_element_bytes =
      element_type == GgufType::kString ? sizeof(uint64_t) : size_of(element_type);
  if (count > in.remaining() / min_element_bytes) {
    in.refuse(begin, "array length {} of key '{}' reaches past end of file ({} bytes left)", count,
              printable(key), in.remaining());
  }
  return count;
}

// Moves over `count` elements; count * size_of(type) is known not to wrap.
void skip_elements(Cursor& in, GgufType type, uint64_t count, std::string_view key) {
  if (type == GgufType::kString) {
    for (uint64_t i = 0; i < count; ++i) read_string(in, "string");
    return;
  }
  const uint64_t begin = in.position();
  const std::span<const uint8_t> bytes = in.take(count * size_of(type), "metadata value");
  if (type != GgufType::kBool) return;
  const auto bad = std::find_if(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte > 1; });
  if (bad != bytes.end()) {
    in.refuse(begin + static_cast<uint64_t>(bad - bytes.begin()), "bool of key '{}' is {}, expected 0 or 1",
              printable(key), *bad);
  }
}

GgufValue read_value(Cursor& in, std::string_view key) {
  GgufValue value;
  value.type = read_type(in, key);
  GgufType type = value.type;
  if (type == GgufType::kArray) {
    const uint64_t begin = in.position();
    type = value.element_type = read_type(in, key);
    if (type == GgufType::kArray) in.refuse(begin, "nested array in key '{}'", printable(key));
    value.count = read_array_length(in, type, key);
  }
  const uint64_t begin = in.position();
  skip_elements(in, type, value.count, key);
  value.payload = in.since(begin);
  return value;
}

std::string_view read_tensor_name(Cursor& in) {
  const uint64_t begin = in.position();
  const std::string_view name = read_string(in, "tensor name");
  if (name.empty() || name.size() > kMaxNameBytes) {
    in.refuse(begin, "tensor name of {} bytes, expected 1 to {}", name.size(), kMaxNameBytes);
  }
  const bool has_control =
      std::any_of(name.begin(), name.end(), [](char c) { return static_cast<uint8_t>(c) < 0x20; });
  if (has_control || !is_valid_utf8(name)) {
    in.refuse(begin, "tensor name '{}': control characters or invalid UTF-8", printable(name));
  }
  return name;
}

// Dimensions turned round: outermost first.
Shape read_shape(Cursor& in, const std::string& name) {
  const uint64_t begin = in.position();
  const auto n_dims = in.number<uint32_t>("number of dimensions");
  if (n_dims < 1 || n_dims > kMaxDimensions) {
    in.refuse(begin, "tensor '{}' has {} dimensions, expected 1 to {}", printable(name), n_dims,
              kMaxDimensions);
  }
  Shape shape(n_dims);
  uint64_t n_elements = 1;
  for (uint32_t i = 0; i < n_dims; ++i) {
    const uint64_t at = in.position();
    const auto dimension = in.number<uint64_t>("dimension");
    if (dimension == 0) in.refuse(at, "dimension {} of tensor '{}' is 0", i, printable(name));
    if (dimension > kMaxDimension || !checked_mul(n_elements, dimension, &n_elements)) {
      in.refuse(at, "size overflow: dimension {} of tensor '{}' is {}", i, printable(name), dimension);
    }
    shape[n_dims - 1 - i] = dimension;
  }
  return shape;
}

// Reads type and computes the size in bytes.
void read_format(Cursor& in, TensorView* tensor) {
  const uint64_t begin = in.position();
  const auto type = in.number<uint32_t>("tensor type");
  const bool panels = is_panel_type_id(type);
  if (panels && (type >> 8 & 255) != kPanelVersion) {
    in.refuse(begin,
              "tensor '{}' has panels of version {}, this program reads version {}; convert the original "
              "again (--layout p16)",
              printable(tensor->name), type >> 8 & 255, kPanelVersion);
  }
  const BlockFormat* format = find_block_format(static_cast<DType>(panels ? type & 255 : type));
  if (format == nullptr || (panels && !has_panel_layout(format->dtype))) {
    in.refuse(begin, "tensor type {} of '{}' is unknown or not supported", type, printable(tensor->name));
  }
  if (tensor->columns() % format->block_weights != 0) {
    in.refuse(begin, "row of tensor '{}' has {} elements, not a multiple of {}'s block size {}",
              printable(tensor->name), tensor->columns(), format->name, format->block_weights);
  }
  if (panels && !can_be_panels(format->dtype, tensor->shape)) {
    in.refuse(begin, "tensor '{}' with shape {} cannot be panels: expected 2 dimensions and at least {} rows",
              printable(tensor->name), to_string(tensor->shape), kPanelRows);
  }
  tensor->dtype = format->dtype;
  tensor->layout = panels ? TensorLayout::kPanels : TensorLayout::kRows;
  // Divided first: elements times bytes may wrap where blocks times bytes do not.
  if (!checked_mul(tensor->n_elements() / format->block_weights, format->block_bytes, &tensor->n_bytes)) {
    in.refuse(begin, "size overflow: tensor '{}' with shape {}", printable(tensor->name),
              to_string(tensor->shape));
  }
}

// `end`: where the tensor before ends, padded, from the start of the data; moved on past this one.
void read_offset(Cursor& in, const TensorView& tensor, uint64_t alignment, uint64_t* end) {
  const uint64_t begin = in.position();
  const auto offset = in.number<uint64_t>("tensor offset");
  if (offset % alignment != 0) {
    in.refuse(begin, "offset {} of tensor '{}' is not a multiple of the alignment {}", offset,
              printable(tensor.name), alignment);
  }
  if (offset != *end) {
    in.refuse(begin, "offset {} of tensor '{}', expected {}: tensors follow one another without gaps", offset,
              printable(tensor.name), *end);
  }
  if (!checked_add(offset, tensor.n_bytes, end) || !checked_align(*end, alignment, end)) {
    in.refuse(begin, "size overflow: tensor '{}' ends beyond what 64 bits can count", printable(tensor.name));
  }
}

// "u32 5", "string 'abc'", "array of 3 f32"
std::string describe(const GgufValue& value) {
  if (value.type == GgufType::kArray) {
    return fmt::format("array of {} {}", value.count, to_string(value.element_type));
  }
  std::string text;
  if (const auto as_string = value.as_string()) {
    text = fmt::format("'{}'", printable(*as_string));
  } else if (const auto as_float = value.as_float()) {
    text = fmt::format("{}", *as_float);
  } else if (const auto as_bool = value.as_bool()) {
    text = fmt::format("{}", *as_bool);
  } else if (const auto as_uint = value.as_uint()) {
    text = fmt::format("{}", *as_uint);
  } else {
    text = fmt::format("{}", value.as_int().value_or(0));
  }
  return fmt::format("{} {}", to_string(value.type), text);
}

}  // namespace

GgufReader::GgufReader(std::span<const uint8_t> bytes, std::string path, const Notice& notice)
    : bytes_(bytes), path_(std::move(path)), file_size_(bytes.size()) {
  Cursor in(bytes_, path_);
  const Header header = read_header(in, bytes_);
  version_ = header.version;

  // Nothing is reserved: in a large file the counts may be damaged and still pass for possible.
  for (uint64_t i = 0; i < header.n_keys; ++i) {
    const uint64_t begin = in.position();
    const std::string_view key = read_key(in);
    if (!key_index_.try_emplace(key, i).second) in.refuse(begin, "duplicate key '{}'", printable(key));
    metadata_.push_back({key, read_value(in, key)});
  }

  if (const GgufValue* value = find("general.alignment"); value != nullptr) {
    const uint64_t alignment = value->as_uint().value_or(0);
    if (value->type != GgufType::kU32 || !std::has_single_bit(alignment) || alignment < 8 ||
        alignment > kMaxAlignment) {
      in.refuse(static_cast<uint64_t>(value->payload.data() - bytes_.data()),
                "general.alignment: expected a power of two from 8 to {} as u32, found {}", kMaxAlignment,
                describe(*value));
    }
    alignment_ = alignment;
  }

  std::vector<uint64_t> offsets;
  uint64_t data_size = 0;
  for (uint64_t i = 0; i < header.n_tensors; ++i) {
    const uint64_t begin = in.position();
    const std::string_view name = read_tensor_name(in);
    if (!tensor_index_.try_emplace(name, i).second)
      in.refuse(begin, "duplicate tensor '{}'", printable(name));
    TensorView& tensor = tensors_.emplace_back();
    tensor.name = name;
    tensor.shape = read_shape(in, tensor.name);
    read_format(in, &tensor);
    offsets.push_back(data_size);
    read_offset(in, tensor, alignment_, &data_size);
  }

  // The header fits the file, so this cannot wrap; what follows it may.
  QUERN_CHECK(checked_align(in.position(), alignment_, &data_offset_));
  for (size_t i = 0; i < tensors_.size(); ++i) {
    TensorView& tensor = tensors_[i];
    uint64_t begin = 0, end = 0;
    if (!checked_add(data_offset_, offsets[i], &begin) || !checked_add(begin, tensor.n_bytes, &end) ||
        end > bytes_.size()) {
      in.refuse(begin,
                "data of tensor '{}' reaches past end of file: {} bytes at this offset, the file has {}; it "
                "was cut "
                "short: download or copy it again",
                printable(tensor.name), tensor.n_bytes, bytes_.size());
    }
    tensor.data = bytes_.data() + begin;
  }

  const uint64_t file_end = data_offset_ + data_size;
  if (bytes_.size() > file_end && notice) {
    notice(fmt::format("{}: {} trailing bytes after the last tensor (offset {:#x})",
                       printable(path_, kPathBytes), bytes_.size() - file_end, file_end));
  }
}

void GgufReader::add_tensors_of(const GgufReader& part) {
  // Names are keyed by the file's bytes, which stay where they are when the reader goes.
  for (const auto& [name, i] : part.tensor_index_)
    if (!tensor_index_.try_emplace(name, tensors_.size() + i).second)
      part.refuse(fmt::format("duplicate tensor '{}': another part holds it as well", printable(name)));
  tensors_.insert(tensors_.end(), part.tensors_.begin(), part.tensors_.end());
  file_size_ += part.file_size_;
}

const GgufValue* GgufReader::find(std::string_view key) const {
  const auto found = key_index_.find(key);
  return found == key_index_.end() ? nullptr : &metadata_[found->second].value;
}

const TensorView* GgufReader::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

std::string GgufReader::notice_text(std::string_view message) const {
  return fmt::format("{}: {}", printable(path_, kPathBytes), message);
}

void GgufReader::refuse(const std::string& message) const {
  throw Error(ErrorCode::kMalformed, notice_text(message));
}

void GgufReader::require_key(std::string_view key) const {
  if (find(key) == nullptr) refuse(fmt::format("key '{}' is missing", key));
}

void GgufReader::refuse_value(std::string_view key, const std::string& expected) const {
  refuse(fmt::format("{}: expected {}, found {}", key, expected, describe(*find(key))));
}

uint64_t GgufReader::require_uint(std::string_view key, uint64_t min, uint64_t max) const {
  require_key(key);
  return uint_or(key, min, min, max);
}

uint64_t GgufReader::uint_or(std::string_view key, uint64_t fallback, uint64_t min, uint64_t max) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return fallback;
  const std::optional<uint64_t> number = value->as_uint();
  if (!number || *number < min || *number > max) {
    refuse_value(key, fmt::format("an integer from {} to {}", min, max));
  }
  return *number;
}

double GgufReader::require_float(std::string_view key) const {
  require_key(key);
  return float_or(key, 0.0);
}

double GgufReader::float_or(std::string_view key, double fallback) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return fallback;
  const std::optional<double> number = value->as_float();
  if (!number || !std::isfinite(*number) || *number <= 0) refuse_value(key, "a finite f32 or f64 above 0");
  return *number;
}

bool GgufReader::bool_or(std::string_view key, bool fallback) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return fallback;
  const std::optional<bool> truth = value->as_bool();
  if (!truth) refuse_value(key, "a bool");
  return *truth;
}

std::string_view GgufReader::require_string(std::string_view key) const {
  require_key(key);
  return string_or(key, {});
}

std::string_view GgufReader::string_or(std::string_view key, std::string_view fallback) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return fallback;
  const std::optional<std::string_view> text = value->as_string();
  if (!text) refuse_value(key, "a string");
  return *text;
}

}  // namespace quern
