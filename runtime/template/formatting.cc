#include "runtime/template/formatting.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "runtime/template/interpreter.h"
#include "runtime/template/markup.h"
#include "runtime/template/objects.h"
#include "runtime/template/operators.h"
#include "runtime/template/print.h"

namespace quern::jinja {
namespace {

constexpr int64_t kMaxPrecision = 400;  // digits behind the point that a double can have use for

// How one value is laid out; what both little languages say.
struct Layout {
  Text fill{" ", Origin::kTemplate};
  char align = '\0';  // < > = ^; none: by the value
  char sign = '-';
  bool alternate = false;  // #
  bool zero = false;
  char group = '\0';  // , or _
  int64_t width = 0;
  std::optional<int64_t> precision;
  char type = '\0';
};

void check(Interpreter& in, const Layout& layout) {
  in.check_size(static_cast<size_t>(layout.width));
  if (layout.precision && *layout.precision > kMaxPrecision && layout.type != 's' && layout.type != '\0')
    in.raise("a precision of {} digits is not supported, at most {} are", *layout.precision, kMaxPrecision);
}

std::string grouped(std::string digits, char separator, size_t every) {
  for (size_t at = digits.size(); at > every;) {
    at -= every;
    digits.insert(at, 1, separator);
  }
  return digits;
}

// Digits of a number without its sign.
std::string float_digits(double magnitude, const Layout& layout) {
  const char type = layout.type == '\0' || layout.type == 'n' ? 'g' : layout.type;
  const bool is_percent = type == '%';
  const std::string spec = fmt::format("%{}.*{}", layout.alternate ? "#" : "", is_percent ? 'f' : type);
  const int precision = static_cast<int>(layout.precision.value_or(6));
  const double value = is_percent ? magnitude * 100 : magnitude;
  std::string text;
  if (layout.type == '\0' && !layout.precision) {
    text = float_text(value);
  } else {
    text.resize(static_cast<size_t>(std::snprintf(nullptr, 0, spec.c_str(), precision, value)));
    std::snprintf(text.data(), text.size() + 1, spec.c_str(), precision, value);
    // Python shows that a number is a float where no type is asked for.
    if (layout.type == '\0' && text.find_first_of(".en") == text.npos) text += ".0";
  }
  if (layout.group != '\0' && std::isfinite(value)) {
    const size_t whole = std::min(text.find_first_not_of("0123456789"), text.size());
    text = grouped(text.substr(0, whole), layout.group, 3) + text.substr(whole);
  }
  return is_percent ? text + "%" : text;
}

std::string integer_digits(uint64_t magnitude, const Layout& layout) {
  std::string text;
  const char type = layout.type;
  if (type == 'x' || type == 'X')
    text = type == 'x' ? fmt::format("{:x}", magnitude) : fmt::format("{:X}", magnitude);
  else if (type == 'o' || type == 'b')
    text = type == 'o' ? fmt::format("{:o}", magnitude) : fmt::format("{:b}", magnitude);
  else
    text = fmt::format("{}", magnitude);
  const bool is_decimal = type == '\0' || type == 'd' || type == 'n';
  return layout.group != '\0' ? grouped(text, layout.group, is_decimal ? 3 : 4) : text;
}

// Sign, prefix and digits, widened.
Text lay_out_number(Interpreter& in, bool negative, const std::string& prefix, const std::string& digits,
                    const Layout& layout) {
  std::string head = negative ? "-" : layout.sign == '-' ? "" : std::string(1, layout.sign);
  head += prefix;
  const int64_t missing =
      std::max<int64_t>(layout.width - static_cast<int64_t>(head.size() + digits.size()), 0);
  in.charge(static_cast<size_t>(missing));
  const char align = layout.align != '\0' ? layout.align : layout.zero ? '=' : '>';
  const Text fill = layout.zero && layout.align == '\0' ? Text("0", Origin::kTemplate) : layout.fill;
  Text out;
  const auto add_fill = [&](int64_t n) {
    for (int64_t i = 0; i < n; ++i) out.append(fill);
  };
  const int64_t before = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  add_fill(before);
  out.append(head, Origin::kTemplate);
  if (align == '=') add_fill(missing);
  out.append(digits, Origin::kTemplate);
  if (align != '=') add_fill(missing - before);
  return out;
}

Text lay_out_float(Interpreter& in, double value, const Layout& layout) {
  std::string digits = float_digits(std::fabs(value), layout);
  in.charge(digits.size());  // exact digits of large numbers are long divisions
  if (!std::isfinite(value) && layout.type >= 'a') digits = std::isnan(value) ? "nan" : "inf";
  return lay_out_number(in, std::signbit(value) && !std::isnan(value), "", digits, layout);
}

Text lay_out_integer(Interpreter& in, int64_t value, const Layout& layout) {
  const uint64_t magnitude =
      value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  const bool has_prefix = layout.alternate &&
                          std::string_view("xXob").find(layout.type) != std::string_view::npos &&
                          layout.type != '\0';
  const std::string prefix = has_prefix ? std::string("0") + layout.type : "";
  return lay_out_number(in, value < 0, prefix, integer_digits(magnitude, layout), layout);
}

Text lay_out_text(Interpreter& in, const Text& text, const Layout& layout) {
  Text shown = text;
  if (layout.precision)
    shown = text.part(0, byte_of_char(text.bytes(), static_cast<size_t>(*layout.precision)));
  const int64_t missing =
      std::max<int64_t>(layout.width - static_cast<int64_t>(count_chars(shown.bytes())), 0);
  in.charge(static_cast<size_t>(missing));
  in.charge_bytes(text.size());
  const int64_t before = layout.align == '>' ? missing : layout.align == '^' ? missing / 2 : 0;
  Text out;
  for (int64_t i = 0; i < before; ++i) out.append(layout.fill);
  out.append(shown);
  for (int64_t i = before; i < missing; ++i) out.append(layout.fill);
  return out;
}

// ---- "%s" % x ----

class PercentFormatter {
 public:
  PercentFormatter(Interpreter& in, const Value& format, const Value& arguments)
      : in_(in), format_(format), text_(format.as_text()), arguments_(arguments) {
    const auto* tuple = arguments.as<Sequence>();
    if (tuple != nullptr && tuple->is_tuple())
      positional_ = tuple->items;
    else
      positional_ = {arguments};
    is_mapping_ = arguments.as<Dict>() != nullptr;
    const Object* object = arguments.as_object();
    may_be_left_ = arguments.is_undefined() ||
                   (object != nullptr && object->has_items() && object->type() != ObjectType::kTuple);
  }

