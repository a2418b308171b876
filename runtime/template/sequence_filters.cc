// Filters of lists and of what can be gone through.
#include <algorithm>
#include <functional>

#include "runtime/template/filters.h"
#include "runtime/template/interpreter.h"
#include "runtime/template/objects.h"
#include "runtime/template/operators.h"
#include "runtime/template/print.h"
#include "runtime/template/text_operations.h"

namespace quern::jinja::filter {
namespace {

using Values = std::vector<Value>;

// Strings in lower case, everything else as it is.
Value without_case(Interpreter& in, const Value& value) {
  return value.is_string() ? in.text(quern::jinja::lower(in, value.as_text())) : value;
}

// "a.b.0": a path of keys. None: the value itself.
class Path {
 public:
  Path(Interpreter& in, const Value& attribute) {
    if (attribute.is_none()) return;
    if (!attribute.is_string()) {
      keys_ = {attribute};
      return;
    }
    for (const Text& part : split(in, attribute.as_text(), ".", -1)) {
      const std::string_view key = part.bytes();
      const bool is_number = !key.empty() && key.size() < 18 &&
                             std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
      keys_.push_back(is_number ? Value::integer(std::stoll(std::string(key))) : Value::string(part));
    }
  }

  Value follow(Interpreter& in, Value value, const Value* fallback = nullptr) const {
    for (const Value& key : keys_) {
      in.charge(2);
      value = get_item(in, value, key);
      if (fallback != nullptr && value.is_undefined()) value = *fallback;
    }
    return value;
  }

 private:
  Values keys_;
};

Value optional(BuiltinCall& call, size_t i) { return call.has(i) ? call[i] : Value(); }

// What values are compared by.
struct Key {
  Key(BuiltinCall& call, const Value& attribute, bool with_case)
      : in(call.in), path(call.in, attribute), case_sensitive(with_case) {}
  Value operator()(const Value& value) const {
    const Value key = path.follow(in, value);
    return case_sensitive ? key : without_case(in, key);
  }
  Interpreter& in;
  Path path;
  bool case_sensitive;
};

// Stable, as Python's. The comparisons may raise.
template <class KeyOf>
Values sorted(Interpreter& in, const Values& values, const KeyOf& key_of, bool reverse) {
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& value : values) keyed.emplace_back(key_of(value), value);
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? less(in, b.first, a.first) : less(in, a.first, b.first);
  });
  Values out;
  for (auto& pair : keyed) out.push_back(std::move(pair.second));
  return out;
}

Value extreme(BuiltinCall& call, bool wants_most) {
  const Values values = iterate(call.in, call.self);
  if (values.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  const Key key(call, optional(call, 1), call.flag(0));
  size_t best = 0;
  Value best_key = key(values[0]);
  for (size_t i = 1; i < values.size(); ++i) {
    Value other = key(values[i]);
    const bool better = wants_most ? greater(call.in, other, best_key) : less(call.in, other, best_key);
    if (!better) continue;
    best = i;
    best_key = std::move(other);
  }
  return values[best];
}

// A filter or a test with its arguments, from position `from` of a call on.
Arguments rest_of(BuiltinCall& call, size_t from) {
  Arguments rest;
  for (size_t i = from; i < call.all.positional.size(); ++i)
    rest.positional.push_back(call.all.positional[i]);
  rest.keywords = call.all.keywords;
  return rest;
}

const Builtin& require_builtin(BuiltinCall& call, std::span<const Builtin> table, const Value& name,
                               std::string_view kind) {
  const Builtin* found = name.is_string() ? find_builtin(table, name.bytes()) : nullptr;
  if (found == nullptr) call.in.raise("No {} named '{}'.", kind, to_text(call.in, name).bytes());
  return *found;
}

// select and its three kin: keeps what passes, or what does not.
Value keep(BuiltinCall& call, bool wanted, bool by_attribute) {
  Values kept;
  if (!truth(call.self)) return call.in.iterator({});
  const Values& given = call.all.positional;
  if (by_attribute && given.empty()) call.in.raise("Missing parameter for attribute name");
  const Path path(call.in, by_attribute ? given[0] : Value());
  const size_t from = by_attribute ? 1 : 0;
  const Builtin* test = given.size() > from ? &require_builtin(call, tests(), given[from], "test") : nullptr;
  const Arguments arguments = test != nullptr ? rest_of(call, from + 1) : Arguments{};
  for (const Value& value : iterate(call.in, call.self)) {
    call.in.charge(1);
    const Value looked_at = path.follow(call.in, value);
    const bool passes = truth(test != nullptr ? test->call(call.in, looked_at, arguments) : looked_at);
    if (passes == wanted) kept.push_back(value);
  }
  return call.in.iterator(std::move(kept));
}

}  // namespace

