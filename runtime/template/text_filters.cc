// Filters of text. Where jinja2 asks for str(x) the origins of x's bytes stay.
#include <algorithm>
#include <cmath>

#include "runtime/template/filters.h"
#include "runtime/template/formatting.h"
#include "runtime/template/interpreter.h"
#include "runtime/template/markup.h"
#include "runtime/template/objects.h"
#include "runtime/template/operators.h"
#include "runtime/template/print.h"
#include "runtime/template/text_operations.h"
#include "runtime/template/unicode.h"

namespace quern::jinja::filter {
namespace {

// A string as it is (markup stays markup), anything else as str() shows it.
Value soft_string(BuiltinCall& call) {
  if (call.self.is_string()) return call.self;
  return call.in.text(to_text(call.in, call.self));
}

template <Text (*change)(Interpreter&, const Text&)>
Value changed(BuiltinCall& call) {
  const Value text = soft_string(call);
  return call.in.text(change(call.in, text.as_text()), text.is_markup());
}

const Value& require_string(BuiltinCall& call) {
  if (!call.self.is_string()) call.in.raise("'{}' object has no attribute 'rsplit'", type_name(call.self));
  return call.self;
}

Text spaces(BuiltinCall& call, int64_t n) {
  const auto width = static_cast<size_t>(std::max<int64_t>(n, 0));
  call.in.check_size(width);
  call.in.charge_bytes(width);
  return Text(std::string(width, ' '), Origin::kTemplate);
}

Text newline() { return Text("\n", Origin::kTemplate); }

// A word begins behind one of these (jinja2's own idea of it).
bool begins_words(char32_t c) {
  return c == '-' || is_space(c) || c == '(' || c == '{' || c == '[' || c == '<';
}

Text title_of(Interpreter& in, const Text& text) {
  Text out;
  size_t word = 0;
  const auto flush = [&](size_t end) {
    if (word == end) return;
    const size_t rest = word + char_bytes(text.bytes(), word);
    out.append(quern::jinja::upper(in, text.part(word, rest)));
    out.append(quern::jinja::lower(in, text.part(rest, end)));
  };
  for (size_t at = 0; at < text.size();) {
    in.charge(1);
    const size_t next = at + char_bytes(text.bytes(), at);
    if (begins_words(code_point(text.bytes().substr(at, next - at)))) {
      flush(at);
      out.append(text, at, next);
      word = next;
    }
    at = next;
  }
  flush(text.size());
  return out;
}

std::string url_quoted(BuiltinCall& call, std::string_view text, bool in_query) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  call.in.charge_bytes(8 * text.size());
  std::string out;
  for (const char c : text) {
    const bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !in_query);
    const auto byte = static_cast<uint8_t>(c);
    if (is_plain)
      out += c;
    else if (c == ' ' && in_query)
      out += '+';
    else
      out.append({'%', kDigits[byte >> 4], kDigits[byte & 15]});
  }
  return out;
}

}  // namespace

Value capitalize(BuiltinCall& call) { return changed<quern::jinja::capitalize>(call); }
Value lower(BuiltinCall& call) { return changed<quern::jinja::lower>(call); }
Value upper(BuiltinCall& call) { return changed<quern::jinja::upper>(call); }
Value title(BuiltinCall& call) { return call.in.text(title_of(call.in, soft_string(call).as_text())); }
Value string(BuiltinCall& call) { return soft_string(call); }
Value escape_text(BuiltinCall& call) { return to_markup(call.in, call.self); }
Value force_escape(BuiltinCall& call) {
  return call.in.text(escape(call.in, to_text(call.in, call.self)), true);
}
Value safe(BuiltinCall& call) { return call.in.text(to_text(call.in, call.self), true); }

Value center(BuiltinCall& call) {
  const Value text = soft_string(call);
  return call.in.text(
      pad(call.in, text.as_string(), call.integer(0, 80), Text(" ", Origin::kTemplate), Side::kBoth),
      text.is_markup());
}

