// JSON as it is written: keys in the order of the calls, valid UTF-8 whatever the texts hold. One writer
// belongs to one thread.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

// "text" with quotes and escapes; invalid UTF-8 becomes U+FFFD (RFC 8259 section 7, 8.1).
std::string json_quote(std::string_view text);
// The shortest decimal that reads back as x in its own precision; null for NaN and infinities, which JSON
// does not have.
std::string json_number(double x);
std::string json_number(float x);

// Balanced calls are the caller's promise; text() is the document when every begin has its end.
class JsonWriter {
 public:
  // kSpaced has a space behind every colon and comma.
  enum class Style { kCompact, kSpaced };
  explicit JsonWriter(Style style = Style::kCompact) : style_(style) {}

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);

  JsonWriter& value(std::string_view text) { return raw(json_quote(text)); }
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(const std::string& text) { return value(std::string_view(text)); }
  JsonWriter& value(bool x) { return raw(x ? "true" : "false"); }
  JsonWriter& value(std::floating_point auto x) { return raw(json_number(x)); }
  JsonWriter& value(std::integral auto x) { return raw(std::to_string(x)); }
  JsonWriter& null() { return raw("null"); }
  JsonWriter& literal(std::string_view json) { return raw(json); }  // a JSON value, ready made
  // What comes next begins a line, `indent` spaces from its start.
  JsonWriter& line(size_t indent);
  template <class T>
  JsonWriter& value(const std::vector<T>& items) {
    begin_array();
    for (const auto& item : items) value(item);
    return end_array();
  }

  template <class T>
  JsonWriter& field(std::string_view name, const T& x) {
    return key(name).value(x);
  }

  const std::string& text() const { return text_; }

 private:
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  JsonWriter& raw(std::string_view literal);
  void separate();

  Style style_;
  std::string text_;
  std::string line_start_;  // before what comes next
};

}  // namespace quern