Value batch(BuiltinCall& call) {
  if (!call[0].is_whole()) call.in.raise("batch() needs a number");
  const auto size = static_cast<size_t>(std::max<int64_t>(call[0].as_integer(), 0));
  Values batches, current;
  for (const Value& value : iterate(call.in, call.self)) {
    if (current.size() == size) batches.push_back(call.in.list(std::exchange(current, {})));
    current.push_back(value);
  }
  if (!current.empty()) {
    const bool fills = call.has(1) && !call[1].is_none();
    if (fills) call.in.charge(size);
    while (fills && current.size() < size) current.push_back(call[1]);
    batches.push_back(call.in.list(std::move(current)));
  }
  return call.in.iterator(std::move(batches));
}

Value dictsort(BuiltinCall& call) {
  call.in.require_defined(call.self);
  const auto* dict = call.self.as<Dict>();
  if (dict == nullptr) call.in.raise("'{}' object has no attribute 'items'", type_name(call.self));
  const std::string_view by = call.has(1) && call[1].is_string() ? call[1].bytes() : "key";
  if (by != "key" && by != "value") call.in.raise("You can only sort by either \"key\" or \"value\"");
  Values pairs;
  for (const auto& [key, value] : dict->entries()) pairs.push_back(call.in.tuple({key, value}));
  const auto key_of = [&](const Value& pair) {
    const Value& part = pair.as<Sequence>()->items[by == "value"];
    return call.flag(0) ? part : without_case(call.in, part);
  };
  return call.in.list(sorted(call.in, pairs, key_of, call.flag(2)));
}

Value first(BuiltinCall& call) {
  const Values values = iterate(call.in, call.self);
  return values.empty() ? Value::undefined("No first item, sequence was empty.") : values.front();
}

Value last(BuiltinCall& call) {
  if (call.self.as<Iterator>() != nullptr || !is_iterable(call.self))
    call.in.raise("'{}' object is not reversible", type_name(call.self));
  const Values values = iterate(call.in, call.self);
  return values.empty() ? Value::undefined("No last item, sequence was empty.") : values.back();
}

Value groupby(BuiltinCall& call) {
  const Path path(call.in, call[0]);
  const Value fallback = optional(call, 1);
  const Value* use_fallback = fallback.is_none() ? nullptr : &fallback;
  const bool case_sensitive = call.flag(2);
  const auto key_of = [&](const Value& value) {
    const Value key = path.follow(call.in, value, use_fallback);
    return case_sensitive ? key : without_case(call.in, key);
  };
  const Values values = sorted(call.in, iterate(call.in, call.self), key_of, false);
  Values groups;
  for (size_t begin = 0; begin < values.size();) {
    const Value key = key_of(values[begin]);
    size_t end = begin + 1;
    while (end < values.size() && equals(call.in, key, key_of(values[end]))) ++end;
    const auto at = [&](size_t i) { return values.begin() + static_cast<ptrdiff_t>(i); };
    const Value grouper = case_sensitive ? key : path.follow(call.in, values[begin], use_fallback);
    const Value group = call.in.tuple({grouper, call.in.list(Values(at(begin), at(end)))});
    group.as<Sequence>()->is_group = true;
    groups.push_back(group);
    begin = end;
  }
  return call.in.list(std::move(groups));
}

Value items(BuiltinCall& call) {
  if (call.self.is_undefined()) return call.in.iterator({});
  const auto* dict = call.self.as<Dict>();
  if (dict == nullptr) call.in.raise("Can only get item pairs from a mapping.");
  Values pairs;
  for (const auto& [key, value] : dict->entries()) pairs.push_back(call.in.tuple({key, value}));
  return call.in.iterator(std::move(pairs));
}

Value join(BuiltinCall& call) {
  const Text separator = call.has(0) ? to_text(call.in, call[0]) : Text();
  const Path path(call.in, optional(call, 1));
  Text out;
  bool is_first = true;
  for (const Value& value : iterate(call.in, call.self)) {
    if (!is_first) out.append(separator);
    is_first = false;
    out.append(to_text(call.in, path.follow(call.in, value)));
    call.in.check_size(out.size());
  }
  return call.in.text(std::move(out));
}

Value length(BuiltinCall& call) {
  const auto n = quern::jinja::length(call.self);
  if (!n) call.in.raise("object of type '{}' has no len()", type_name(call.self));
  return Value::integer(static_cast<int64_t>(*n));
}

