// Functions that templates call by name, and the methods of objects that only templates have.
#include <algorithm>

#include "runtime/template/builtins.h"
#include "runtime/template/interpreter.h"
#include "runtime/template/objects.h"
#include "runtime/template/operators.h"
#include "runtime/template/print.h"

namespace quern::jinja {
namespace {

constexpr size_t kMaxRange = 100'000;  // jinja2's sandbox

int64_t whole(BuiltinCall& call, const Value& value) {
  call.in.require_defined(value);
  if (!value.is_whole()) call.in.raise("'{}' object cannot be interpreted as an integer", type_name(value));
  return value.as_integer();
}

void refuse_keywords(BuiltinCall& call, std::string_view name) {
  if (!call.all.keywords.empty()) call.in.raise("{}() takes no keyword arguments", name);
}

Value range(BuiltinCall& call) {
  refuse_keywords(call, "range");
  const std::vector<Value>& given = call.all.positional;
  if (given.empty() || given.size() > 3)
    call.in.raise("range expected 1 to 3 arguments, got {}", given.size());
  const int64_t first = whole(call, given[0]);
  const int64_t stop = given.size() > 1 ? whole(call, given[1]) : first;
  const int64_t step = given.size() > 2 ? whole(call, given[2]) : 1;
  if (step == 0) call.in.raise("range() arg 3 must not be zero");
  auto* made = call.in.make<Range>(given.size() > 1 ? first : 0, stop, step);
  if (made->size() > kMaxRange)
    call.in.raise("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", kMaxRange);
  return Value::object(made);
}

// dict(mapping or pairs, name=value, ...)
Dict* make_dict(BuiltinCall& call) {
  auto* dict = call.in.make<Dict>();
  if (call.all.positional.size() > 1)
    call.in.raise("dict expected at most 1 argument, got {}", call.all.positional.size());
  if (!call.all.positional.empty()) {
    const Value& from = call.all.positional.front();
    call.in.require_defined(from);
    if (const auto* other = from.as<Dict>()) {
      for (const auto& [key, value] : other->entries()) dict->set(call.in, key, value);
    } else {
      for (const Value& item : iterate(call.in, from)) {
        const std::vector<Value> pair = iterate(call.in, item);
        if (pair.size() != 2)
          call.in.raise("dictionary update sequence element has length {}; 2 is required", pair.size());
        dict->set(call.in, pair[0], pair[1]);
      }
    }
  }
  for (const auto& [name, value] : call.all.keywords) dict->set(call.in, Value::string(name), value);
  return dict;
}

Value dict(BuiltinCall& call) { return Value::object(make_dict(call)); }

Value make_namespace(BuiltinCall& call) {
  auto* made = call.in.make<Namespace>();
  for (const auto& [key, value] : make_dict(call)->entries()) {
    if (!key.is_string()) call.in.raise("attribute name must be string, not '{}'", type_name(key));
    made->set(key.bytes(), value);
  }
  return Value::object(made);
}

Value cycler(BuiltinCall& call) {
  refuse_keywords(call, "cycler");
  if (call.all.positional.empty()) call.in.raise("at least one item has to be provided");
  return Value::object(call.in.make<Cycler>(call.all.positional));
}

Value joiner(BuiltinCall& call) {
  return Value::object(call.in.make<Joiner>(call.has(0) ? call[0] : Value::string(", ", Origin::kTemplate)));
}

Value raise_exception(BuiltinCall& call) { call.in.raise_text(to_text(call.in, call[0]).bytes()); }

Value strftime_now(BuiltinCall& call) {
  call.in.require_defined(call[0]);
  if (!call[0].is_string()) call.in.raise("strftime() argument 1 must be str, not {}", type_name(call[0]));
  call.in.charge(call[0].bytes().size() * 4);
  return call.in.text(call.in.clock().format(call[0].bytes()), Origin::kTemplate);
}

Value next(BuiltinCall& call) {
  auto* cycler = call.self.as<Cycler>();
  Value value = cycler->items[cycler->position];
  cycler->position = (cycler->position + 1) % cycler->items.size();
  return value;
}

Value reset(BuiltinCall& call) {
  call.self.as<Cycler>()->position = 0;
  return Value();
}

Value cycle(BuiltinCall& call) {
  const std::vector<Value>& items = call.all.positional;
  if (items.empty()) call.in.raise("no items for cycling given");
  return items[call.self.as<Loop>()->index % items.size()];
}

Value changed(BuiltinCall& call) {
  return Value::boolean(call.self.as<Loop>()->changed(call.in, call.all.positional));
}

constexpr Builtin kFunctions[] = {
    {"range", "*", 0, range},
    {"dict", "*", 0, dict},
    {"namespace", "*", 0, make_namespace},
    {"cycler", "*", 0, cycler},
    {"joiner", "sep", 0, joiner},
    {"raise_exception", "message", 1, raise_exception},
    {"strftime_now", "format", 1, strftime_now},
};
constexpr Builtin kCyclerMethods[] = {{"next", "", 0, next}, {"reset", "", 0, reset}};
constexpr Builtin kLoopMethods[] = {{"cycle", "*", 0, cycle}, {"changed", "*", 0, changed}};

}  // namespace

std::span<const Builtin> functions() noexcept { return kFunctions; }
std::span<const Builtin> cycler_methods() noexcept { return kCyclerMethods; }
std::span<const Builtin> loop_methods() noexcept { return kLoopMethods; }

}  // namespace quern::jinja