  Value run() {
    const std::string_view bytes = text_.bytes();
    while (at_ < bytes.size()) {
      const size_t percent = std::min(bytes.find('%', at_), bytes.size());
      out_.append(text_, at_, percent);
      at_ = percent + 1;
      if (percent < bytes.size()) directive();
      in_.check_size(out_.size());
    }
    if (next_ < positional_.size() && !may_be_left_)
      in_.raise("not all arguments converted during string formatting");
    return in_.text(std::move(out_), format_.is_markup());
  }

 private:
  char take() {
    if (at_ >= text_.size()) in_.raise("incomplete format");
    return text_.bytes()[at_++];
  }
  char peek() const { return at_ < text_.size() ? text_.bytes()[at_] : '\0'; }

  Value next_argument() {
    if (next_ >= positional_.size()) in_.raise("not enough arguments for format string");
    return positional_[next_++];
  }

  int64_t number() {
    if (peek() == '*') {
      ++at_;
      const Value value = next_argument();
      if (!value.is_whole()) in_.raise("* wants int");
      return std::clamp<int64_t>(value.as_integer(), -int64_t{INT32_MAX}, INT32_MAX);
    }
    int64_t n = 0;
    while (peek() >= '0' && peek() <= '9') n = std::min<int64_t>(n * 10 + (take() - '0'), INT32_MAX);
    return n;
  }