Value list(BuiltinCall& call) { return call.in.list(iterate(call.in, call.self)); }

Value map(BuiltinCall& call) {
  Values mapped;
  if (!truth(call.self)) return call.in.iterator({});
  const Value* attribute = call.all.keyword("attribute");
  if (call.all.positional.empty() && attribute != nullptr) {
    for (const auto& [name, value] : call.all.keywords)
      if (name.bytes() != "attribute" && name.bytes() != "default")
        call.in.raise("Unexpected keyword argument '{}'", name.bytes());
    const Path path(call.in, *attribute);
    const Value* fallback = call.all.keyword("default");
    if (fallback != nullptr && fallback->is_none()) fallback = nullptr;
    for (const Value& value : iterate(call.in, call.self))
      mapped.push_back(path.follow(call.in, value, fallback));
    return call.in.iterator(std::move(mapped));
  }
  if (call.all.positional.empty()) call.in.raise("map requires a filter argument");
  const Builtin& filter = require_builtin(call, filters(), call.all.positional[0], "filter");
  const Arguments arguments = rest_of(call, 1);
  for (const Value& value : iterate(call.in, call.self)) {
    call.in.charge(1);
    mapped.push_back(filter.call(call.in, value, arguments));
  }
  return call.in.iterator(std::move(mapped));
}

Value max(BuiltinCall& call) { return extreme(call, true); }
Value min(BuiltinCall& call) { return extreme(call, false); }
Value select(BuiltinCall& call) { return keep(call, true, false); }
Value reject(BuiltinCall& call) { return keep(call, false, false); }
Value selectattr(BuiltinCall& call) { return keep(call, true, true); }
Value rejectattr(BuiltinCall& call) { return keep(call, false, true); }

Value reverse(BuiltinCall& call) {
  if (!is_iterable(call.self)) call.in.raise("argument must be iterable");
  Values values = iterate(call.in, call.self);
  std::reverse(values.begin(), values.end());
  if (!call.self.is_string()) return call.in.iterator(std::move(values));
  Text out;
  for (const Value& value : values) out.append(value.as_text());
  return call.in.text(std::move(out), call.self.is_markup());
}

Value slice(BuiltinCall& call) {
  if (!call[0].is_whole()) call.in.raise("slice() needs a number");
  const int64_t n = call[0].as_integer();
  if (n == 0) call.in.raise("integer division or modulo by zero");
  const Values values = iterate(call.in, call.self);
  const auto n_slices = static_cast<size_t>(std::max<int64_t>(n, 0));
  call.in.charge(n_slices);
  Values slices;
  size_t begin = 0;
  for (size_t i = 0; i < n_slices; ++i) {
    const size_t size = values.size() / n_slices + (i < values.size() % n_slices ? 1 : 0);
    const auto from = values.begin() + static_cast<ptrdiff_t>(begin);
    Values part(from, from + static_cast<ptrdiff_t>(size));
    if (call.has(1) && !call[1].is_none() && i >= values.size() % n_slices) part.push_back(call[1]);
    slices.push_back(call.in.list(std::move(part)));
    begin += size;
  }
  return call.in.iterator(std::move(slices));
}

Value sort(BuiltinCall& call) {
  // "a,b": by several attributes.
  std::vector<Key> keys;
  const Value attribute = optional(call, 2);
  if (attribute.is_string()) {
    for (const Text& part : split(call.in, attribute.as_text(), ",", -1))
      keys.emplace_back(call, Value::string(part), call.flag(1));
  } else {
    keys.emplace_back(call, attribute, call.flag(1));
  }
  const auto key_of = [&](const Value& value) {
    Values parts;
    for (const Key& key : keys) parts.push_back(key(value));
    return call.in.list(std::move(parts));
  };
  return call.in.list(sorted(call.in, iterate(call.in, call.self), key_of, call.flag(0)));
}

Value sum(BuiltinCall& call) {
  const Path path(call.in, optional(call, 0));
  Value total = call.has(1) ? call[1] : Value::integer(0);
  if (total.is_string()) call.in.raise("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& value : iterate(call.in, call.self))
    total = add(call.in, total, path.follow(call.in, value));
  return total;
}

Value unique(BuiltinCall& call) {
  const Key key(call, optional(call, 1), call.flag(0));
  auto* seen = call.in.make<Dict>();
  Values out;
  for (const Value& value : iterate(call.in, call.self)) {
    const Value by = key(value);
    if (seen->find(call.in, by) != nullptr) continue;
    seen->set(call.in, by, Value());
    out.push_back(value);
  }
  return call.in.iterator(std::move(out));
}

}  // namespace quern::jinja::filter
