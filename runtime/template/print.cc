#include "runtime/template/print.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "runtime/template/interpreter.h"
#include "runtime/template/objects.h"
#include "runtime/template/operators.h"
#include "runtime/template/unicode.h"

namespace quern::jinja {
namespace {

// Brackets and commas are no one's text. They count as a message's, so that they complete no special token.
constexpr Origin kPunctuation = Origin::kMessage;

void print_string_repr(Interpreter& in, const Text& text, Text* out) {
  const std::string_view bytes = text.bytes();
  in.charge_bytes(4 * bytes.size());
  const bool has_single = bytes.find('\'') != bytes.npos, has_double = bytes.find('"') != bytes.npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out->append(std::string_view(&quote, 1), kPunctuation);
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = char_bytes(bytes, at);
    const std::string_view character = bytes.substr(at, length);
    const char32_t c = code_point(character);
    const Origin origin = text.origin_at(at);
    at += length;
    if (c == '\\' || c == static_cast<char32_t>(quote))
      out->append(fmt::format("\\{}", character), origin);
    else if (c == '\n' || c == '\r' || c == '\t')
      out->append(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", origin);
    else if (is_printable(c))
      out->append(character, origin);
    else
      out->append(c < 0x100     ? fmt::format("\\x{:02x}", static_cast<uint32_t>(c))
                  : c < 0x10000 ? fmt::format("\\u{:04x}", static_cast<uint32_t>(c))
                                : fmt::format("\\U{:08x}", static_cast<uint32_t>(c)),
                  origin);
    in.check_size(out->size());
  }
  out->append(std::string_view(&quote, 1), kPunctuation);
}

std::string scalar_text(const Value& value) {
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.as_bool() ? "True" : "False";
  if (value.is_whole()) return fmt::format("{}", value.as_integer());
  return float_text(value.as_number());
}

class JsonPrinter {
 public:
  JsonPrinter(Interpreter& in, const JsonStyle& style, Text* out) : in_(in), style_(style), out_(out) {}

  void print(const Value& value, int depth) {
    in_.charge(1);
    in_.check_depth(depth);
    if (value.is_string()) return print_string(value.as_text());
    if (value.is_none()) return punctuate("null");
    if (value.is_bool()) return punctuate(value.as_bool() ? "true" : "false");
    if (value.is_number()) return punctuate(number_text(value));
    if (const auto* sequence = value.as<Sequence>()) return print_list(sequence->items, depth);
    if (auto* dict = value.as<Dict>()) return print_dict(*dict, depth);
    in_.raise("Object of type {} is not JSON serializable", type_name(value));
  }

 private:
  void punctuate(std::string_view text) { out_->append(text, kPunctuation); }

  static std::string number_text(const Value& value) {
    if (value.is_float() && std::isnan(value.as_number())) return "NaN";
    if (value.is_float() && std::isinf(value.as_number()))
      return value.as_number() < 0 ? "-Infinity" : "Infinity";
    return scalar_text(value);
  }

  void new_line(int depth) {
    if (!style_.indent) return;
    punctuate("\n");
    for (int i = 0; i < depth; ++i) out_->append(*style_.indent);
    in_.check_size(out_->size());
  }

  void print_list(const std::vector<Value>& items, int depth) {
    punctuate("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_->append(style_.item_separator);
      new_line(depth + 1);
      print(items[i], depth + 1);
    }
    if (!items.empty()) new_line(depth);
    punctuate("]");
  }

  void print_dict(const Dict& dict, int depth) {
    std::vector<std::pair<Value, Value>> entries = dict.entries();
    if (style_.sort_keys)
      std::stable_sort(entries.begin(), entries.end(),
                       [this](const auto& a, const auto& b) { return less(in_, a.first, b.first); });
    punctuate("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_->append(style_.item_separator);
      new_line(depth + 1);
      print_key(entries[i].first);
      out_->append(style_.key_separator);
      print(entries[i].second, depth + 1);
    }
    if (!entries.empty()) new_line(depth);
    punctuate("}");
  }

  void print_key(const Value& key) {
    if (key.is_string()) return print_string(key.as_text());
    if (!key.is_none() && !key.is_number())
      in_.raise("keys must be str, int, float, bool or None, not {}", type_name(key));
    const std::string text = key.is_none()   ? "null"
                             : key.is_bool() ? (key.as_bool() ? "true" : "false")
                                             : number_text(key);
    punctuate("\"" + text + "\"");
  }

  void print_string(const Text& text) {
    in_.charge_bytes(2 * text.size());
    punctuate("\"");
    text.for_each_run(0, text.size(), [this](std::string_view bytes, Origin origin) {
      size_t plain = 0;  // what needs no escape goes over in one piece
      for (size_t at = 0; at < bytes.size();) {
        if (is_plain(bytes[at])) {
          ++at;
          continue;
        }
        const size_t length = char_bytes(bytes, at);
        const std::string escape = escaped(bytes.substr(at, length));
        if (!escape.empty()) {
          out_->append(bytes.substr(plain, at - plain), origin);
          out_->append(escape, origin);
          plain = at + length;
        }
        at += length;
      }
      out_->append(bytes.substr(plain), origin);
    });
    punctuate("\"");
    in_.check_size(out_->size());
  }

  // Stands for itself, whatever follows.
  bool is_plain(char c) const {
    const bool is_ascii = static_cast<uint8_t>(c) < 0x7F;
    return static_cast<uint8_t>(c) >= 0x20 && c != '"' && c != '\\' && (is_ascii || !style_.ensure_ascii);
  }

  // Empty: the character stands for itself.
  std::string escaped(std::string_view character) const {
    static constexpr std::string_view kNamed = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
    const char first = character[0];
    if (const size_t named = kNamed.find(first); named != kNamed.npos) return {'\\', kLetters[named]};
    const char32_t c = code_point(character);
    if (c < 0x20) return fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    if (c < 0x7F || !style_.ensure_ascii) return "";
    if (c < 0x10000) return fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    const auto rest = static_cast<uint32_t>(c) - 0x10000;
    return fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
  }

  Interpreter& in_;
  const JsonStyle& style_;
  Text* out_;
};

}  // namespace

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[32];
  const auto scientific =
      std::to_chars(std::begin(buffer), std::end(buffer), value, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(scientific.ptr - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  const auto fixed = std::to_chars(std::begin(buffer), std::end(buffer), value, std::chars_format::fixed);
  std::string out(buffer, static_cast<size_t>(fixed.ptr - buffer));
  if (out.find('.') == out.npos) out += ".0";
  return out;
}

Text to_text(Interpreter& in, const Value& value) {
  if (value.is_string()) return value.as_text();
  if (value.is_undefined()) return Text();
  Text text;
  print_repr(in, value, &text, 0);
  return text;
}

void print_repr(Interpreter& in, const Value& value, Text* out, int depth) {
  in.charge(1);
  in.check_depth(depth);
  if (value.is_string()) {
    if (value.is_markup()) out->append("Markup(", kPunctuation);
    print_string_repr(in, value.as_text(), out);
    if (value.is_markup()) out->append(")", kPunctuation);
  } else if (value.is_undefined()) {
    out->append("Undefined", kPunctuation);
  } else if (Object* object = value.as_object()) {
    object->print(in, out, depth);
  } else {
    out->append(scalar_text(value), Origin::kTemplate);
  }
  in.check_size(out->size());
}

Text to_json(Interpreter& in, const Value& value, const JsonStyle& style) {
  Text out;
  JsonPrinter(in, style, &out).print(value, 0);
  return out;
}

}  // namespace quern::jinja
