#include "quant/json/json_writer.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "quant/utf8.h"

namespace quern {
namespace {

std::string number(std::floating_point auto x) { return std::isfinite(x) ? fmt::format("{}", x) : "null"; }

}  // namespace

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const char c = text[0];
    if (length == 0)
      out += "\xEF\xBF\xBD";
    else if (c == '"' || c == '\\')
      (out += '\\') += c;
    else if (c == '\n')
      out += "\\n";
    else if (static_cast<uint8_t>(c) < 0x20 || c == 0x7F)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      out += text.substr(0, length);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out + '"';
}

std::string json_number(double x) { return number(x); }
std::string json_number(float x) { return number(x); }

JsonWriter& JsonWriter::line(size_t indent) {
  line_start_ = '\n';
  line_start_.append(indent, ' ');
  return *this;
}

void JsonWriter::separate() {
  const char last = text_.empty() ? '[' : text_.back();
  const bool is_spaced = style_ == Style::kSpaced && line_start_.empty();
  if (last == ':') {
    if (is_spaced) text_ += ' ';
  } else if (last != '{' && last != '[') {
    text_ += is_spaced ? ", " : ",";
  }
  text_ += std::exchange(line_start_, {});
}

JsonWriter& JsonWriter::open(char bracket) {
  separate();
  text_ += bracket;
  return *this;
}

JsonWriter& JsonWriter::close(char bracket) {
  text_ += std::exchange(line_start_, {});
  text_ += bracket;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  raw(json_quote(name));
  text_ += ':';
  return *this;
}

JsonWriter& JsonWriter::raw(std::string_view literal) {
  separate();
  text_ += literal;
  return *this;
}

}  // namespace quern
