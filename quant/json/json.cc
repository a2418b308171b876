#include "quant/json/json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "quant/utf8.h"

namespace quern {
namespace {

using MemberCallback = std::function<void(std::string_view, const Json&)>;

// Receives nlohmann's events and builds the tree from its leaves up. That parser does not recurse, so depth
// costs nothing until it is refused here. Returning false stops the parser; `problem` says why.
class TreeBuilder {
 public:
  TreeBuilder(const JsonLimits& limits, const MemberCallback* on_member)
      : limits_(limits), on_member_(on_member) {}

  bool null() { return count() && complete(Json()); }
  bool boolean(bool v) { return count() && complete(Json(v)); }
  bool number_integer(int64_t v) { return count() && complete(Json(v)); }
  bool number_unsigned(uint64_t v) { return count() && complete(Json(v)); }
  bool number_float(double v, const std::string& spelling) {
    if (limits_.exact_integers && spelling.find_first_of(".eE") == spelling.npos)
      return stop(fmt::format("integers beyond 64 bits are not supported: {}", printable(spelling)));
    return count() && complete(Json(v));
  }
  bool string(std::string& v) { return count() && complete(Json(std::move(v))); }
  bool binary(nlohmann::json::binary_t&) { return false; }  // not of text
  bool start_object(size_t) { return open(); }
  bool start_array(size_t) { return open(); }

  bool key(std::string& v) {
    if (at_streamed_object() && !streamed_keys_.insert(v).second) return stop_duplicate(v);
    open_.back().key = std::move(v);
    return true;
  }

  bool end_array() {
    Json::Array elements = std::move(open_.back().elements);
    open_.pop_back();
    return complete(Json(std::move(elements)));
  }

  bool end_object() {
    const bool is_streamed = at_streamed_object();
    Json::Object members = std::move(open_.back().members);
    open_.pop_back();
    return is_streamed || (keys_are_unique(members) && complete(Json(std::move(members))));
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& e) {
    // nlohmann's text ends in what was expected; its prefix is about itself.
    const std::string_view text = e.what();
    const size_t detail = text.find("; ");
    return stop(fmt::format("{} at byte {}",
                            printable(detail == text.npos ? "bad value" : text.substr(detail + 2), 160),
                            position));
  }

  const std::string& problem() const { return problem_; }
  Json& root() { return root_; }

 private:
  // An array or object that is being read. Its key is that of the member being read; elements have none.
  struct Container {
    std::optional<std::string> key;
    Json::Array elements;
    Json::Object members;
  };

