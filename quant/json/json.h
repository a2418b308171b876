// Strict JSON, bounded: what comes from a download is parsed without trusting it.
//
// RFC 8259 and nothing else (no comments, NaN, BOM, NUL or trailing commas), valid UTF-8, no duplicate keys,
// depth and number of values limited while parsing, so that neither the stack nor the memory depends on what
// a file claims. Errors are kMalformed "<where>: ..." and contain the word JSON. Thread-safe.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "quant/error.h"

namespace quern {

struct JsonMember;

// A value, null at first; never changed, only replaced as a whole. Integers keep 64 bits; what has a fraction
// or an exponent, or does not fit, is a double.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<JsonMember>;  // in the order of the file

  Json() = default;
  explicit Json(std::same_as<bool> auto value) : value_(value) {}
  explicit Json(uint64_t value);
  explicit Json(int64_t value);
  explicit Json(double value);
  explicit Json(std::string value);
  explicit Json(Array elements);
  explicit Json(Object members);

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
  // Null, or nothing, when the value is of another type.
  const bool* as_bool() const { return std::get_if<bool>(&value_); }
  const uint64_t* as_uint() const { return std::get_if<uint64_t>(&value_); }  // integers >= 0
  std::optional<int64_t> as_int() const;                                      // integers that fit
  std::optional<double> as_number() const;                                    // any number
  std::optional<uint64_t> as_whole() const;  // an integer >= 0, written with a fraction of zeros too (2.0)
  const std::string* as_string() const { return std::get_if<std::string>(&value_); }
  const Array* as_array() const { return std::get_if<Array>(&value_); }
  const Object* as_object() const { return std::get_if<Object>(&value_); }

  // The member of this name; null when this is no object or has no such member. Takes time in proportion to
  // the number of members: who looks up many walks as_object() once.
  const Json* find(std::string_view key) const;
  // The same, and the element at `index` of an array, with a JSON null for what is not there: for chains.
  const Json& operator[](std::string_view key) const;
  const Json& operator[](std::integral auto index) const { return at(static_cast<size_t>(index)); }
  // Elements or members; 0 for what has none.
  size_t size() const;

  // For messages, cut where it gets long: 32.5, "yarn", {"type": "yarn", "factor": 4}
  std::string describe() const;

 private:
  const Json& at(size_t index) const;

  std::variant<std::nullptr_t, bool, uint64_t, int64_t, double, std::string, Array, Object> value_;
};

struct JsonMember {
  std::string key;
  Json value;
};

// Here, where an object's members are known: clang insists.
inline Json::Json(uint64_t value) : value_(value) {}
inline Json::Json(int64_t value) : value_(value) {}
inline Json::Json(double value) : value_(value) {}
inline Json::Json(std::string value) : value_(std::move(value)) {}
inline Json::Json(Array elements) : value_(std::move(elements)) {}
inline Json::Json(Object members) : value_(std::move(members)) {}

struct JsonLimits {
  size_t max_depth = 32;
  size_t max_values = 1u << 20;  // of the tree that is held at one time
  bool exact_integers = false;   // a whole number that no 64 bits hold is refused, not rounded
};

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});

// The same for a document that must be an object: hands over its members one by one, in file order, and
// holds only one of them at a time (and the keys seen). `on_member` may throw.
void parse_json_members(std::string_view text, const std::string& where, const JsonLimits& limits,
                        const std::function<void(std::string_view key, const Json& value)>& on_member);

}  // namespace quern
