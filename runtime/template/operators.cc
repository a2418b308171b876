#include "runtime/template/operators.h"

#include <algorithm>
#include <cmath>

#include "runtime/template/formatting.h"
#include "runtime/template/interpreter.h"
#include "runtime/template/markup.h"
#include "runtime/template/objects.h"
#include "runtime/template/print.h"
#include "runtime/template/search.h"

namespace quern::jinja {
namespace {

[[noreturn]] void refuse_operands(Interpreter& in, std::string_view op, const Value& a, const Value& b) {
  in.require_defined(a);
  in.require_defined(b);
  in.raise("unsupported operand type(s) for {}: '{}' and '{}'", op, type_name(a), type_name(b));
}

bool are_whole(const Value& a, const Value& b) { return a.is_whole() && b.is_whole(); }
bool are_numbers(const Value& a, const Value& b) { return a.is_number() && b.is_number(); }

// The result of an operation on integers, when it is one.
Value checked(Interpreter& in, bool overflows, int64_t result) {
  if (overflows) in.raise("integers beyond 64 bits are not supported");
  return Value::integer(result);
}

Value add_strings(Interpreter& in, const Value& a, const Value& b) {
  const bool markup = a.is_markup() || b.is_markup();
  Text sum = a.is_markup() || !markup ? a.as_text() : escape(in, a.as_text());
  in.check_size(sum.size() + b.bytes().size());
  if (b.is_markup() || !markup)
    sum.append(b.as_text());
  else
    sum.append(escape(in, b.as_text()));
  return in.text(std::move(sum), markup);
}

Value repeat(Interpreter& in, const Value& what, int64_t times) {
  const auto n = static_cast<uint64_t>(std::max<int64_t>(times, 0));
  if (what.is_string()) {
    const size_t size = what.bytes().size();
    if (size > 0 && n > kMaxTextBytes / size) in.check_size(kMaxTextBytes + 1);
    Text text;
    if (size == 0) return what;
    in.charge(n / 8);
    for (uint64_t i = 0; i < n; ++i) text.append(what.as_text());
    return in.text(std::move(text), what.is_markup());
  }
  const auto* sequence = what.as<Sequence>();
  std::vector<Value> items;
  for (uint64_t i = 0; i < n && !sequence->items.empty(); ++i) {
    in.charge(2 * sequence->items.size());
    items.insert(items.end(), sequence->items.begin(), sequence->items.end());
  }
  return sequence->is_tuple() ? in.tuple(std::move(items)) : in.list(std::move(items));
}

void require_divisor(Interpreter& in, const Value& b, std::string_view what) {
  if (b.as_number() == 0) in.raise("{}", what);
}

// Less, equal, greater than 0; absent: not ordered (NaN).
std::optional<int> compare_numbers(const Value& a, const Value& b) {
  if (are_whole(a, b)) return a.as_integer() < b.as_integer() ? -1 : a.as_integer() > b.as_integer();
  const double x = a.as_number(), y = b.as_number();
  if (std::isnan(x) || std::isnan(y)) return std::nullopt;
  return x < y ? -1 : x > y;
}

bool equals_within(Interpreter& in, const Value& a, const Value& b, int depth) {
  in.charge(1);
  in.check_depth(depth);
  if (are_numbers(a, b)) return compare_numbers(a, b) == 0;
  if (a.is_string() && b.is_string()) {
    in.charge_bytes(std::min(a.bytes().size(), b.bytes().size()));
    return a.bytes() == b.bytes();
  }
  if (a.kind() != b.kind()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (a.as_object() == b.as_object()) return true;
  const auto* list = a.as<Sequence>();
  const auto* other_list = b.as<Sequence>();
  if (list != nullptr && other_list != nullptr) {
    return list->type() == other_list->type() && list->items.size() == other_list->items.size() &&
           std::equal(list->items.begin(), list->items.end(), other_list->items.begin(),
                      [&](const Value& x, const Value& y) { return equals_within(in, x, y, depth + 1); });
  }
  const auto* dict = a.as<Dict>();
  const auto* other_dict = b.as<Dict>();
  if (dict != nullptr && other_dict != nullptr) {
    return dict->entries().size() == other_dict->entries().size() &&
           std::all_of(dict->entries().begin(), dict->entries().end(), [&](const auto& entry) {
             const Value* found = other_dict->find(in, entry.first);
             return found != nullptr && equals_within(in, entry.second, *found, depth + 1);
           });
  }
  auto* range = a.as<Range>();
  auto* other_range = b.as<Range>();
  if (range != nullptr && other_range != nullptr) {
    const size_t n = range->size();
    return n == other_range->size() && (n == 0 || range->at(0) == other_range->at(0)) &&
           (n < 2 || range->step() == other_range->step());
  }
  return false;
}

// -1, 0, 1; absent: not ordered. `op` is for the message.
std::optional<int> compare(Interpreter& in, const Value& a, const Value& b, std::string_view op, int depth) {
  in.charge(1);
  in.check_depth(depth);
  in.require_defined(a);
  in.require_defined(b);
  if (are_numbers(a, b)) return compare_numbers(a, b);
  if (a.is_string() && b.is_string()) {
    in.charge_bytes(std::min(a.bytes().size(), b.bytes().size()));
    const int order = a.bytes().compare(b.bytes());  // UTF-8 sorts as code points do
    return order < 0 ? -1 : order > 0;
  }
  const auto* list = a.as<Sequence>();
  const auto* other = b.as<Sequence>();
  if (list == nullptr || other == nullptr || list->type() != other->type())
    in.raise("'{}' not supported between instances of '{}' and '{}'", op, type_name(a), type_name(b));
  const size_t n = std::min(list->items.size(), other->items.size());
  for (size_t i = 0; i < n; ++i)
    if (!equals_within(in, list->items[i], other->items[i], depth + 1))
      return compare(in, list->items[i], other->items[i], op, depth + 1);
  return list->items.size() < other->items.size() ? -1 : list->items.size() > other->items.size();
}

// Names that are attributes of every Python object; the sandbox gives none of them out.
bool is_internal_name(std::string_view name) {
  static constexpr std::string_view kNames[] = {
      "__class__",        "__delattr__", "__dict__",    "__dir__",           "__doc__",
      "__eq__",           "__format__",  "__ge__",      "__getattribute__",  "__getstate__",
      "__gt__",           "__hash__",    "__init__",    "__init_subclass__", "__le__",
      "__lt__",           "__module__",  "__ne__",      "__new__",           "__reduce__",
      "__reduce_ex__",    "__repr__",    "__setattr__", "__sizeof__",        "__str__",
      "__subclasshook__", "__globals__", "__len__",     "__iter__",          "__contains__",
      "__getitem__",      "__add__",     "__mul__",     "__call__",          "__self__",
      "__name__",         "__mro__",     "__bases__",   "__subclasses__"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

// Methods that would change a list or a dictionary.
bool is_mutator(const Value& object, std::string_view name) {
  static constexpr std::string_view kOfLists[] = {"append", "clear",  "extend",  "insert",
                                                  "pop",    "remove", "reverse", "sort"};
  static constexpr std::string_view kOfDicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
  const auto* list = object.as<Sequence>();
  if (list != nullptr && !list->is_tuple())
    return std::find(std::begin(kOfLists), std::end(kOfLists), name) != std::end(kOfLists);
  return object.as<Dict>() != nullptr &&
         std::find(std::begin(kOfDicts), std::end(kOfDicts), name) != std::end(kOfDicts);
}

// An attribute in Python's sense; absent where there is none.
std::optional<Value> find_attribute(Interpreter& in, const Value& object, std::string_view name) {
  const bool is_namespace = object.as<Namespace>() != nullptr;
  if ((is_internal_name(name) && !is_namespace) || is_mutator(object, name))
    return Value::undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(object)));
  if (object.is_string()) {
    const Builtin* method = find_builtin(string_methods(), name);
    if (method == nullptr) return std::nullopt;
    return Value::object(in.make<Function>(*method, object));
  }
  Object* of = object.as_object();
  return of != nullptr ? of->attribute(in, name) : std::nullopt;
}

// A part of a text by characters.
Value characters(Interpreter& in, const Value& string, size_t begin, size_t end) {
  const std::string_view bytes = string.bytes();
  if (string.as_string().is_ascii()) return in.text(string.as_text().part(begin, end), string.is_markup());
  in.charge_bytes(bytes.size());
  const size_t first = byte_of_char(bytes, begin);
  const size_t last = first + byte_of_char(bytes.substr(first), end - begin);
  return in.text(string.as_text().part(first, last), string.is_markup());
}

std::optional<Value> find_item(Interpreter& in, const Value& object, const Value& key) {
  if (object.is_string()) {
    if (!key.is_whole()) return std::nullopt;
    const auto size = static_cast<int64_t>(object.as_string().n_chars());
    const int64_t index = key.as_integer() < 0 ? key.as_integer() + size : key.as_integer();
    if (index < 0 || index >= size) return std::nullopt;
    return characters(in, object, static_cast<size_t>(index), static_cast<size_t>(index) + 1);
  }
  Object* of = object.as_object();
  return of != nullptr ? of->item(in, key) : std::nullopt;
}

Value missing(Interpreter& in, const Value& object, const Value& key) {
  in.charge(4);
  if (key.is_string())
    return Value::undefined(fmt::format("'{}' has no attribute {}", type_description(object), [&] {
      Text repr;
      print_repr(in, Value::string(key.as_text()), &repr, 0);
      return repr.string();
    }()));
  Text repr;
  print_repr(in, key, &repr, 0);
  return Value::undefined(fmt::format("{} has no element {}", type_description(object), repr.string()));
}

// Python's slice.indices.
struct Indices {
  int64_t start, stop, step, n;
};

int64_t whole_bound(Interpreter& in, const Value* bound, int64_t fallback) {
  if (bound == nullptr || bound->is_none()) return fallback;
  in.require_defined(*bound);
  if (!bound->is_whole()) in.raise("slice indices must be integers or None or have an __index__ method");
  return bound->as_integer();
}

Indices slice_indices(Interpreter& in, const Value* start, const Value* stop, const Value* step,
                      int64_t size) {
  const int64_t by = whole_bound(in, step, 1);
  if (by == 0) in.raise("slice step cannot be zero");
  const int64_t lowest = by < 0 ? -1 : 0, highest = by < 0 ? size - 1 : size;
  const auto bound = [&](const Value* value, int64_t fallback) {
    int64_t at = whole_bound(in, value, fallback);
    if (value == nullptr || value->is_none()) return at;
    if (at < 0) at = at < -size ? lowest : at + size;
    return std::clamp(at, lowest, highest);
  };
  const int64_t first = bound(start, by < 0 ? highest : lowest);
  const int64_t end = bound(stop, by < 0 ? lowest : highest);
  const int64_t distance = by < 0 ? first - end : end - first;
  const int64_t stride = by == INT64_MIN ? INT64_MAX : std::abs(by);
  return {first, end, by, distance > 0 ? (distance - 1) / stride + 1 : 0};
}

}  // namespace

Value add(Interpreter& in, const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) return add_strings(in, a, b);
  if (are_whole(a, b)) {
    int64_t sum;
    const bool overflows = __builtin_add_overflow(a.as_integer(), b.as_integer(), &sum);
    return checked(in, overflows, sum);
  }
  if (are_numbers(a, b)) return Value::number(a.as_number() + b.as_number());
  const auto* list = a.as<Sequence>();
  const auto* other = b.as<Sequence>();
  if (list != nullptr && other != nullptr && list->type() == other->type()) {
    std::vector<Value> items = list->items;
    items.insert(items.end(), other->items.begin(), other->items.end());
    return list->is_tuple() ? in.tuple(std::move(items)) : in.list(std::move(items));
  }
  in.require_defined(a);
  in.require_defined(b);
  if (a.is_string()) in.raise("can only concatenate str (not \"{}\") to str", type_name(b));
  if (list != nullptr) in.raise("can only concatenate {0} (not \"{1}\") to {0}", type_name(a), type_name(b));
  refuse_operands(in, "+", a, b);
}

Value subtract(Interpreter& in, const Value& a, const Value& b) {
  if (are_whole(a, b)) {
    int64_t difference;
    const bool overflows = __builtin_sub_overflow(a.as_integer(), b.as_integer(), &difference);
    return checked(in, overflows, difference);
  }
  if (are_numbers(a, b)) return Value::number(a.as_number() - b.as_number());
  refuse_operands(in, "-", a, b);
}

Value multiply(Interpreter& in, const Value& a, const Value& b) {
  if (are_whole(a, b)) {
    int64_t product;
    const bool overflows = __builtin_mul_overflow(a.as_integer(), b.as_integer(), &product);
    return checked(in, overflows, product);
  }
  if (are_numbers(a, b)) return Value::number(a.as_number() * b.as_number());
  const auto repeats = [](const Value& value) {
    return value.is_string() || value.as<Sequence>() != nullptr;
  };
  if (repeats(a) && b.is_whole()) return repeat(in, a, b.as_integer());
  if (repeats(b) && a.is_whole()) return repeat(in, b, a.as_integer());
  in.require_defined(a);
  in.require_defined(b);
  if (repeats(a)) in.raise("can't multiply sequence by non-int of type '{}'", type_name(b));
  if (repeats(b)) in.raise("can't multiply sequence by non-int of type '{}'", type_name(a));
  refuse_operands(in, "*", a, b);
}

Value divide(Interpreter& in, const Value& a, const Value& b) {
  if (!are_numbers(a, b)) refuse_operands(in, "/", a, b);
  require_divisor(in, b, are_whole(a, b) ? "division by zero" : "float division by zero");
  return Value::number(a.as_number() / b.as_number());
}

Value floor_divide(Interpreter& in, const Value& a, const Value& b) {
  if (!are_numbers(a, b)) refuse_operands(in, "//", a, b);
  require_divisor(in, b,
                  are_whole(a, b) ? "integer division or modulo by zero" : "float floor division by zero");
  if (!are_whole(a, b)) {
    const double x = a.as_number(), y = b.as_number();
    double remainder = std::fmod(x, y);
    double quotient = (x - remainder) / y;
    if (remainder != 0 && (remainder < 0) != (y < 0)) quotient -= 1;
    if (quotient == 0) return Value::number(std::copysign(0.0, x / y));
    const double floor = std::floor(quotient);
    return Value::number(quotient - floor > 0.5 ? floor + 1 : floor);
  }
  const int64_t x = a.as_integer(), y = b.as_integer();
  if (x == INT64_MIN && y == -1) checked(in, true, 0);
  const int64_t quotient = x / y;
  return Value::integer(x % y != 0 && (x < 0) != (y < 0) ? quotient - 1 : quotient);
}

Value modulo(Interpreter& in, const Value& a, const Value& b) {
  if (a.is_string()) return percent_format(in, a, b);
  if (!are_numbers(a, b)) refuse_operands(in, "%", a, b);
  require_divisor(in, b, are_whole(a, b) ? "integer modulo by zero" : "float modulo");
  if (!are_whole(a, b)) {
    const double y = b.as_number();
    const double remainder = std::fmod(a.as_number(), y);
    if (remainder == 0) return Value::number(std::copysign(0.0, y));
    return Value::number((remainder < 0) != (y < 0) ? remainder + y : remainder);
  }
  const int64_t y = b.as_integer();
  const int64_t remainder = y == -1 ? 0 : a.as_integer() % y;
  return Value::integer(remainder != 0 && (remainder < 0) != (y < 0) ? remainder + y : remainder);
}

Value power(Interpreter& in, const Value& a, const Value& b) {
  if (!are_numbers(a, b)) refuse_operands(in, "** or pow()", a, b);
  if (are_whole(a, b) && b.as_integer() >= 0) {
    int64_t result = 1, base = a.as_integer();
    bool overflows = false;
    for (int64_t exponent = b.as_integer(); exponent > 0 && !overflows; exponent >>= 1) {
      if ((exponent & 1) != 0) overflows |= __builtin_mul_overflow(result, base, &result);
      if (exponent > 1) overflows |= __builtin_mul_overflow(base, base, &base);
    }
    return checked(in, overflows, result);
  }
  if (a.as_number() == 0 && b.as_number() < 0) in.raise("0.0 cannot be raised to a negative power");
  const double result = std::pow(a.as_number(), b.as_number());
  if (std::isnan(result) && !std::isnan(a.as_number()) && !std::isnan(b.as_number()))
    in.raise("complex numbers are not supported");
  if (std::isinf(result) && std::isfinite(a.as_number()) && std::isfinite(b.as_number()))
    in.raise("(34, 'Numerical result out of range')");
  return Value::number(result);
}

Value negate(Interpreter& in, const Value& a) {
  if (a.is_whole()) return subtract(in, Value::integer(0), a);
  if (a.is_float()) return Value::number(-a.as_number());
  in.require_defined(a);
  in.raise("bad operand type for unary -: '{}'", type_name(a));
}

Value posit(Interpreter& in, const Value& a) {
  if (a.is_whole()) return Value::integer(a.as_integer());
  if (a.is_float()) return a;
  in.require_defined(a);
  in.raise("bad operand type for unary +: '{}'", type_name(a));
}

bool equals(Interpreter& in, const Value& a, const Value& b) { return equals_within(in, a, b, 0); }
bool differs(Interpreter& in, const Value& a, const Value& b) { return !equals(in, a, b); }
bool less(Interpreter& in, const Value& a, const Value& b) { return compare(in, a, b, "<", 0) == -1; }
bool less_or_equal(Interpreter& in, const Value& a, const Value& b) {
  const auto order = compare(in, a, b, "<=", 0);
  return order && *order <= 0;
}
bool greater(Interpreter& in, const Value& a, const Value& b) { return compare(in, a, b, ">", 0) == 1; }
bool greater_or_equal(Interpreter& in, const Value& a, const Value& b) {
  const auto order = compare(in, a, b, ">=", 0);
  return order && *order >= 0;
}

bool is_in(Interpreter& in, const Value& a, const Value& b) {
  if (b.is_string()) {
    if (!a.is_string()) in.raise("'in <string>' requires string as left operand, not {}", type_name(a));
    in.charge_bytes(b.bytes().size());
    return find_text(b.bytes(), a.bytes()) != std::string_view::npos;
  }
  if (const auto* dict = b.as<Dict>()) return dict->find(in, a) != nullptr;
  if (!is_iterable(b)) in.raise("argument of type '{}' is not iterable", type_name(b));
  const std::vector<Value> items = iterate(in, b);
  return std::any_of(items.begin(), items.end(),
                     [&](const Value& item) { return a.is_same(item) || equals(in, a, item); });
}

bool is_not_in(Interpreter& in, const Value& a, const Value& b) { return !is_in(in, a, b); }

Value get_attribute(Interpreter& in, const Value& object, std::string_view name) {
  in.require_defined(object);
  if (std::optional<Value> value = find_attribute(in, object, name)) return *std::move(value);
  const Value key = Value::string(std::string(name), Origin::kTemplate);
  if (const auto* dict = object.as<Dict>()) {
    if (const Value* value = dict->find(name)) return *value;
  }
  return missing(in, object, key);
}

Value get_python_attribute(Interpreter& in, const Value& object, std::string_view name) {
  if (std::optional<Value> value = find_attribute(in, object, name)) return *std::move(value);
  return missing(in, object, Value::string(std::string(name), Origin::kTemplate));
}

Value get_item(Interpreter& in, const Value& object, const Value& key) {
  in.require_defined(object);
  if (std::optional<Value> value = find_item(in, object, key)) return *std::move(value);
  if (key.is_string()) {
    if (std::optional<Value> value = find_attribute(in, object, key.bytes())) return *std::move(value);
  }
  return missing(in, object, key);
}

Value get_slice(Interpreter& in, const Value& object, const Value* start, const Value* stop,
                const Value* step) {
  in.require_defined(object);
  const auto* sequence = object.as<Sequence>();
  auto* range = object.as<Range>();
  if (!object.is_string() && sequence == nullptr && range == nullptr) {
    if (object.as<Dict>() != nullptr) in.raise("unhashable type: 'slice'");
    in.raise("'{}' object is not subscriptable", type_name(object));
  }
  const size_t size = *length(object);
  const Indices indices = slice_indices(in, start, stop, step, static_cast<int64_t>(size));
  const auto index = [&](int64_t i) { return static_cast<size_t>(indices.start + i * indices.step); };
  if (object.is_string()) {
    if (indices.step == 1 || indices.n == 0)
      return characters(in, object, indices.n == 0 ? 0 : index(0), indices.n == 0 ? 0 : index(indices.n));
    std::vector<size_t> starts;  // bytes where characters begin
    in.charge(size);
    for (size_t at = 0; at < object.bytes().size(); at += char_bytes(object.bytes(), at))
      starts.push_back(at);
    starts.push_back(object.bytes().size());
    Text text;
    for (int64_t i = 0; i < indices.n; ++i)
      text.append(object.as_text(), starts[index(i)], starts[index(i) + 1]);
    return in.text(std::move(text), object.is_markup());
  }
  if (range != nullptr) {
    const auto bound = [&](int64_t i) {
      return add(in, Value::integer(range->at(0)),
                 multiply(in, Value::integer(i), Value::integer(range->step())));
    };
    const Value by = multiply(in, Value::integer(range->step()), Value::integer(indices.step));
    return Value::object(
        in.make<Range>(bound(indices.start).as_integer(), bound(indices.stop).as_integer(), by.as_integer()));
  }
  std::vector<Value> items;
  for (int64_t i = 0; i < indices.n; ++i) items.push_back(sequence->items[index(i)]);
  return sequence->is_tuple() ? in.tuple(std::move(items)) : in.list(std::move(items));
}

std::vector<Value> iterate(Interpreter& in, const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is_string()) {
    const Text& text = value.as_text();
    in.charge(8 * value.as_string().n_chars());  // a string each
    std::vector<Value> items;
    for (size_t at = 0; at < text.size();) {
      const size_t length = char_bytes(text.bytes(), at);
      items.push_back(Value::string(text.part(at, at + length), value.is_markup()));
      at += length;
    }
    return items;
  }
  if (!is_iterable(value)) in.raise("'{}' object is not iterable", type_name(value));
  std::vector<Value> items = value.as_object()->iterate();
  in.charge(items.size());
  return items;
}

bool is_iterable(const Value& value) {
  const Object* object = value.as_object();
  return value.is_undefined() || value.is_string() || (object != nullptr && object->is_iterable());
}

std::optional<size_t> length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) return value.as_string().n_chars();
  const Object* object = value.as_object();
  return object != nullptr ? object->length() : std::nullopt;
}

}  // namespace quern::jinja
