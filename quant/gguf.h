// GGUF's metadata: typed key-value pairs in file order.
//
// Source: the GGUF specification (ggml, docs/gguf.md), version 3. All little-endian.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace quern {

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// "u32", "string", ...
std::string_view to_string(GgufType type) noexcept;
// Bytes of one element; 0 for strings and arrays, whose size is not fixed.
size_t size_of(GgufType type) noexcept;
// 1 to 65535 bytes of printable ASCII without spaces (robustness.md R4).
bool is_valid_key(std::string_view key) noexcept;

// One value as it stands in a file: `payload` are the bytes behind the value's type (behind element type and
// count for arrays; strings keep their u64 length). Does not own the bytes. Values made by GgufReader are
// well formed.
struct GgufValue {
  GgufType type = GgufType::kU8;
  GgufType element_type = GgufType::kU8;  // arrays only
  uint64_t count = 1;                     // elements of an array; 1 otherwise
  std::span<const uint8_t> payload;

  // Empty when the value has another type. Integers of every width and sign convert where the value fits.
  std::optional<uint64_t> as_uint() const noexcept;
  std::optional<int64_t> as_int() const noexcept;
  std::optional<double> as_float() const noexcept;  // f32 and f64 only
  std::optional<bool> as_bool() const noexcept;
  std::optional<std::string_view> as_string() const noexcept;
  // Arrays of exactly this element type.
  std::optional<std::vector<std::string_view>> as_strings() const;
  std::optional<std::vector<float>> as_floats() const;      // f32
  std::optional<std::vector<int32_t>> as_int32s() const;    // i32
  std::optional<std::vector<uint32_t>> as_uint32s() const;  // u32
  // Arrays of integers of any width; empty also when one does not fit.
  std::optional<std::vector<int64_t>> as_integers() const;
  std::optional<std::vector<bool>> as_bools() const;
};

// Metadata to write, in order; owns its bytes. Setting an existing key replaces its value in place.
// Keys must be valid (robustness.md R4); QUERN_CHECK otherwise.
class GgufMetadata {
 public:
  struct Entry {
    std::string key;
    std::vector<uint8_t> encoded;  // u32 type and all that follows it in the file
  };

  void set_u16(std::string_view key, uint16_t value);
  void set_u32(std::string_view key, uint32_t value);
  void set_i32(std::string_view key, int32_t value);
  void set_f32(std::string_view key, float value);
  void set_bool(std::string_view key, bool value);
  void set_string(std::string_view key, std::string_view value);
  void set_strings(std::string_view key, std::span<const std::string> values);
  void set_floats(std::string_view key, std::span<const float> values);
  void set_int32s(std::string_view key, std::span<const int32_t> values);
  void set_bools(std::string_view key, const std::vector<bool>& values);
  void set_uint32s(std::string_view key, std::span<const uint32_t> values);
  void set_value(std::string_view key, const GgufValue& value);  // copied byte for byte
  void erase(std::string_view key);
  bool contains(std::string_view key) const;
  // The value of a key, as a file would hold it; empty when absent. Its bytes live until the key is set
  // again.
  std::optional<GgufValue> find(std::string_view key) const;
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  void put(std::string_view key, std::vector<uint8_t> encoded);
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;  // key -> place in entries_
};

}  // namespace quern
