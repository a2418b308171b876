// Strict JSON, bounded: what comes from a download is parsed without trusting it.
//
// RFC 8259 and nothing else (no comments, NaN, BOM, NUL or trailing commas), valid UTF-8, no duplicate keys,
// depth and number of values limited while parsing, so that neither the stack nor the memory depends on what
// a file claims. Errors are kMalformed "<where>: ..." and contain the word JSON. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "quant/error.h"

namespace quern {

struct JsonMember;

// A parsed value, null at first. Integers keep 64 bits; what has a fraction or an exponent, or does not fit,
// is a double.
struct Json {
  using Array = std::vector<Json>;
  using Object = std::vector<JsonMember>;  // in the order of the file

  std::variant<std::nullptr_t, bool, uint64_t, int64_t, double, std::string, Array, Object> value;

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value); }
  // Null when the value is of another type.
  const bool* as_bool() const { return std::get_if<bool>(&value); }
  const uint64_t* as_uint() const { return std::get_if<uint64_t>(&value); }  // integers >= 0
  const std::string* as_string() const { return std::get_if<std::string>(&value); }
  const Array* as_array() const { return std::get_if<Array>(&value); }
  const Object* as_object() const { return std::get_if<Object>(&value); }
  std::optional<double> as_number() const;       // any number
  const Json* find(std::string_view key) const;  // null when this is no object or has no such member
  // For messages, cut where it gets long: 32.5, "yarn", {"type": "yarn", "factor": 4}
  std::string describe() const;
};

struct JsonMember {
  std::string key;
  Json value;
};

struct JsonLimits {
  size_t max_depth = 32;
  size_t max_values = 1u << 20;  // of the tree that is held at one time
};

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});

// The same for a document that must be an object: hands over its members one by one, in file order, and
// holds only one of them at a time (and the keys seen). `on_member` may throw.
void parse_json_members(std::string_view text, const std::string& where, const JsonLimits& limits,
                        const std::function<void(std::string_view key, const Json& value)>& on_member);

}  // namespace quern
