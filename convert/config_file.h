// A checkpoint's configuration as it is read: typed, range-checked access that remembers what was asked for.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "quant/error.h"
#include "quant/json/json.h"

namespace quern {

// Typed, range-checked access to the members of one file. A member that is null counts as absent.
class ConfigFile {
 public:
  ConfigFile(const Json& json, const std::string& path, const Notice& notice)
      : json_(json), path_(path), notice_(notice) {
    if (json.as_object() == nullptr) fail(ErrorCode::kMalformed, "{}: expected a JSON object", path);
  }

  // Null when absent. What has been asked for counts as supported.
  const Json* find(std::string_view key) const {
    read_.emplace(key);
    return peek(key);
  }

  uint32_t require_uint(std::string_view key, uint64_t max) const {
    const Json* value = find(key);
    if (value == nullptr) refuse(key, "is missing");
    const std::optional<double> number = value->as_number();  // exact: max is below 2^53
    if (!number || *number < 1 || *number > static_cast<double>(max) || *number != std::floor(*number)) {
      refuse(key, fmt::format("must be an integer from 1 to {}, found {}", max, value->describe()));
    }
    return static_cast<uint32_t>(*number);
  }

  uint32_t uint_or(std::string_view key, uint32_t fallback, uint64_t max) const {
    return find(key) == nullptr ? fallback : require_uint(key, max);
  }

  // GGUF keeps it as an f32, where it must neither vanish nor overflow.
  double positive(std::string_view key, const Json* value) const {
    if (value == nullptr) refuse(key, "is missing");
    const std::optional<double> number = value->as_number();
    if (!number || !(*number >= std::numeric_limits<float>::min()) ||
        !(*number <= std::numeric_limits<float>::max())) {
      refuse(key, "must be a finite number greater than 0, found " + value->describe());
    }
    return *number;
  }

  bool bool_or(std::string_view key, bool fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (value->as_bool() == nullptr) refuse(key, "must be true or false, found " + value->describe());
    return *value->as_bool();
  }

  // Refuses every key that changes a model's function and that nobody has asked for.
  // has_window: whether all layers' attention has one.
  void refuse_unsupported(bool has_window) const;

  // A line on stderr about this file.
  void note(const std::string& line) const {
    if (notice_) notice_(fmt::format("{}: {}", path_, line));
  }

  [[noreturn]] void refuse(std::string_view key, const std::string& problem) const {
    fail(ErrorCode::kMalformed, "{}: {} {}", path_, key, problem);
  }

 private:
  const Json* peek(std::string_view key) const {
    const Json* value = json_.find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  void refuse_layer_types(bool has_window) const;

  const Json& json_;
  const std::string& path_;
  const Notice& notice_;
  mutable std::set<std::string, std::less<>> read_;
};

}  // namespace quern
