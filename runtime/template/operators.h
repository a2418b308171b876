// What the operators of expressions do, as Python does it. Raising goes through the interpreter, which knows
// the place.
#pragma once

#include "runtime/template/value.h"

namespace quern::jinja {

Value add(Interpreter& in, const Value& a, const Value& b);
Value subtract(Interpreter& in, const Value& a, const Value& b);
Value multiply(Interpreter& in, const Value& a, const Value& b);
Value divide(Interpreter& in, const Value& a, const Value& b);
Value floor_divide(Interpreter& in, const Value& a, const Value& b);
Value modulo(Interpreter& in, const Value& a, const Value& b);  // of a string: formatting
Value power(Interpreter& in, const Value& a, const Value& b);
Value negate(Interpreter& in, const Value& a);
Value posit(Interpreter& in, const Value& a);

bool equals(Interpreter& in, const Value& a, const Value& b);
bool differs(Interpreter& in, const Value& a, const Value& b);
bool less(Interpreter& in, const Value& a, const Value& b);
bool less_or_equal(Interpreter& in, const Value& a, const Value& b);
bool greater(Interpreter& in, const Value& a, const Value& b);
bool greater_or_equal(Interpreter& in, const Value& a, const Value& b);
bool is_in(Interpreter& in, const Value& a, const Value& b);
bool is_not_in(Interpreter& in, const Value& a, const Value& b);

// x.name and x[key] as jinja2's sandbox looks them up: what there is not is undefined, what would change a
// value or reach inside Python is refused when it is used.
Value get_attribute(Interpreter& in, const Value& object, std::string_view name);
Value get_item(Interpreter& in, const Value& object, const Value& key);
// An attribute only, never a key: what the filter `attr` gives.
Value get_python_attribute(Interpreter& in, const Value& object, std::string_view name);
// Null: not given.
Value get_slice(Interpreter& in, const Value& object, const Value* start, const Value* stop,
                const Value* step);

// The values that a loop over `value` visits. Raises "'int' object is not iterable".
std::vector<Value> iterate(Interpreter& in, const Value& value);
bool is_iterable(const Value& value);
// len(value); absent where Python has none.
std::optional<size_t> length(const Value& value);

}  // namespace quern::jinja
