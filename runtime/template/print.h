// Values as text: str(), repr() and JSON.
#pragma once

#include "runtime/template/value.h"

namespace quern::jinja {

// str(value): what {{ value }} shows.
Text to_text(Interpreter& in, const Value& value);
// Appends repr(value). depth: of the values around it.
void print_repr(Interpreter& in, const Value& value, Text* out, int depth);
// "1.0", "1e+16", "inf": Python's repr of a float.
std::string float_text(double value);

// json.dumps(value, ...) as transformers' tojson calls it.
struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<Text> indent;  // absent: one line
  Text item_separator, key_separator;
  bool sort_keys = false;
};
Text to_json(Interpreter& in, const Value& value, const JsonStyle& style);

}  // namespace quern::jinja
