#include "quant/gguf.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "quant/error.h"
#include "quant/gguf_encode.h"

namespace quern {
namespace {

struct TypeRow {
  std::string_view name;
  size_t size;
};

// Index: GgufType.
constexpr std::array<TypeRow, 13> kTypes{{{"u8", 1},
                                          {"i8", 1},
                                          {"u16", 2},
                                          {"i16", 2},
                                          {"u32", 4},
                                          {"i32", 4},
                                          {"f32", 4},
                                          {"bool", 1},
                                          {"string", 0},
                                          {"array", 0},
                                          {"u64", 8},
                                          {"i64", 8},
                                          {"f64", 8}}};

template <class T>
T load(std::span<const uint8_t> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::vector<uint8_t> begin_array(GgufType element_type, size_t count) {
  std::vector<uint8_t> out;
  append_number(&out, GgufType::kArray);
  append_number(&out, element_type);
  append_number<uint64_t>(&out, count);
  return out;
}

template <class T>
std::vector<uint8_t> encode_scalar(GgufType type, T value) {
  std::vector<uint8_t> out;
  append_number(&out, type);
  append_number(&out, value);
  return out;
}

template <class T>
std::vector<uint8_t> encode_array(GgufType element_type, std::span<const T> values) {
  std::vector<uint8_t> out = begin_array(element_type, values.size());
  for (const T value : values) append_number(&out, value);
  return out;
}

template <class T>
std::optional<std::vector<T>> elements(const GgufValue& value, GgufType element_type) {
  if (value.type != GgufType::kArray || value.element_type != element_type) return std::nullopt;
  std::vector<T> out(value.count);
  QUERN_CHECK(value.payload.size() == value.count * sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), value.payload.data(), value.payload.size());
  return out;
}

}  // namespace

std::string_view to_string(GgufType type) noexcept {
  const auto index = static_cast<size_t>(type);
  return index < kTypes.size() ? kTypes[index].name : "unknown";
}

size_t size_of(GgufType type) noexcept {
  const auto index = static_cast<size_t>(type);
  return index < kTypes.size() ? kTypes[index].size : 0;
}

bool is_valid_key(std::string_view key) noexcept {
  return !key.empty() && key.size() <= 65535 &&
         std::all_of(key.begin(), key.end(), [](char c) { return c >= 0x21 && c <= 0x7E; });
}

std::optional<uint64_t> GgufValue::as_uint() const noexcept {
  if (type == GgufType::kU64) return load<uint64_t>(payload);
  const std::optional<int64_t> value = as_int();
  if (!value || *value < 0) return std::nullopt;
  return static_cast<uint64_t>(*value);
}

std::optional<int64_t> GgufValue::as_int() const noexcept {
  switch (type) {
    case GgufType::kU8:
      return load<uint8_t>(payload);
    case GgufType::kI8:
      return load<int8_t>(payload);
    case GgufType::kU16:
      return load<uint16_t>(payload);
    case GgufType::kI16:
      return load<int16_t>(payload);
    case GgufType::kU32:
      return load<uint32_t>(payload);
    case GgufType::kI32:
      return load<int32_t>(payload);
    case GgufType::kI64:
      return load<int64_t>(payload);
    case GgufType::kU64: {
      const auto value = load<uint64_t>(payload);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> GgufValue::as_float() const noexcept {
  if (type == GgufType::kF32) return load<float>(payload);
  if (type == GgufType::kF64) return load<double>(payload);
  return std::nullopt;
}

std::optional<bool> GgufValue::as_bool() const noexcept {
  if (type != GgufType::kBool) return std::nullopt;
  return load<uint8_t>(payload) != 0;
}

std::optional<std::string_view> GgufValue::as_string() const noexcept {
  if (type != GgufType::kString) return std::nullopt;
  const std::span<const uint8_t> text = payload.subspan(sizeof(uint64_t));
  return std::string_view(reinterpret_cast<const char*>(text.data()), text.size());
}

std::optional<std::vector<std::string_view>> GgufValue::as_strings() const {
  if (type != GgufType::kArray || element_type != GgufType::kString) return std::nullopt;
  std::vector<std::string_view> out;
  out.reserve(count);
  std::span<const uint8_t> rest = payload;
  for (uint64_t i = 0; i < count; ++i) {
    QUERN_CHECK(rest.size() >= sizeof(uint64_t));
    const auto length = load<uint64_t>(rest);
    rest = rest.subspan(sizeof(uint64_t));
    QUERN_CHECK(length <= rest.size());
    out.emplace_back(reinterpret_cast<const char*>(rest.data()), length);
    rest = rest.subspan(length);
  }
  return out;
}

std::optional<std::vector<float>> GgufValue::as_floats() const {
  return elements<float>(*this, GgufType::kF32);
}

std::optional<std::vector<int32_t>> GgufValue::as_int32s() const {
  return elements<int32_t>(*this, GgufType::kI32);
}

std::optional<std::vector<int64_t>> GgufValue::as_integers() const {
  if (type != GgufType::kArray || size_of(element_type) == 0) return std::nullopt;
  std::vector<int64_t> out;
  out.reserve(count);
  const size_t size = size_of(element_type);
  for (uint64_t i = 0; i < count; ++i) {
    const GgufValue element{element_type, GgufType::kU8, 1, payload.subspan(i * size, size)};
    const std::optional<int64_t> number = element.as_int();
    if (!number) return std::nullopt;
    out.push_back(*number);
  }
  return out;
}

std::optional<std::vector<bool>> GgufValue::as_bools() const {
  const auto bytes = elements<uint8_t>(*this, GgufType::kBool);
  if (!bytes) return std::nullopt;
  return std::vector<bool>(bytes->begin(), bytes->end());
}

std::optional<std::vector<uint32_t>> GgufValue::as_uint32s() const {
  return elements<uint32_t>(*this, GgufType::kU32);
}

void GgufMetadata::set_u16(std::string_view key, uint16_t value) {
  put(key, encode_scalar(GgufType::kU16, value));
}

void GgufMetadata::set_i32(std::string_view key, int32_t value) {
  put(key, encode_scalar(GgufType::kI32, value));
}

void GgufMetadata::set_u32(std::string_view key, uint32_t value) {
  put(key, encode_scalar(GgufType::kU32, value));
}

void GgufMetadata::set_f32(std::string_view key, float value) {
  put(key, encode_scalar(GgufType::kF32, value));
}

void GgufMetadata::set_bool(std::string_view key, bool value) {
  put(key, encode_scalar<uint8_t>(GgufType::kBool, value ? 1 : 0));
}

void GgufMetadata::set_string(std::string_view key, std::string_view value) {
  std::vector<uint8_t> encoded;
  append_number(&encoded, GgufType::kString);
  append_string(&encoded, value);
  put(key, std::move(encoded));
}

void GgufMetadata::set_strings(std::string_view key, std::span<const std::string> values) {
  std::vector<uint8_t> encoded = begin_array(GgufType::kString, values.size());
  for (const std::string& value : values) append_string(&encoded, value);
  put(key, std::move(encoded));
}

void GgufMetadata::set_floats(std::string_view key, std::span<const float> values) {
  put(key, encode_array(GgufType::kF32, values));
}

void GgufMetadata::set_int32s(std::string_view key, std::span<const int32_t> values) {
  put(key, encode_array(GgufType::kI32, values));
}

void GgufMetadata::set_bools(std::string_view key, const std::vector<bool>& values) {
  const std::vector<uint8_t> bytes(values.begin(), values.end());
  put(key, encode_array(GgufType::kBool, std::span<const uint8_t>(bytes)));
}

void GgufMetadata::set_uint32s(std::string_view key, std::span<const uint32_t> values) {
  put(key, encode_array(GgufType::kU32, values));
}

void GgufMetadata::set_value(std::string_view key, const GgufValue& value) {
  std::vector<uint8_t> encoded;
  if (value.type == GgufType::kArray) {
    encoded = begin_array(value.element_type, value.count);
  } else {
    append_number(&encoded, value.type);
  }
  append_bytes(&encoded, value.payload);
  put(key, std::move(encoded));
}

void GgufMetadata::erase(std::string_view key) {
  const auto found = index_.find(std::string(key));
  if (found == index_.end()) return;
  const size_t place = found->second;
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(place));
  index_.erase(found);
  for (size_t i = place; i < entries_.size(); ++i) --index_[entries_[i].key];
}

bool GgufMetadata::contains(std::string_view key) const { return index_.contains(std::string(key)); }

std::optional<GgufValue> GgufMetadata::find(std::string_view key) const {
  const auto found = index_.find(std::string(key));
  if (found == index_.end()) return std::nullopt;
  std::span<const uint8_t> rest = entries_[found->second].encoded;
  const auto take = [&]<class T>(T) {
    const T value = load<T>(rest);
    rest = rest.subspan(sizeof(T));
    return value;
  };
  GgufValue value;
  value.type = static_cast<GgufType>(take(uint32_t{}));
  if (value.type == GgufType::kArray) {
    value.element_type = static_cast<GgufType>(take(uint32_t{}));
    value.count = take(uint64_t{});
  }
  value.payload = rest;
  return value;
}

void GgufMetadata::put(std::string_view key, std::vector<uint8_t> encoded) {
  QUERN_CHECK(is_valid_key(key));
  const auto [found, is_new] = index_.try_emplace(std::string(key), entries_.size());
  if (is_new) {
    entries_.push_back({std::string(key), std::move(encoded)});
  } else {
    entries_[found->second].encoded = std::move(encoded);
  }
}

}  // namespace quern