  void directive() {
    in_.charge(2);
    Layout layout;
    std::optional<Value> named;
    if (peek() == '(') named = named_argument();
    for (bool more = true; more;) {
      const char c = peek();
      if (c == '-')
        layout.align = '<';
      else if (c == '+' || (c == ' ' && layout.sign != '+'))
        layout.sign = c;
      else if (c == '#')
        layout.alternate = true;
      else if (c == '0')
        layout.zero = true;
      else if (c != ' ')
        more = false;
      at_ += size_t{more};
    }
    layout.width = number();
    if (layout.width < 0) {
      layout.align = '<';
      layout.width = -layout.width;
    }
    if (peek() == '.') {
      ++at_;
      layout.precision = std::max<int64_t>(number(), 0);
    }
    while (peek() == 'h' || peek() == 'l' || peek() == 'L') ++at_;
    layout.type = take();
    if (layout.type == '%') return out_.append("%", text_.origin_at(at_ - 1));
    check(in_, layout);
    convert(named ? *named : next_argument(), layout);
  }

  Value named_argument() {
    const size_t begin = ++at_;
    int depth = 1;
    while (depth > 0) {
      const char c = take();
      depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    }
    if (!is_mapping_) in_.raise("format requires a mapping");
    const std::string_view name = text_.bytes().substr(begin, at_ - 1 - begin);
    const Value* value = arguments_.as<Dict>()->find(name);
    if (value == nullptr) in_.raise("'{}'", name);
    return *value;
  }

  void convert(const Value& value, Layout layout) {
    const char type = layout.type;
    if (type == 's' || type == 'r' || type == 'a') {
      if (layout.align == '\0') layout.align = '>';
      Text text;
      if (type == 's')
        text = to_text(in_, value);
      else
        print_repr(in_, value, &text, 0);
      if (format_.is_markup() && !value.is_markup()) text = escape(in_, text);
      out_.append(lay_out_text(in_, text, layout));
      return;
    }
    in_.require_defined(value);
    if (type == 'c') {
      const bool is_char = value.is_string() && count_chars(value.bytes()) == 1;
      if (!is_char && !value.is_whole()) in_.raise("%c requires int or char");
      std::string character(is_char ? value.bytes() : "");
      if (!is_char)
        append_utf8(static_cast<char32_t>(std::clamp<int64_t>(value.as_integer(), 0, 0x10FFFF)), &character);
      if (layout.align == '\0') layout.align = '>';
      layout.precision.reset();
      out_.append(lay_out_text(in_, Text(character, Origin::kMessage), layout));
      return;
    }
    const bool is_integer =
        type == 'd' || type == 'i' || type == 'u' || type == 'x' || type == 'X' || type == 'o';
    const bool is_float = std::string_view("eEfFgG").find(type) != std::string_view::npos;
    if (!is_integer && !is_float) in_.raise("unsupported format character '{}'", type);
    if (!value.is_number() ||
        (is_integer && type != 'd' && type != 'i' && type != 'u' && !value.is_whole())) {
      if (is_float) in_.raise("must be real number, not {}", type_name(value));
      const bool decimal = type == 'd' || type == 'i' || type == 'u';
      in_.raise("%{} format: {} is required, not {}", type, decimal ? "a real number" : "an integer",
                type_name(value));
    }
    if (is_float) {
      out_.append(lay_out_float(in_, value.as_number(), layout));
      return;
    }
    if (type == 'i' || type == 'u') layout.type = 'd';
    if (value.is_float() && !(std::fabs(value.as_number()) < 9.2e18))
      in_.raise("integers beyond 64 bits are not supported");
    const int64_t whole = value.is_float() ? static_cast<int64_t>(value.as_number()) : value.as_integer();
    Text number = lay_out_integer(in_, whole, layout);
    out_.append(number);
  }

  Interpreter& in_;
  const Value& format_;
  const Text& text_;
  const Value& arguments_;
  std::vector<Value> positional_;
  size_t at_ = 0, next_ = 0;
  bool is_mapping_ = false;
  bool may_be_left_ = false;  // what has items need not be used up
  Text out_;
};

// ---- "{}".format(x) ----

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& in, const String& format, const Arguments& arguments)
      : in_(in), format_(format), arguments_(arguments) {}

  Value run() {
    Text out;
    expand(format_.text(), 0, &out);
    return in_.text(std::move(out), format_.is_markup());
  }