  bool stop(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  bool stop_duplicate(std::string_view key) {
    return stop(fmt::format("duplicate key '{}'", printable(key)));
  }

  bool count() { return ++n_values_ <= limits_.max_values || stop("too many values"); }

  bool keys_are_unique(const Json::Object& object) {
    std::vector<std::string_view> keys;
    keys.reserve(object.size());
    for (const JsonMember& member : object) keys.push_back(member.key);
    std::sort(keys.begin(), keys.end());
    const auto duplicate = std::adjacent_find(keys.begin(), keys.end());
    return duplicate == keys.end() || stop_duplicate(*duplicate);
  }

  bool at_streamed_object() const { return on_member_ != nullptr && open_.size() == 1; }

  bool open() {
    if (open_.size() >= limits_.max_depth) {
      return stop(fmt::format("nested deeper than {} levels", limits_.max_depth));
    }
    if (!count()) return false;
    open_.emplace_back();
    return true;
  }

  // A value is complete: it goes into the innermost open container, or out.
  bool complete(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (at_streamed_object()) {
      (*on_member_)(*open_.back().key, value);
      n_values_ = 0;
    } else if (Container& container = open_.back(); container.key) {
      container.members.push_back({std::move(*container.key), std::move(value)});
    } else {
      container.elements.push_back(std::move(value));
    }
    return true;
  }

  const JsonLimits& limits_;
  const MemberCallback* on_member_;  // not null: the root is an object whose members are handed over
  Json root_;
  std::unordered_set<std::string> streamed_keys_;
  std::vector<Container> open_;  // outermost first
  size_t n_values_ = 0;
  std::string problem_;
};

const Json kNull;
constexpr size_t kDescribedBytes = 100;  // of a value in a message

// Appends a value as JSON would write it, text made fit to print; stops once it is too long to be shown.
void append_text(const Json& json, std::string* out) {
  if (out->size() > kDescribedBytes) return;
  if (const bool* flag = json.as_bool()) {
    *out += *flag ? "true" : "false";
  } else if (const std::string* text = json.as_string()) {
    *out += fmt::format("\"{}\"", printable(*text));
  } else if (const Json::Array* array = json.as_array()) {
    *out += '[';
    for (const Json& element : *array) {
      if (&element != array->data()) *out += ", ";
      append_text(element, out);
      if (out->size() > kDescribedBytes) return;
    }
    *out += ']';
  } else if (const Json::Object* object = json.as_object()) {
    *out += '{';
    for (const JsonMember& member : *object) {
      if (&member != object->data()) *out += ", ";
      *out += fmt::format("\"{}\": ", printable(member.key));
      append_text(member.value, out);
      if (out->size() > kDescribedBytes) return;
    }
    *out += '}';
  } else if (const uint64_t* natural = json.as_uint()) {
    *out += fmt::format("{}", *natural);
  } else if (const std::optional<int64_t> integer = json.as_int()) {
    *out += fmt::format("{}", *integer);
  } else {
    *out += json.is_null() ? "null" : fmt::format("{}", *json.as_number());
  }
}

Json parse(std::string_view text, const std::string& where, const JsonLimits& limits,
           const MemberCallback* on_member) {
  // nlohmann skips a byte order mark and takes a NUL for the end of the text.
  if (const std::string_view problem = byte_order_problem(text); !problem.empty())
    fail(ErrorCode::kMalformed, "{}: invalid JSON: {}", where, problem);
  if (!is_valid_utf8(text)) fail(ErrorCode::kMalformed, "{}: invalid JSON: not valid UTF-8", where);
  if (const size_t nul = text.find('\0'); nul != text.npos) {
    fail(ErrorCode::kMalformed, "{}: invalid JSON: NUL at byte {}", where, nul);
  }
  if (text.find_first_not_of(" \t\r\n") == text.npos)
    fail(ErrorCode::kMalformed, "{}: invalid JSON: nothing is in it", where);
  TreeBuilder builder(limits, on_member);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) {
    fail(ErrorCode::kMalformed, "{}: invalid JSON: {}", where, builder.problem());
  }
  return std::move(builder.root());
}

}  // namespace

std::optional<int64_t> Json::as_int() const {
  if (const auto* i = std::get_if<int64_t>(&value_)) return *i;
  if (const auto* u = std::get_if<uint64_t>(&value_); u != nullptr && *u <= INT64_MAX) {
    return static_cast<int64_t>(*u);
  }
  return std::nullopt;
}

std::optional<double> Json::as_number() const {
  if (const auto* u = std::get_if<uint64_t>(&value_)) return static_cast<double>(*u);
  if (const auto* i = std::get_if<int64_t>(&value_)) return static_cast<double>(*i);
  if (const auto* d = std::get_if<double>(&value_)) return *d;
  return std::nullopt;
}

std::optional<uint64_t> Json::as_whole() const {
  if (const auto* u = std::get_if<uint64_t>(&value_)) return *u;
  constexpr double kEnd = 18446744073709551616.0;  // 2^64
  const auto* d = std::get_if<double>(&value_);
  if (d == nullptr || !(*d >= 0 && *d < kEnd) || *d != std::floor(*d)) return std::nullopt;
  return static_cast<uint64_t>(*d);
}

const Json* Json::find(std::string_view key) const {
  if (const Object* object = as_object()) {
    for (const JsonMember& member : *object) {
      if (member.key == key) return &member.value;
    }
  }
  return nullptr;
}

const Json& Json::operator[](std::string_view key) const {
  const Json* member = find(key);
  return member != nullptr ? *member : kNull;
}

const Json& Json::at(size_t index) const {
  const Array* array = as_array();
  return array != nullptr && index < array->size() ? (*array)[index] : kNull;
}

size_t Json::size() const {
  if (const Array* array = as_array()) return array->size();
  if (const Object* object = as_object()) return object->size();
  return 0;
}

std::string Json::describe() const {
  std::string text;
  append_text(*this, &text);
  return text.size() <= kDescribedBytes ? text : text.substr(0, kDescribedBytes) + "...";
}

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  return parse(text, where, limits, nullptr);
}

void parse_json_members(std::string_view text, const std::string& where, const JsonLimits& limits,
                        const MemberCallback& on_member) {
  // Only an object hands out members; anything else arrives whole.
  bool is_object = false;
  for (const char c : text) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') continue;
    is_object = c == '{';
    break;
  }
  parse(text, where, limits, is_object ? &on_member : nullptr);
  if (!is_object) fail(ErrorCode::kMalformed, "{}: expected a JSON object", where);
}

}  // namespace quern
