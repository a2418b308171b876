// Methods of lists, tuples and dictionaries. Those that would change them are refused where attributes are
// looked up.
#include <algorithm>

#include "runtime/template/builtins.h"
#include "runtime/template/interpreter.h"
#include "runtime/template/objects.h"
#include "runtime/template/operators.h"
#include "runtime/template/print.h"

namespace quern::jinja {
namespace {

const std::vector<Value>& items_of(BuiltinCall& call) { return call.self.as<Sequence>()->items; }

Value count(BuiltinCall& call) {
  const auto& items = items_of(call);
  return Value::integer(std::count_if(items.begin(), items.end(),
                                      [&](const Value& item) { return equals(call.in, item, call[0]); }));
}

int64_t bound(BuiltinCall& call, size_t argument, int64_t fallback, int64_t size) {
  if (!call.has(argument)) return fallback;
  if (!call[argument].is_whole()) call.in.raise("slice indices must be integers or have an __index__ method");
  const int64_t value = call[argument].as_integer();
  return std::clamp<int64_t>(value < 0 ? value + size : value, 0, size);
}

Value index(BuiltinCall& call) {
  const auto& items = items_of(call);
  const auto size = static_cast<int64_t>(items.size());
  const int64_t stop = bound(call, 2, size, size);
  for (int64_t i = bound(call, 1, 0, size); i < stop; ++i)
    if (equals(call.in, items[static_cast<size_t>(i)], call[0])) return Value::integer(i);
  Text repr;
  print_repr(call.in, call[0], &repr, 0);
  call.in.raise("{} is not in list", repr.bytes());
}

Value copy_list(BuiltinCall& call) { return call.in.list(items_of(call)); }

const Dict& dict_of(BuiltinCall& call) { return *call.self.as<Dict>(); }

Value get(BuiltinCall& call) {
  if (const Value* value = dict_of(call).find(call.in, call[0])) return *value;
  return call.has(1) ? call[1] : Value();
}

Value view(BuiltinCall& call, std::string_view name,
           Value (*of)(Interpreter&, const std::pair<Value, Value>&)) {
  std::vector<Value> values;
  for (const auto& entry : dict_of(call).entries()) values.push_back(of(call.in, entry));
  call.in.charge(values.size());
  return Value::object(call.in.make<DictView>(name, std::move(values)));
}

Value items(BuiltinCall& call) {
  return view(call, "dict_items", [](Interpreter& in, const std::pair<Value, Value>& entry) {
    return in.tuple({entry.first, entry.second});
  });
}

Value keys(BuiltinCall& call) {
  return view(call, "dict_keys",
              [](Interpreter&, const std::pair<Value, Value>& entry) { return entry.first; });
}

Value values(BuiltinCall& call) {
  return view(call, "dict_values",
              [](Interpreter&, const std::pair<Value, Value>& entry) { return entry.second; });
}

Value copy_dict(BuiltinCall& call) {
  auto* copy = call.in.make<Dict>();
  for (const auto& [key, value] : dict_of(call).entries()) copy->set(call.in, key, value);
  return Value::object(copy);
}

constexpr Builtin kListMethods[] = {
    {"count", "value", 1, count}, {"index", "value start stop", 1, index}, {"copy", "", 0, copy_list}};
constexpr Builtin kTupleMethods[] = {{"count", "value", 1, count}, {"index", "value start stop", 1, index}};
constexpr Builtin kDictMethods[] = {
    {"get", "key default", 1, get}, {"items", "", 0, items},    {"keys", "", 0, keys},
    {"values", "", 0, values},      {"copy", "", 0, copy_dict},
};

}  // namespace

std::span<const Builtin> list_methods() noexcept { return kListMethods; }
std::span<const Builtin> tuple_methods() noexcept { return kTupleMethods; }
std::span<const Builtin> dict_methods() noexcept { return kDictMethods; }

}  // namespace quern::jinja
