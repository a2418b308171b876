#include "runtime/template/markup.h"

#include "runtime/template/interpreter.h"
#include "runtime/template/print.h"

namespace quern::jinja {
namespace {

std::string_view entity(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '\'':
      return "&#39;";
    case '"':
      return "&#34;";
    default:
      return "";
  }
}

}  // namespace

Text escape(Interpreter& in, const Text& text) {
  in.charge_bytes(4 * text.size());
  Text out;
  text.for_each_run(0, text.size(), [&](std::string_view bytes, Origin origin) {
    size_t plain = 0;
    for (size_t i = 0; i < bytes.size(); ++i) {
      const std::string_view replacement = entity(bytes[i]);
      if (replacement.empty()) continue;
      out.append(bytes.substr(plain, i - plain), origin);
      out.append(replacement, origin);
      plain = i + 1;
    }
    out.append(bytes.substr(plain), origin);
  });
  in.check_size(out.size());
  return out;
}

Value to_markup(Interpreter& in, const Value& value) {
  if (value.is_markup()) return value;
  return in.text(escape(in, to_text(in, value)), true);
}

}  // namespace quern::jinja
