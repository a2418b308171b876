// Filters of numbers, and those that take any value.
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "runtime/template/filters.h"
#include "runtime/template/interpreter.h"
#include "runtime/template/operators.h"
#include "runtime/template/text_operations.h"

namespace quern::jinja::filter {
namespace {

// A number's text without blanks around it and underscores between digits; absent when they stand elsewhere.
std::optional<std::string> number_text(BuiltinCall& call, const Value& value) {
  const Text text = strip(call.in, value.as_text(), std::nullopt, Side::kBoth);
  std::string out;
  const std::string_view bytes = text.bytes();
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool is_inner = i > 0 && i + 1 < bytes.size() && bytes[i - 1] != '_' && bytes[i + 1] != '_';
    if (bytes[i] == '_' && !is_inner) return std::nullopt;
    if (bytes[i] != '_') out += bytes[i];
  }
  return out;
}

// int(text, base) of Python.
std::optional<int64_t> parse_int(BuiltinCall& call, const Value& value, int64_t base) {
  const std::optional<std::string> text = number_text(call, value);
  if (!text) return std::nullopt;
  std::string_view digits = *text;
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.remove_prefix(1);
  if (digits.size() > 2 && digits[0] == '0') {
    const char letter = static_cast<char>(digits[1] | 0x20);
    const int64_t named = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (named != 0 && (named == base || base == 0)) {
      digits.remove_prefix(2);
      base = named;
    }
  }
  if (base == 0) base = 10;
  int64_t number = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), number, static_cast<int>(base));
  if (digits.empty() || digits[0] == '-' || end != digits.data() + digits.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) call.in.raise("integers beyond 64 bits are not supported");
  return negative ? -number : number;
}

std::optional<double> parse_float(BuiltinCall& call, const Value& value) {
  const std::optional<std::string> text = number_text(call, value);
  if (!text || text->empty()) return std::nullopt;
  call.in.charge(text->size());  // strtod takes every digit into account
  // What strtod takes and Python does not: hexadecimal numbers, NaN with a payload.
  if (text->find_first_of("xX(") != text->npos) return std::nullopt;
  char* end = nullptr;
  const double number = std::strtod(text->c_str(), &end);
  if (end != text->c_str() + text->size()) return std::nullopt;
  return number;
}

// A float without its fraction; absent for what is not finite.
std::optional<int64_t> truncated(BuiltinCall& call, double number) {
  if (!std::isfinite(number)) return std::nullopt;
  if (!(std::fabs(number) < 9.2e18)) call.in.raise("integers beyond 64 bits are not supported");
  return static_cast<int64_t>(number);
}

}  // namespace

Value absolute(BuiltinCall& call) {
  call.in.require_defined(call.self);
  if (!call.self.is_number()) call.in.raise("bad operand type for abs(): '{}'", type_name(call.self));
  if (call.self.is_float()) return Value::number(std::fabs(call.self.as_number()));
  return call.self.as_integer() < 0 ? negate(call.in, call.self) : Value::integer(call.self.as_integer());
}

Value attribute(BuiltinCall& call) {
  if (!call[0].is_string()) call.in.raise("attribute name must be string, not '{}'", type_name(call[0]));
  call.in.require_defined(call.self);
  return get_python_attribute(call.in, call.self, call[0].bytes());
}

Value default_value(BuiltinCall& call) {
  const bool empty_too = call.flag(1);
  if (!call.self.is_undefined() && !(empty_too && !truth(call.self))) return call.self;
  return call.has(0) ? call[0] : Value::string(Text());
}

Value to_int(BuiltinCall& call) {
  Value fallback = call.has(0) ? call[0] : Value::integer(0);
  int64_t base = 10;
  if (call.has(1)) {
    if (!call[1].is_whole())
      call.in.raise("'{}' object cannot be interpreted as an integer", type_name(call[1]));
    base = call[1].as_integer();
    if (base != 0 && (base < 2 || base > 36)) return fallback;
  }
  call.in.require_defined(call.self);
  std::optional<int64_t> number;
  if (call.self.is_string()) {
    number = parse_int(call, call.self, base);
    if (!number) {
      const std::optional<double> real = parse_float(call, call.self);
      if (real) number = truncated(call, *real);
    }
  } else if (call.self.is_whole()) {
    number = call.self.as_integer();
  } else if (call.self.is_float()) {
    number = truncated(call, call.self.as_number());
  }
  return number ? Value::integer(*number) : fallback;
}

Value to_float(BuiltinCall& call) {
  call.in.require_defined(call.self);
  if (call.self.is_number()) return Value::number(call.self.as_number());
  const std::optional<double> number = call.self.is_string() ? parse_float(call, call.self) : std::nullopt;
  if (number) return Value::number(*number);
  return call.has(0) ? call[0] : Value::number(0);
}

Value round(BuiltinCall& call) {
  call.in.require_defined(call.self);
  if (!call.self.is_number()) call.in.raise("type {} doesn't define __round__ method", type_name(call.self));
  const int64_t digits = call.has(0) && call[0].is_whole() ? call[0].as_integer() : 0;
  const std::string_view method = call.has(1) && call[1].is_string() ? call[1].bytes() : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    call.in.raise("method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(digits)), number = call.self.as_number();
  if (method != "common") {
    const double scaled = number * scale;
    const double whole = method == "ceil" ? std::ceil(scaled) : std::floor(scaled);
    return Value::number((whole + 0.0) / scale);  // Python's are integers, which have no -0
  }
  if (call.self.is_whole() && digits >= 0) return Value::integer(call.self.as_integer());
  if (call.self.is_whole()) {
    // To even, as all of Python's rounding.
    if (digits < -18) return Value::integer(0);
    const auto unit = static_cast<int64_t>(std::pow(10.0, static_cast<double>(-digits)));
    const int64_t value = call.self.as_integer();
    const Value quotient = floor_divide(call.in, Value::integer(value), Value::integer(unit));
    const int64_t below = quotient.as_integer(), rest = value - below * unit;
    const bool up = rest * 2 > unit || (rest * 2 == unit && (below & 1) != 0);
    return Value::integer((below + int64_t{up}) * unit);
  }
  constexpr int64_t kAllDigits = 300;
  if (!std::isfinite(number) || digits > kAllDigits) return Value::number(number);
  if (digits < 0) return Value::number(std::nearbyint(number * scale) / scale);
  char text[1024];  // printf rounds the exact value, to even
  std::snprintf(text, sizeof text, "%.*f", static_cast<int>(digits), number);
  return Value::number(std::strtod(text, nullptr));
}

}  // namespace quern::jinja::filter
