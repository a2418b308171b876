// Methods of strings. What comes out of markup is markup.
#include <algorithm>

#include "runtime/template/builtins.h"
#include "runtime/template/formatting.h"
#include "runtime/template/interpreter.h"
#include "runtime/template/markup.h"
#include "runtime/template/objects.h"
#include "runtime/template/operators.h"
#include "runtime/template/print.h"
#include "runtime/template/search.h"
#include "runtime/template/text_operations.h"
#include "runtime/template/unicode.h"

namespace quern::jinja {
namespace {

const Text& text_of(BuiltinCall& call) { return call.self.as_text(); }
Value result(BuiltinCall& call, Text text) { return call.in.text(std::move(text), call.self.is_markup()); }

const Text& string_argument(BuiltinCall& call, size_t i) {
  call.in.require_defined(call[i]);
  if (!call[i].is_string()) call.in.raise("must be str, not {}", type_name(call[i]));
  return call[i].as_text();
}

// None counts as not given.
std::optional<std::string_view> optional_string(BuiltinCall& call, size_t i) {
  if (!call.has(i) || call[i].is_none()) return std::nullopt;
  return string_argument(call, i).bytes();
}

Value list_of(BuiltinCall& call, std::vector<Text> parts) {
  std::vector<Value> values;
  values.reserve(parts.size());
  for (Text& part : parts) values.push_back(result(call, std::move(part)));
  return call.in.list(std::move(values));
}

template <Text (*change)(Interpreter&, const Text&)>
Value changed(BuiltinCall& call) {
  return result(call, change(call.in, text_of(call)));
}

template <Side side>
Value stripped(BuiltinCall& call) {
  return result(call, strip(call.in, text_of(call), optional_string(call, 0), side));
}

Value split_method(BuiltinCall& call) {
  return list_of(call, split(call.in, text_of(call), optional_string(call, 0), call.integer(1, -1)));
}

Value rsplit(BuiltinCall& call) {
  return list_of(call,
                 split_from_right(call.in, text_of(call), optional_string(call, 0), call.integer(1, -1)));
}

Value splitlines(BuiltinCall& call) {
  return list_of(call, split_lines(call.in, text_of(call), call.flag(0)));
}

Value replace_method(BuiltinCall& call) {
  const Text& with = string_argument(call, 1);
  const bool escapes = call.self.is_markup() && !call[1].is_markup();
  return result(call, replace(call.in, text_of(call), string_argument(call, 0).bytes(),
                              escapes ? escape(call.in, with) : with, call.integer(2, -1)));
}

Value join(BuiltinCall& call) {
  Text out;
  bool first = true;
  size_t i = 0;
  for (const Value& item : iterate(call.in, call[0])) {
    if (!item.is_string())
      call.in.raise("sequence item {}: expected str instance, {} found", i, type_name(item));
    if (!first) out.append(text_of(call));
    out.append(call.self.is_markup() && !item.is_markup() ? escape(call.in, item.as_text()) : item.as_text());
    call.in.check_size(out.size());
    first = false;
    ++i;
  }
  return result(call, std::move(out));
}

// The bytes that the arguments start and end, from `first`, name; npos for begin: outside the text.
std::pair<size_t, size_t> byte_range(BuiltinCall& call, size_t first) {
  const std::string_view bytes = text_of(call).bytes();
  if (!call.has(first) && !call.has(first + 1)) return {0, bytes.size()};
  call.in.charge_bytes(bytes.size());
  const auto size = static_cast<int64_t>(call.self.as_string().n_chars());
  const auto position = [&](size_t argument, int64_t fallback) {
    if (!call.has(argument) || call[argument].is_none()) return fallback;
    const int64_t value = call.integer(argument, fallback);
    return value < 0 ? std::max<int64_t>(value + size, 0) : value;
  };
  const int64_t begin = position(first, 0), end = std::min(position(first + 1, size), size);
  if (begin > end) return {std::string_view::npos, 0};
  return {byte_of_char(bytes, static_cast<size_t>(begin)), byte_of_char(bytes, static_cast<size_t>(end))};
}

template <bool at_end>
Value has_affix(BuiltinCall& call, std::string_view name) {
  const auto [begin, end] = byte_range(call, 1);
  if (begin == std::string_view::npos) return Value::boolean(false);
  const std::string_view text = text_of(call).bytes().substr(begin, end - begin);
  call.in.require_defined(call[0]);
  const auto* tuple = call[0].as<Sequence>();
  const bool is_tuple = tuple != nullptr && tuple->is_tuple();
  if (!is_tuple && !call[0].is_string())
    call.in.raise("{} first arg must be str or a tuple of str, not {}", name, type_name(call[0]));
  for (const Value& affix : is_tuple ? std::span(tuple->items) : std::span(&call[0], 1)) {
    if (!affix.is_string())
      call.in.raise("tuple for {} must only contain str, not {}", name, type_name(affix));
    call.in.charge(1);
    call.in.charge_bytes(std::min(affix.bytes().size(), text.size()));
    if (at_end ? text.ends_with(affix.bytes()) : text.starts_with(affix.bytes())) return Value::boolean(true);
  }
  return Value::boolean(false);
}

Value startswith(BuiltinCall& call) { return has_affix<false>(call, "startswith"); }
Value endswith(BuiltinCall& call) { return has_affix<true>(call, "endswith"); }

// Character where the argument stands, or -1.
int64_t position_of(BuiltinCall& call, bool from_right) {
  const std::string_view wanted = string_argument(call, 0).bytes();
  const auto [begin, end] = byte_range(call, 1);
  if (begin == std::string_view::npos) return -1;
  const std::string_view text = text_of(call).bytes();
  call.in.charge_bytes(text.size());
  const std::string_view within = text.substr(begin, end - begin);
  const size_t found =
      from_right ? SearchFromRight(within, wanted).find_before(within.size()) : find_text(within, wanted);
  if (found == std::string_view::npos) return -1;
  return static_cast<int64_t>(count_chars(text.substr(0, begin + found)));
}

template <bool from_right, bool required>
Value find(BuiltinCall& call) {
  const int64_t position = position_of(call, from_right);
  if (required && position < 0) call.in.raise("substring not found");
  return Value::integer(position);
}

Value count(BuiltinCall& call) {
  const std::string_view wanted = string_argument(call, 0).bytes();
  const auto [begin, end] = byte_range(call, 1);
  if (begin == std::string_view::npos) return Value::integer(0);
  const std::string_view within = text_of(call).bytes().substr(begin, end - begin);
  call.in.charge_bytes(within.size());
  if (wanted.empty()) return Value::integer(static_cast<int64_t>(count_chars(within)) + 1);
  int64_t n = 0;
  for (size_t at = 0; (at = find_text(within, wanted, at)) != std::string_view::npos; at += wanted.size())
    ++n;
  return Value::integer(n);
}

template <bool from_right>
Value partition(BuiltinCall& call) {
  const Text& separator = string_argument(call, 0);
  if (separator.empty()) call.in.raise("empty separator");
  const Text& text = text_of(call);
  call.in.charge_bytes(text.size());
  const size_t at = from_right ? SearchFromRight(text.bytes(), separator.bytes()).find_before(text.size())
                               : find_text(text.bytes(), separator.bytes());
  const Value none = result(call, Text());
  if (at == std::string_view::npos)
    return from_right ? call.in.tuple({none, none, call.self}) : call.in.tuple({call.self, none, none});
  const size_t end = at + separator.size();
  return call.in.tuple({result(call, text.part(0, at)), result(call, text.part(at, end)),
                        result(call, text.part(end, text.size()))});
}

Value removeprefix(BuiltinCall& call) {
  const std::string_view prefix = string_argument(call, 0).bytes();
  call.in.charge_bytes(prefix.size());
  if (!text_of(call).bytes().starts_with(prefix)) return call.self;
  return result(call, text_of(call).part(prefix.size(), text_of(call).size()));
}

Value removesuffix(BuiltinCall& call) {
  const std::string_view suffix = string_argument(call, 0).bytes();
  call.in.charge_bytes(suffix.size());
  if (!text_of(call).bytes().ends_with(suffix)) return call.self;
  return result(call, text_of(call).part(0, text_of(call).size() - suffix.size()));
}

// Where the blanks go.
template <Side side>
Value padded(BuiltinCall& call) {
  const Text fill = call.has(1) ? string_argument(call, 1) : Text(" ", Origin::kTemplate);
  if (count_chars(fill.bytes()) != 1) call.in.raise("The fill character must be exactly one character long");
  return result(call, pad(call.in, call.self.as_string(), call.integer(0, 0), fill, side));
}

Value zfill(BuiltinCall& call) {
  const Text& text = text_of(call);
  const bool has_sign = text.bytes().starts_with('-') || text.bytes().starts_with('+');
  const int64_t width = call.integer(0, 0) - int64_t{has_sign};
  Text out = text.part(0, has_sign);
  out.append(pad(call.in, String(text.part(has_sign, text.size())), width, Text("0", Origin::kTemplate),
                 Side::kLeft));
  return result(call, std::move(out));
}

Value expandtabs(BuiltinCall& call) {
  const int64_t size = call.integer(0, 8);
  if (size > 1024) call.in.raise("tabs of more than 1024 columns are not supported");
  Text out;
  int64_t column = 0;
  const Text& text = text_of(call);
  for (size_t at = 0; at < text.size();) {
    const size_t length = char_bytes(text.bytes(), at);
    const char c = text.bytes()[at];
    call.in.charge(1);
    if (c == '\t') {
      const int64_t n = size > 0 ? size - column % size : 0;
      out.append(std::string(static_cast<size_t>(n), ' '), text.origin_at(at));
      column += n;
    } else {
      out.append(text, at, at + length);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    call.in.check_size(out.size());
    at += length;
  }
  return result(call, std::move(out));
}

// Not empty, and every character fits.
template <bool (*fits)(char32_t)>
Value all_are(BuiltinCall& call) {
  const std::string_view text = text_of(call).bytes();
  call.in.charge_bytes(8 * text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t length = char_bytes(text, at);
    if (!fits(code_point(text.substr(at, length)))) return Value::boolean(false);
    at += length;
  }
  return Value::boolean(!text.empty());
}

bool is_alphanumeric(char32_t c) { return is_alphabetic(c) || is_decimal(c); }

Value isascii(BuiltinCall& call) { return Value::boolean(call.self.as_string().is_ascii()); }
Value isprintable(BuiltinCall& call) {
  return Value::boolean(text_of(call).empty() || truth(all_are<is_printable>(call)));
}

template <bool (*wanted)(char32_t), bool (*other)(char32_t)>
Value has_case(BuiltinCall& call) {
  const std::string_view text = text_of(call).bytes();
  call.in.charge_bytes(8 * text.size());
  bool found = false;
  for (size_t at = 0; at < text.size();) {
    const size_t length = char_bytes(text, at);
    const char32_t c = code_point(text.substr(at, length));
    if (other(c)) return Value::boolean(false);
    found |= wanted(c);
    at += length;
  }
  return Value::boolean(found);
}

bool never(char32_t) { return false; }

Value istitle(BuiltinCall& call) {
  const std::string_view text = text_of(call).bytes();
  const bool has_letters = truth(has_case<is_upper, never>(call));
  return Value::boolean(has_letters && title(call.in, text_of(call)).bytes() == text);
}

Value format(BuiltinCall& call) { return format_method(call.in, call.self.as_string(), call.all); }

constexpr Builtin kStringMethods[] = {
    {"strip", "chars", 0, stripped<Side::kBoth>},
    {"lstrip", "chars", 0, stripped<Side::kLeft>},
    {"rstrip", "chars", 0, stripped<Side::kRight>},
    {"split", "sep maxsplit", 0, split_method},
    {"rsplit", "sep maxsplit", 0, rsplit},
    {"splitlines", "keepends", 0, splitlines},
    {"startswith", "prefix start end", 1, startswith},
    {"endswith", "suffix start end", 1, endswith},
    {"replace", "old new count", 2, replace_method},
    {"join", "iterable", 1, join},
    {"upper", "", 0, changed<upper>},
    {"lower", "", 0, changed<lower>},
    {"casefold", "", 0, changed<casefold>},
    {"capitalize", "", 0, changed<capitalize>},
    {"title", "", 0, changed<title>},
    {"swapcase", "", 0, changed<swap_case>},
    {"find", "sub start end", 1, find<false, false>},
    {"rfind", "sub start end", 1, find<true, false>},
    {"index", "sub start end", 1, find<false, true>},
    {"rindex", "sub start end", 1, find<true, true>},
    {"count", "sub start end", 1, count},
    {"partition", "sep", 1, partition<false>},
    {"rpartition", "sep", 1, partition<true>},
    {"removeprefix", "prefix", 1, removeprefix},
    {"removesuffix", "suffix", 1, removesuffix},
    {"center", "width fillchar", 1, padded<Side::kBoth>},
    {"ljust", "width fillchar", 1, padded<Side::kRight>},
    {"rjust", "width fillchar", 1, padded<Side::kLeft>},
    {"zfill", "width", 1, zfill},
    {"expandtabs", "tabsize", 0, expandtabs},
    {"isalnum", "", 0, all_are<is_alphanumeric>},
    {"isalpha", "", 0, all_are<is_alphabetic>},
    {"isdigit", "", 0, all_are<is_decimal>},
    {"isdecimal", "", 0, all_are<is_decimal>},
    {"isnumeric", "", 0, all_are<is_decimal>},
    {"isspace", "", 0, all_are<is_space>},
    {"isascii", "", 0, isascii},
    {"isprintable", "", 0, isprintable},
    {"islower", "", 0, has_case<is_lower, is_upper>},
    {"isupper", "", 0, has_case<is_upper, is_lower>},
    {"istitle", "", 0, istitle},
    {"format", "*", 0, format},
};

}  // namespace

std::span<const Builtin> string_methods() noexcept { return kStringMethods; }

}  // namespace quern::jinja
