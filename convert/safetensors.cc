#include "convert/safetensors.h"

#include <algorithm>
#include <array>
#include <utility>

#include "quant/checked_math.h"
#include "quant/download_check.h"
#include "quant/error.h"
#include "quant/json/json.h"

namespace quern {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr JsonLimits kHeaderLimits{.max_depth = 8, .max_values = 1u << 20};

constexpr std::array<SafetensorsDType, 20> kDTypes = {{
    {"BOOL", 8, {}},           {"F4", 4, {}},           {"F6_E2M3", 6, {}},
    {"F6_E3M2", 6, {}},        {"U8", 8, {}},           {"I8", 8, DType::I8},
    {"F8_E5M2", 8, {}},        {"F8_E4M3", 8, {}},      {"F8_E8M0", 8, {}},
    {"I16", 16, DType::I16},   {"U16", 16, {}},         {"F16", 16, DType::F16},
    {"BF16", 16, DType::BF16}, {"I32", 32, DType::I32}, {"U32", 32, {}},
    {"F32", 32, DType::F32},   {"C64", 64, {}},         {"F64", 64, DType::F64},
    {"I64", 64, DType::I64},   {"U64", 64, {}},
}};

const SafetensorsDType* find_dtype(std::string_view name) {
  for (const SafetensorsDType& type : kDTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

class HeaderReader {
 public:
  HeaderReader(std::span<const uint8_t> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  SafetensorsHeader read() {
    const std::string_view text = header_text();
    header_.data_offset = kLengthBytes + text.size();
    data_bytes_ = bytes_.size() - header_.data_offset;
    parse_json_members(text, path_ + ": header", kHeaderLimits, [&](std::string_view key, const Json& value) {
      if (key == "__metadata__") {
        add_metadata(value);
      } else {
        add_tensor(key, value);
      }
    });
    check_layout();
    for (SafetensorsTensor& tensor : header_.tensors) {
      tensor.begin += header_.data_offset;
      tensor.end += header_.data_offset;
    }
    return std::move(header_);
  }

 private:
  std::string_view header_text() const {
    if (bytes_.size() < kLengthBytes) {
      fail(ErrorCode::kMalformed, "{}: header too small: {} bytes, expected at least {}", path_,
           bytes_.size(), kLengthBytes);
    }
    uint64_t length = 0;
    for (size_t i = 0; i < kLengthBytes; ++i) length |= static_cast<uint64_t>(bytes_[i]) << (8 * i);
    if (length == 0) {
      fail(ErrorCode::kMalformed, "{}: header too small: 0 bytes of JSON (offset 0x0){}", path_,
           placeholder_hint(bytes_));
    }
    if (length > kMaxHeaderBytes) {
      fail(ErrorCode::kMalformed, "{}: header too large: {} bytes, expected at most {} (offset 0x0){}", path_,
           length, kMaxHeaderBytes, placeholder_hint(bytes_));
    }
    if (length > bytes_.size() - kLengthBytes) {
      fail(ErrorCode::kMalformed,
           "{}: invalid header length: {} bytes, the file has {} after it (offset 0x0)", path_, length,
           bytes_.size() - kLengthBytes);
    }
    return {reinterpret_cast<const char*>(bytes_.data()) + kLengthBytes, static_cast<size_t>(length)};
  }

  void add_metadata(const Json& value) {
    if (value.is_null()) return;  // none: the reference library reads it so
    const Json::Object* object = value.as_object();
    if (object == nullptr) {
      fail(ErrorCode::kMalformed, "{}: __metadata__ must be an object, found {}", path_, value.describe());
    }
    for (const auto& [key, member] : *object) {
      const std::string* text = member.as_string();
      if (text == nullptr) {
        fail(ErrorCode::kMalformed, "{}: __metadata__ '{}' must be a string, found {}", path_, printable(key),
             member.describe());
      }
      header_.metadata.emplace_back(key, *text);
    }
  }

  void add_tensor(std::string_view name, const Json& value) {
    SafetensorsTensor tensor;
    tensor.name = name;
    if (value.as_object() == nullptr) refuse(tensor, "expected a JSON object, found " + value.describe());
    const Json* type = value.find("dtype");
    if (type == nullptr || type->as_string() == nullptr) refuse(tensor, "dtype is missing or not a string");
    tensor.type = find_dtype(*type->as_string());
    if (tensor.type == nullptr) refuse(tensor, "unknown dtype " + type->describe());
    tensor.shape = integers(tensor, value, "shape");
    const std::vector<uint64_t> offsets = integers(tensor, value, "data_offsets");
    if (offsets.size() != 2) {
      refuse(tensor, fmt::format("data_offsets must be two integers, found {}", offsets.size()));
    }
    tensor.begin = offsets[0];
    tensor.end = offsets[1];
    check_size(tensor);
    header_.tensors.push_back(std::move(tensor));
  }

  std::vector<uint64_t> integers(const SafetensorsTensor& tensor, const Json& value, const char* key) const {
    const Json* member = value.find(key);
    const Json::Array* array = member == nullptr ? nullptr : member->as_array();
    if (array == nullptr) refuse(tensor, std::string(key) + " is missing or not an array");
    std::vector<uint64_t> numbers;
    for (const Json& element : *array) {
      const uint64_t* number = element.as_uint();
      if (number == nullptr) {
        refuse(tensor, fmt::format("{} must hold JSON integers from 0 to 2^64 - 1, found {}", key,
                                   element.describe()));
      }
      numbers.push_back(*number);
    }
    return numbers;
  }

  void check_size(const SafetensorsTensor& tensor) const {
    uint64_t bits = tensor.type->bits;
    for (const uint64_t dim : tensor.shape) {
      if (!checked_mul(bits, dim, &bits)) {
        refuse(tensor, fmt::format("size overflow: shape {} of dtype {}", to_string(tensor.shape),
                                   tensor.type->name));
      }
    }
    if (bits % 8 != 0) {
      refuse(tensor, fmt::format("shape {} of dtype {} is not a whole number of bytes",
                                 to_string(tensor.shape), tensor.type->name));
    }
    if (tensor.end < tensor.begin) {
      refuse(tensor, fmt::format("data_offsets [{}, {}] run backwards", tensor.begin, tensor.end));
    }
    if (bits / 8 != tensor.end - tensor.begin) {
      refuse(tensor, fmt::format("shape {} of dtype {} needs {} bytes, data_offsets [{}, {}] hold {}",
                                 to_string(tensor.shape), tensor.type->name, bits / 8, tensor.begin,
                                 tensor.end, tensor.end - tensor.begin));
    }
  }

  // Data begins at 0, follows without gap or overlap, and ends with the file.
  void check_layout() {
    std::vector<SafetensorsTensor>& tensors = header_.tensors;
    const auto before = [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    };
    // Nearly all files are in order already.
    if (!std::is_sorted(tensors.begin(), tensors.end(), before)) {
      std::stable_sort(tensors.begin(), tensors.end(), before);
    }
    uint64_t end = 0;
    for (const SafetensorsTensor& tensor : tensors) {
      if (tensor.begin != end) {
        refuse(tensor, fmt::format("data_offsets [{}, {}] leave a gap or overlap: expected to begin at {}",
                                   tensor.begin, tensor.end, end));
      }
      end = tensor.end;
    }
    if (end == data_bytes_) return;
    fail(ErrorCode::kMalformed,
         "{}: {}: data not fully covered: by data_offsets the tensors need {} bytes after the header, the "
         "file "
         "has {}",
         path_, end > data_bytes_ ? "file is truncated" : "trailing bytes", end, data_bytes_);
  }

  [[noreturn]] void refuse(const SafetensorsTensor& tensor, const std::string& problem) const {
    // A shape may have any number of dimensions: the line stays readable.
    fail(ErrorCode::kMalformed, "{}: tensor '{}': {}", path_, printable(tensor.name), problem.substr(0, 400));
  }

  std::span<const uint8_t> bytes_;
  const std::string& path_;
  uint64_t data_bytes_ = 0;
  SafetensorsHeader header_;  // offsets relative to the data until read() returns
};

}  // namespace

std::span<const SafetensorsDType> safetensors_dtypes() noexcept { return kDTypes; }

SafetensorsHeader read_safetensors_header(std::span<const uint8_t> bytes, const std::string& path) {
  return HeaderReader(bytes, path).read();
}

}  // namespace quern