Value filesizeformat(BuiltinCall& call) {
  if (!call.self.is_number())
    call.in.raise("float() argument must be a string or a real number, not '{}'", type_name(call.self));
  static constexpr char kPrefixes[] = {'k', 'M', 'G', 'T', 'P', 'E', 'Z', 'Y'};
  const bool binary = call.flag(0);
  const double base = binary ? 1024 : 1000, bytes = call.self.as_number();
  std::string text;
  if (bytes == 1) {
    text = "1 Byte";
  } else if (bytes < base) {
    text = fmt::format("{} Bytes", static_cast<int64_t>(bytes));
  } else {
    double unit = base;
    for (const char prefix : kPrefixes) {
      unit *= base;
      const char shown = prefix == 'k' && binary ? 'K' : prefix;
      text = fmt::format("{:.1f} {}{}B", base * bytes / unit, shown, binary ? "i" : "");
      if (bytes < unit) break;
    }
  }
  return call.in.text(text, Origin::kTemplate);
}

Value format(BuiltinCall& call) {
  if (!call.all.positional.empty() && !call.all.keywords.empty())
    call.in.raise("can't handle positional and keyword arguments at the same time");
  Value values;
  if (call.all.keywords.empty()) {
    values = call.in.tuple(call.all.positional);
  } else {
    auto* named = call.in.make<Dict>();
    for (const auto& [name, value] : call.all.keywords) named->set(call.in, Value::string(name), value);
    values = Value::object(named);
  }
  return percent_format(call.in, soft_string(call), values);
}

Value indent(BuiltinCall& call) {
  call.in.require_defined(call.self);
  if (!call.self.is_string())
    call.in.raise("unsupported operand type(s) for +=: '{}' and 'str'", type_name(call.self));
  const bool is_text = call.has(0) && call[0].is_string();
  const Text indention = is_text ? call[0].as_text() : spaces(call, call.integer(0, 4));
  Text text = call.self.as_text();
  text.append(newline());  // so that a last empty line counts
  const std::vector<Text> lines = split_lines(call.in, text, false);
  Text out;
  if (call.flag(1)) out.append(indention);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append(newline());
    if (i > 0 && (call.flag(2) || !lines[i].empty())) out.append(indention);
    out.append(lines[i]);
    call.in.charge_bytes(lines[i].size() + indention.size());
    call.in.check_size(out.size());
  }
  return call.in.text(std::move(out), call.self.is_markup());
}

Value replace(BuiltinCall& call) {
  const Text text = to_text(call.in, call.self), old = to_text(call.in, call[0]),
             with = to_text(call.in, call[1]);
  const bool all = !call.has(2) || call[2].is_none();
  return call.in.text(
      quern::jinja::replace(call.in, text, old.bytes(), with, all ? -1 : call.integer(2, -1)));
}

Value striptags(BuiltinCall& call) {
  const Text text = to_text(call.in, call.self);
  call.in.charge_bytes(4 * text.size());
  Text out;
  const std::string_view bytes = text.bytes();
  bool has_end[] = {true,
                    true};  // of tags and comments: what is not found once is not found behind it either
  for (size_t at = 0; at < bytes.size();) {
    const bool is_comment = bytes.substr(at).starts_with("<!--");
    const bool may_end = bytes[at] == '<' && has_end[is_comment];
    const size_t end = may_end ? bytes.find(is_comment ? "-->" : ">", at) : bytes.npos;
    if (may_end && end == bytes.npos) has_end[is_comment] = false;
    if (end == bytes.npos) {
      out.append(text, at, at + 1);
      ++at;
    } else {
      at = end + (is_comment ? 3 : 1);
    }
  }
  Text joined;
  for (const Text& word : split(call.in, out, std::nullopt, -1)) {
    if (!joined.empty()) joined.append(" ", Origin::kTemplate);
    joined.append(word);
  }
  return call.in.text(std::move(joined));
}

// json.dumps, with transformers' defaults.
Value tojson(BuiltinCall& call) {
  JsonStyle style;
  style.ensure_ascii = call.flag(0);
  style.sort_keys = call.flag(3);
  const auto punctuation = [](std::string_view text) { return Text(std::string(text), Origin::kMessage); };
  if (call.has(1) && !call[1].is_none()) {
    style.indent = call[1].is_string() ? call[1].as_text() : spaces(call, call.integer(1, 0));
  }
  style.item_separator = punctuation(style.indent ? "," : ", ");
  style.key_separator = punctuation(": ");
  if (call.has(2) && !call[2].is_none()) {
    const std::vector<Value> separators = iterate(call.in, call[2]);
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string())
      call.in.raise("separators must be two strings");
    style.item_separator = separators[0].as_text();
    style.key_separator = separators[1].as_text();
  }
  return call.in.text(to_json(call.in, call.self, style));
}