 private:
  // Replaces the fields of `text`; those of a format specification are one level deeper.
  void expand(const Text& text, int level, Text* out) {
    if (level > 1) in_.raise("Max string recursion exceeded");
    const std::string_view bytes = text.bytes();
    for (size_t at = 0; at < bytes.size();) {
      in_.charge(1);
      const size_t brace = std::min(bytes.find_first_of("{}", at), bytes.size());
      out->append(text, at, brace);
      if (brace == bytes.size()) return;
      at = brace + 1;
      const bool doubled = at < bytes.size() && bytes[at] == bytes[brace];
      if (doubled) {
        out->append(text, at, at + 1);
        ++at;
        continue;
      }
      if (bytes[brace] == '}') in_.raise("Single '}}' encountered in format string");
      size_t end = at;
      for (int depth = 1; depth > 0; ++end) {
        if (end == bytes.size())
          in_.raise("{}", at == end ? "Single '{' encountered in format string"
                                    : "expected '}' before end of string");
        depth += bytes[end] == '{' ? 1 : bytes[end] == '}' ? -1 : 0;
      }
      field(text.part(at, end - 1), level, out);
      in_.check_size(out->size());
      at = end;
    }
  }

  // name!conversion:specification
  void field(const Text& text, int level, Text* out) {
    const std::string_view bytes = text.bytes();
    size_t name_end = 0;
    for (int brackets = 0; name_end < bytes.size(); ++name_end) {
      const char c = bytes[name_end];
      brackets += c == '[' ? 1 : c == ']' ? -1 : 0;
      if (brackets <= 0 && (c == '!' || c == ':')) break;
    }
    Value value = lookup(bytes.substr(0, name_end));
    size_t at = name_end;
    if (at < bytes.size() && bytes[at] == '!') {
      const char conversion = at + 1 < bytes.size() ? bytes[at + 1] : '\0';
      at = std::min(at + 2, bytes.size());
      if (conversion == 's') {
        value = in_.text(to_text(in_, value));
      } else if (conversion == 'r' || conversion == 'a') {
        Text repr;
        print_repr(in_, value, &repr, 0);
        value = in_.text(std::move(repr));
      } else {
        in_.raise("Unknown conversion specifier '{}'", conversion);
      }
      if (at < bytes.size() && bytes[at] != ':') in_.raise("expected ':' after conversion specifier");
    }
    Text specification;
    if (at < bytes.size()) expand(text.part(at + 1, bytes.size()), level + 1, &specification);
    Text shown = format_value(value, specification);
    out->append(format_.is_markup() && !value.is_markup() ? escape(in_, shown) : shown);
  }

