// Tests: what stands behind `is`.
#include <algorithm>

#include "runtime/template/builtins.h"
#include "runtime/template/interpreter.h"
#include "runtime/template/objects.h"
#include "runtime/template/operators.h"
#include "runtime/template/print.h"
#include "runtime/template/unicode.h"

namespace quern::jinja {
namespace {

Value yes_or_no(bool value) { return Value::boolean(value); }

Value remainder_is(BuiltinCall& call, int64_t wanted) {
  return yes_or_no(equals(call.in, modulo(call.in, call.self, Value::integer(2)), Value::integer(wanted)));
}

// All cased characters are of one case, and there is one.
bool has_case(std::string_view text, bool (*wanted)(char32_t), bool (*other)(char32_t)) {
  bool found = false;
  for (size_t at = 0; at < text.size();) {
    const size_t length = char_bytes(text, at);
    const char32_t c = code_point(text.substr(at, length));
    if (other(c)) return false;
    found |= wanted(c);
    at += length;
  }
  return found;
}

Value is_cased(BuiltinCall& call, bool (*wanted)(char32_t), bool (*other)(char32_t)) {
  const Text text = to_text(call.in, call.self);
  call.in.charge_bytes(8 * text.size());
  return yes_or_no(has_case(text.bytes(), wanted, other));
}

bool names_row(std::span<const Builtin> table, const Value& name) {
  return name.is_string() && find_builtin(table, name.bytes()) != nullptr;
}

Value is_odd(BuiltinCall& call) { return remainder_is(call, 1); }
Value is_even(BuiltinCall& call) { return remainder_is(call, 0); }
Value is_divisible(BuiltinCall& call) {
  return yes_or_no(equals(call.in, modulo(call.in, call.self, call[0]), Value::integer(0)));
}
Value is_defined(BuiltinCall& call) { return yes_or_no(!call.self.is_undefined()); }
Value is_undefined(BuiltinCall& call) { return yes_or_no(call.self.is_undefined()); }
Value is_filter(BuiltinCall& call) { return yes_or_no(names_row(filters(), call.self)); }
Value is_test(BuiltinCall& call) { return yes_or_no(names_row(tests(), call.self)); }
Value is_none(BuiltinCall& call) { return yes_or_no(call.self.is_none()); }
Value is_boolean(BuiltinCall& call) { return yes_or_no(call.self.is_bool()); }
Value is_false(BuiltinCall& call) { return yes_or_no(call.self.is_bool() && !call.self.as_bool()); }
Value is_true(BuiltinCall& call) { return yes_or_no(call.self.is_bool() && call.self.as_bool()); }
Value is_integer(BuiltinCall& call) { return yes_or_no(call.self.is_whole() && !call.self.is_bool()); }
Value is_float(BuiltinCall& call) { return yes_or_no(call.self.is_float()); }
Value is_lower_case(BuiltinCall& call) { return is_cased(call, is_lower, is_upper); }
Value is_upper_case(BuiltinCall& call) { return is_cased(call, is_upper, is_lower); }
Value is_string(BuiltinCall& call) { return yes_or_no(call.self.is_string()); }
Value is_mapping(BuiltinCall& call) { return yes_or_no(call.self.as<Dict>() != nullptr); }
Value is_number(BuiltinCall& call) { return yes_or_no(call.self.is_number()); }
Value is_sequence(BuiltinCall& call) {
  const Object* object = call.self.as_object();
  return yes_or_no(call.self.is_string() || call.self.is_undefined() ||
                   (object != nullptr && object->has_items()));
}
Value is_iterable_value(BuiltinCall& call) { return yes_or_no(is_iterable(call.self)); }
Value is_callable(BuiltinCall& call) {
  const Object* object = call.self.as_object();
  return yes_or_no(call.self.is_undefined() || (object != nullptr && object->is_callable()));
}
Value is_same_as(BuiltinCall& call) { return yes_or_no(call.self.is_same(call[0])); }
Value is_escaped(BuiltinCall& call) { return yes_or_no(call.self.is_markup()); }

template <bool (*holds)(Interpreter&, const Value&, const Value&)>
Value compares(BuiltinCall& call) {
  return yes_or_no(holds(call.in, call.self, call[0]));
}

constexpr Builtin kTests[] = {
    {"odd", "", 0, is_odd},
    {"even", "", 0, is_even},
    {"divisibleby", "num", 1, is_divisible},
    {"defined", "", 0, is_defined},
    {"undefined", "", 0, is_undefined},
    {"filter", "", 0, is_filter},
    {"test", "", 0, is_test},
    {"none", "", 0, is_none},
    {"boolean", "", 0, is_boolean},
    {"false", "", 0, is_false},
    {"true", "", 0, is_true},
    {"integer", "", 0, is_integer},
    {"float", "", 0, is_float},
    {"lower", "", 0, is_lower_case},
    {"upper", "", 0, is_upper_case},
    {"string", "", 0, is_string},
    {"mapping", "", 0, is_mapping},
    {"number", "", 0, is_number},
    {"sequence", "", 0, is_sequence},
    {"iterable", "", 0, is_iterable_value},
    {"callable", "", 0, is_callable},
    {"sameas", "other", 1, is_same_as},
    {"escaped", "", 0, is_escaped},
    {"in", "seq", 1, compares<is_in>},
    {"==", "other", 1, compares<equals>},
    {"eq", "other", 1, compares<equals>},
    {"equalto", "other", 1, compares<equals>},
    {"!=", "other", 1, compares<differs>},
    {"ne", "other", 1, compares<differs>},
    {">", "other", 1, compares<greater>},
    {"gt", "other", 1, compares<greater>},
    {"greaterthan", "other", 1, compares<greater>},
    {">=", "other", 1, compares<greater_or_equal>},
    {"ge", "other", 1, compares<greater_or_equal>},
    {"<", "other", 1, compares<less>},
    {"lt", "other", 1, compares<less>},
    {"lessthan", "other", 1, compares<less>},
    {"<=", "other", 1, compares<less_or_equal>},
    {"le", "other", 1, compares<less_or_equal>},
};

}  // namespace

std::span<const Builtin> tests() noexcept { return kTests; }

}  // namespace quern::jinja