Value trim(BuiltinCall& call) {
  const Value text = soft_string(call);
  std::optional<std::string_view> chars;
  if (call.has(0) && !call[0].is_none()) {
    call.in.require_defined(call[0]);
    if (!call[0].is_string()) call.in.raise("strip arg must be None or str");
    chars = call[0].bytes();
  }
  return call.in.text(strip(call.in, text.as_text(), chars, Side::kBoth), text.is_markup());
}

Value truncate(BuiltinCall& call) {
  const std::optional<size_t> size = quern::jinja::length(call.self);
  if (!size) call.in.raise("object of type '{}' has no len()", type_name(call.self));
  const int64_t limit = call.integer(0, 255),
                leeway = call.has(3) && !call[3].is_none() ? call.integer(3, 5) : 5;
  const Text end = call.has(2) ? to_text(call.in, call[2]) : Text("...", Origin::kTemplate);
  const auto end_chars = static_cast<int64_t>(count_chars(end.bytes()));
  if (limit < end_chars) call.in.raise("expected length >= {}, got {}", end_chars, limit);
  if (leeway < 0) call.in.raise("expected leeway >= 0, got {}", leeway);
  if (static_cast<int64_t>(*size) <= limit + leeway) return call.self;
  const Value& text = require_string(call);
  const Text kept =
      text.as_text().part(0, byte_of_char(text.bytes(), static_cast<size_t>(limit - end_chars)));
  Text out = call.flag(1) ? kept : split_from_right(call.in, kept, " ", 1).front();
  out.append(end);
  return call.in.text(std::move(out));
}

Value urlencode(BuiltinCall& call) {
  const bool is_plain = call.self.is_string() || !is_iterable(call.self);
  if (is_plain)
    return call.in.text(url_quoted(call, to_text(call.in, call.self).bytes(), false), Origin::kMessage);
  std::vector<Value> pairs;
  if (const auto* dict = call.self.as<Dict>())
    for (const auto& [key, value] : dict->entries()) pairs.push_back(call.in.tuple({key, value}));
  else
    pairs = iterate(call.in, call.self);
  std::string out;
  for (const Value& pair : pairs) {
    const std::vector<Value> both = iterate(call.in, pair);
    if (both.size() != 2) call.in.raise("not enough values to unpack (expected 2, got {})", both.size());
    if (!out.empty()) out += '&';
    out += url_quoted(call, to_text(call.in, both[0]).bytes(), true) + "=" +
           url_quoted(call, to_text(call.in, both[1]).bytes(), true);
    call.in.check_size(out.size());
  }
  return call.in.text(out, Origin::kMessage);
}

Value wordcount(BuiltinCall& call) {
  const Value text = soft_string(call);
  const std::string_view bytes = text.bytes();
  call.in.charge_bytes(8 * bytes.size());
  int64_t n = 0;
  bool in_word = false;
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = char_bytes(bytes, at);
    const char32_t c = code_point(bytes.substr(at, length));
    const bool is_word = c == '_' || is_alphabetic(c) || is_decimal(c);
    n += is_word && !in_word;
    in_word = is_word;
    at += length;
  }
  return Value::integer(n);
}

Value xmlattr(BuiltinCall& call) {
  const auto* dict = call.self.as<Dict>();
  if (dict == nullptr) call.in.raise("'{}' object has no attribute 'items'", type_name(call.self));
  Text out;
  for (const auto& [key, value] : dict->entries()) {
    if (value.is_none() || value.is_undefined()) continue;
    const Text name = to_text(call.in, key);
    if (name.bytes().find_first_of(" \t\n\r\f\v/>=") != std::string_view::npos)
      call.in.raise("Invalid character in attribute name: '{}'", name.bytes());
    if (!out.empty() || !call.has(0) || truth(call[0])) out.append(" ", Origin::kTemplate);
    out.append(escape(call.in, name));
    out.append("=\"", Origin::kTemplate);
    out.append(to_markup(call.in, value).as_text());
    out.append("\"", Origin::kTemplate);
  }
  return call.in.text(std::move(out));
}

}  // namespace quern::jinja::filter