  // 0, name, or nothing (the next one), then .attribute and [key].
  Value lookup(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, first_end));
    for (size_t at = first_end; at < name.size();) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        if (end == at + 1) in_.raise("Empty attribute in format string");
        value = get_attribute(in_, value, name.substr(at + 1, end - at - 1));
        at = end;
      } else if (name[at] == '[') {
        const size_t end = name.find(']', at);
        if (end == name.npos) in_.raise("Missing ']' in format string");
        const std::string_view key = name.substr(at + 1, end - at - 1);
        if (key.empty()) in_.raise("Empty attribute in format string");
        value = get_item(
            in_, value,
            is_digits(key) ? Value::integer(index(key)) : Value::string(std::string(key), Origin::kTemplate));
        at = end + 1;
      } else {
        in_.raise("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  static bool is_digits(std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  }

  int64_t index(std::string_view digits) const {
    int64_t n = 0;
    for (const char c : digits) n = std::min<int64_t>(n * 10 + (c - '0'), INT32_MAX);
    return n;
  }

  Value argument(std::string_view name) {
    if (name.empty() || is_digits(name)) {
      const bool automatic = name.empty();
      if (numbering_ && *numbering_ != automatic)
        in_.raise("cannot switch from {} field numbering to {}",
                  automatic ? "manual field specification to automatic" : "automatic",
                  automatic ? "manual" : "manual field specification");
      numbering_ = automatic;
      const auto i = static_cast<size_t>(automatic ? next_++ : index(name));
      if (i >= arguments_.positional.size())
        in_.raise("Replacement index {} out of range for positional args tuple", i);
      return arguments_.positional[i];
    }
    const Value* value = arguments_.keyword(name);
    if (value == nullptr) in_.raise("'{}'", name);
    return *value;
  }

  Layout parse(const Text& specification) {
    const std::string_view bytes = specification.bytes();
    Layout layout;
    bool has_fill = false;
    size_t at = 0;
    const auto is_align = [&](size_t i) {
      return i < bytes.size() && std::string_view("<>=^").find(bytes[i]) != std::string_view::npos;
    };
    const size_t first = bytes.empty() ? 0 : char_bytes(bytes, 0);
    if (first > 0 && is_align(first)) {
      has_fill = true;
      layout.fill = specification.part(0, first);
      layout.align = bytes[first];
      at = first + 1;
    } else if (is_align(0)) {
      layout.align = bytes[0];
      at = 1;
    }
    const auto peek = [&] { return at < bytes.size() ? bytes[at] : '\0'; };
    const auto number = [&] {
      int64_t n = 0;
      while (peek() >= '0' && peek() <= '9') n = std::min<int64_t>(n * 10 + (bytes[at++] - '0'), INT32_MAX);
      return n;
    };
    if (peek() == '+' || peek() == '-' || peek() == ' ') layout.sign = bytes[at++];
    if (peek() == 'z') ++at;
    if (peek() == '#') layout.alternate = bytes[at++] == '#';
    if (peek() == '0') {
      ++at;
      layout.zero = true;
      if (!has_fill) layout.fill = Text("0", Origin::kTemplate);
    }
    layout.width = number();
    if (peek() == ',' || peek() == '_') layout.group = bytes[at++];
    if (peek() == '.') {
      ++at;
      if (peek() < '0' || peek() > '9') in_.raise("Format specifier missing precision");
      layout.precision = number();
    }
    if (at < bytes.size()) layout.type = bytes[at++];
    if (at < bytes.size()) in_.raise("Invalid format specifier '{}'", bytes);
    check(in_, layout);
    return layout;
  }

  Text format_value(const Value& value, const Text& specification) {
    if (specification.empty()) return to_text(in_, value);
    if (!value.is_string() && !value.is_number())
      in_.raise("unsupported format string passed to {}.__format__", type_name(value));
    Layout layout = parse(specification);
    const auto refuse_code = [&] {
      in_.raise("Unknown format code '{}' for object of type '{}'", layout.type, type_name(value));
    };
    if (value.is_string()) {
      if (layout.type != 's' && layout.type != '\0') refuse_code();
      if (layout.align == '=') in_.raise("'=' alignment not allowed in string format specifier");
      return lay_out_text(in_, value.as_text(), layout);
    }
    if (value.is_bool() && layout.type == '\0') return lay_out_integer(in_, value.as_integer(), layout);
    const bool wants_float =
        layout.type != '\0' && std::string_view("eEfFgG%").find(layout.type) != std::string_view::npos;
    if (value.is_whole() && !wants_float) {
      if (layout.type == 'c') {
        std::string character;
        append_utf8(static_cast<char32_t>(std::clamp<int64_t>(value.as_integer(), 0, 0x10FFFF)), &character);
        return lay_out_text(in_, Text(character, Origin::kMessage), layout);
      }
      if (std::string_view("dxXobn").find(layout.type) == std::string_view::npos && layout.type != '\0')
        refuse_code();
      if (layout.precision) in_.raise("Precision not allowed in integer format specifier");
      return lay_out_integer(in_, value.as_integer(), layout);
    }
    if (!wants_float && layout.type != '\0' && layout.type != 'n') refuse_code();
    return lay_out_float(in_, value.as_number(), layout);
  }

  Interpreter& in_;
  const String& format_;
  const Arguments& arguments_;
  int64_t next_ = 0;
  std::optional<bool> numbering_;  // true: automatic
};

}  // namespace

Value percent_format(Interpreter& in, const Value& format, const Value& arguments) {
  in.charge_bytes(format.bytes().size());
  return PercentFormatter(in, format, arguments).run();
}

Value format_method(Interpreter& in, const String& format, const Arguments& arguments) {
  in.charge_bytes(format.bytes().size());
  return BraceFormatter(in, format, arguments).run();
}

}  // namespace quern::jinja
