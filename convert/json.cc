#include "convert/json.h"

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "quant/utf8.h"

namespace quern {
namespace {

using MemberCallback = std::function<void(std::string_view, const Json&)>;

// Receives nlohmann's events and builds the tree on a stack of its own. That parser does not recurse, so
// depth costs nothing until it is refused here. Returning false stops the parser; `problem` says why.
class TreeBuilder {
 public:
  TreeBuilder(const JsonLimits& limits, const MemberCallback* on_member)
      : limits_(limits), on_member_(on_member) {}

  bool null() { return add(Json{}); }
  bool boolean(bool v) { return add(Json{v}); }
  bool number_integer(int64_t v) { return add(Json{v}); }
  bool number_unsigned(uint64_t v) { return add(Json{v}); }
  bool number_float(double v, const std::string&) { return add(Json{v}); }
  bool string(std::string& v) { return add(Json{std::move(v)}); }
  bool binary(nlohmann::json::binary_t&) { return false; }  // not of text
  bool start_object(size_t) { return open(Json{Json::Object{}}); }
  bool start_array(size_t) { return open(Json{Json::Array{}}); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& v) {
    Frame& frame = stack_.back();
    if (!frame.keys.insert(v).second) return stop("duplicate key '" + printable(v) + "'");
    frame.key = std::move(v);
    return true;
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
  struct Frame {
    Json container;
    std::string key;  // of the member being read
    std::unordered_set<std::string> keys;
  };

  bool stop(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  bool count() {
    if (++n_values_ > limits_.max_values) return stop("too many values");
    return true;
  }

  bool open(Json container) {
    if (stack_.size() >= limits_.max_depth) {
      return stop(fmt::format("nested deeper than {} levels", limits_.max_depth));
    }
    if (!count()) return false;
    stack_.push_back({std::move(container), {}, {}});
    return true;
  }

  bool close() {
    Json done = std::move(stack_.back().container);
    stack_.pop_back();
    return place(std::move(done));
  }

  bool add(Json value) { return count() && place(std::move(value)); }

  bool place(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Frame& frame = stack_.back();
    if (auto* array = std::get_if<Json::Array>(&frame.container.value)) {
      array->push_back(std::move(value));
    } else if (on_member_ != nullptr && stack_.size() == 1) {
      (*on_member_)(frame.key, value);
      n_values_ = 0;
    } else {
      std::get<Json::Object>(frame.container.value).push_back({std::move(frame.key), std::move(value)});
    }
    return true;
  }

  const JsonLimits& limits_;
  const MemberCallback* on_member_;
  std::vector<Frame> stack_;
  size_t n_values_ = 0;
  Json root_;
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
