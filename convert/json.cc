#include "convert/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "quant/utf8.h"

namespace quern {
namespace {

using MemberCallback = std::function<void(std::string_view, const Json&)>;

// Receives nlohmann's events and builds the tree. That parser does not recurse, so depth costs nothing until
// it is refused here. Returning false stops the parser; `problem` says why.
class TreeBuilder {
 public:
  TreeBuilder(const JsonLimits& limits, const MemberCallback* on_member)
      : limits_(limits), on_member_(on_member) {}

  bool null() { return scalar(nullptr); }
  bool boolean(bool v) { return scalar(v); }
  bool number_integer(int64_t v) { return scalar(v); }
  bool number_unsigned(uint64_t v) { return scalar(v); }
  bool number_float(double v, const std::string&) { return scalar(v); }
  bool string(std::string& v) { return scalar(std::move(v)); }
  bool binary(nlohmann::json::binary_t&) { return false; }  // not of text
  bool start_object(size_t) { return open(Json::Object{}); }
  bool start_array(size_t) { return open(Json::Array{}); }
  bool end_array() { return close(); }

  bool key(std::string& v) {
    if (at_streamed_object()) {
      member_ = {std::move(v), {}};
      return streamed_keys_.insert(member_.key).second || stop_duplicate(member_.key);
    }
    std::get<Json::Object>(open_.back()->value).push_back({std::move(v), {}});
    return true;
  }

  bool end_object() {
    if (at_streamed_object()) {
      open_.pop_back();
      return true;
    }
    return keys_are_unique(std::get<Json::Object>(open_.back()->value)) && close();
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

  // Where the next value goes: it is the last one of the innermost open container.
  Json& slot() {
    if (open_.empty()) return root_;
    if (at_streamed_object()) return member_.value;
    if (auto* array = std::get_if<Json::Array>(&open_.back()->value)) return array->emplace_back();
    return std::get<Json::Object>(open_.back()->value).back().value;
  }

  template <class Value>
  bool scalar(Value&& value) {
    if (!count()) return false;
    slot().value = std::forward<Value>(value);
    return complete();
  }

  template <class Container>
  bool open(Container container) {
    if (open_.size() >= limits_.max_depth) {
      return stop(fmt::format("nested deeper than {} levels", limits_.max_depth));
    }
    if (!count()) return false;
    Json& json = slot();
    json.value = std::move(container);
    open_.push_back(&json);
    return true;
  }

  bool close() {
    open_.pop_back();
    return complete();
  }

  // A value is complete: if it is a member to hand over, it goes.
  bool complete() {
    if (!at_streamed_object()) return true;
    (*on_member_)(member_.key, member_.value);
    n_values_ = 0;
    return true;
  }

  const JsonLimits& limits_;
  const MemberCallback* on_member_;  // not null: the root is an object whose members are handed over
  Json root_;
  JsonMember member_;  // being read, of a streamed object
  std::unordered_set<std::string> streamed_keys_;
  // Containers being read, outermost first. A container grows only while it is the innermost one, so its
  // elements stay where they are while one of them is open.
  std::vector<Json*> open_;
  size_t n_values_ = 0;
  std::string problem_;
};

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
  } else if (const auto* signed_integer = std::get_if<int64_t>(&json.value)) {
    *out += fmt::format("{}", *signed_integer);
  } else if (const uint64_t* integer = json.as_uint()) {
    *out += fmt::format("{}", *integer);
  } else {
    *out += json.is_null() ? "null" : fmt::format("{}", *json.as_number());
  }
}

Json parse(std::string_view text, const std::string& where, const JsonLimits& limits,
           const MemberCallback* on_member) {
  if (!is_valid_utf8(text)) fail(ErrorCode::kMalformed, "{}: invalid JSON: not valid UTF-8", where);
  // nlohmann skips a byte order mark and takes a NUL for the end of the text.
  if (text.starts_with("\xEF\xBB\xBF")) {
    fail(ErrorCode::kMalformed, "{}: invalid JSON: begins with a byte order mark", where);
  }
  if (const size_t nul = text.find('\0'); nul != text.npos) {
    fail(ErrorCode::kMalformed, "{}: invalid JSON: NUL at byte {}", where, nul);
  }
  TreeBuilder builder(limits, on_member);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) {
    fail(ErrorCode::kMalformed, "{}: invalid JSON: {}", where, builder.problem());
  }
  return std::move(builder.root());
}

}  // namespace

std::optional<double> Json::as_number() const {
  if (const auto* u = std::get_if<uint64_t>(&value)) return static_cast<double>(*u);
  if (const auto* i = std::get_if<int64_t>(&value)) return static_cast<double>(*i);
  if (const auto* d = std::get_if<double>(&value)) return *d;
  return std::nullopt;
}

const Json* Json::find(std::string_view key) const {
  if (const Object* object = as_object()) {
    for (const JsonMember& member : *object) {
      if (member.key == key) return &member.value;
    }
  }
  return nullptr;
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
