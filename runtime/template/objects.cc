#include "runtime/template/objects.h"

#include <algorithm>
#include <functional>

#include "runtime/template/interpreter.h"
#include "runtime/template/operators.h"
#include "runtime/template/print.h"

namespace quern::jinja {
namespace {

// Entries up to which a dictionary is searched from the front.
constexpr size_t kFewEntries = 8;

Value named_string(std::string_view text) { return Value::string(std::string(text), Origin::kTemplate); }

void append(Text* out, std::string_view text) { out->append(text, Origin::kMessage); }

// "[a, b" without the end.
void print_items(Interpreter& in, const std::vector<Value>& items, Text* out, int depth) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) append(out, ", ");
    print_repr(in, items[i], out, depth + 1);
  }
}

// An index counted from the end when negative; absent outside of `size`.
std::optional<size_t> index_within(const Value& key, size_t size) {
  if (!key.is_whole()) return std::nullopt;
  const auto n = static_cast<int64_t>(size);
  const int64_t index = key.as_integer() < 0 ? key.as_integer() + n : key.as_integer();
  if (index < 0 || index >= n) return std::nullopt;
  return static_cast<size_t>(index);
}

std::optional<Value> method(Interpreter& in, std::span<const Builtin> table, std::string_view name,
                            Object* self) {
  const Builtin* found = find_builtin(table, name);
  if (found == nullptr) return std::nullopt;
  return Value::object(in.make<Function>(*found, Value::object(self)));
}

}  // namespace

uint64_t hash_of(Interpreter& in, const Value& value, int depth) {
  in.charge(1);
  in.check_depth(depth);
  if (value.is_string()) {
    in.charge_bytes(value.bytes().size());
    return std::hash<std::string_view>()(value.bytes());
  }
  if (value.is_whole()) return std::hash<int64_t>()(value.as_integer());
  if (value.is_float()) {  // 1.0 is the key 1
    const double number = value.as_number();
    constexpr double kLimit = 9.2e18;
    const bool is_whole =
        number > -kLimit && number < kLimit && number == static_cast<double>(static_cast<int64_t>(number));
    return is_whole ? std::hash<int64_t>()(static_cast<int64_t>(number)) : std::hash<double>()(number);
  }
  const auto* sequence = value.as<Sequence>();
  if (value.as<Dict>() != nullptr || (sequence != nullptr && !sequence->is_tuple()))
    in.raise("unhashable type: '{}'", type_name(value));
  if (sequence == nullptr) return std::hash<const void*>()(value.as_object());
  uint64_t hash = sequence->items.size();
  for (const Value& item : sequence->items) hash = hash * 1099511628211u ^ hash_of(in, item, depth + 1);
  return hash;
}

// ---- lists and tuples ----

std::optional<Value> Sequence::item(Interpreter&, const Value& key) {
  const auto index = index_within(key, items.size());
  if (!index) return std::nullopt;
  return items[*index];
}

std::optional<Value> Sequence::attribute(Interpreter& in, std::string_view name) {
  if (is_group && (name == "grouper" || name == "list")) return items[name == "list"];
  return method(in, is_tuple() ? tuple_methods() : list_methods(), name, this);
}

void Sequence::print(Interpreter& in, Text* out, int depth) {
  append(out, is_tuple() ? "(" : "[");
  print_items(in, items, out, depth);
  append(out, is_tuple() ? (items.size() == 1 ? ",)" : ")") : "]");
}

// ---- dictionaries ----

void Dict::set(Interpreter& in, const Value& key, const Value& value) {
  in.charge(4);
  if (const Value* found = find(in, key)) {
    *const_cast<Value*>(found) = value;
    return;
  }
  entries_.emplace_back(key, value);
  if (entries_.size() <= kFewEntries) return;
  if (index_.empty()) {
    for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(hash_of(in, entries_[i].first), i);
  } else {
    index_.emplace(hash_of(in, key), entries_.size() - 1);
  }
}

const Value* Dict::find(Interpreter& in, const Value& key) const {
  const uint64_t hash = hash_of(in, key);
  if (entries_.size() <= kFewEntries) {
    for (const auto& [other, value] : entries_)
      if (equals(in, key, other)) return &value;
    return nullptr;
  }
  for (auto [entry, end] = index_.equal_range(hash); entry != end; ++entry)
    if (equals(in, key, entries_[entry->second].first)) return &entries_[entry->second].second;
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  const auto is_it = [&](size_t i) {
    return entries_[i].first.is_string() && entries_[i].first.bytes() == key;
  };
  if (entries_.size() <= kFewEntries) {
    for (size_t i = 0; i < entries_.size(); ++i)
      if (is_it(i)) return &entries_[i].second;
    return nullptr;
  }
  for (auto [entry, end] = index_.equal_range(std::hash<std::string_view>()(key)); entry != end; ++entry)
    if (is_it(entry->second)) return &entries_[entry->second].second;
  return nullptr;
}

std::vector<Value> Dict::iterate() {
  std::vector<Value> keys;
  for (const auto& entry : entries_) keys.push_back(entry.first);
  return keys;
}

std::optional<Value> Dict::item(Interpreter& in, const Value& key) {
  const auto* sequence = key.as<Sequence>();
  const bool is_unhashable = key.as<Dict>() != nullptr || (sequence != nullptr && !sequence->is_tuple());
  const Value* value = is_unhashable ? nullptr : find(in, key);
  if (value == nullptr) return std::nullopt;
  return *value;
}

std::optional<Value> Dict::attribute(Interpreter& in, std::string_view name) {
  return method(in, dict_methods(), name, this);
}

void Dict::print(Interpreter& in, Text* out, int depth) {
  append(out, "{");
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (i > 0) append(out, ", ");
    print_repr(in, entries_[i].first, out, depth + 1);
    append(out, ": ");
    print_repr(in, entries_[i].second, out, depth + 1);
  }
  append(out, "}");
}

// ---- ranges ----

Range::Range(int64_t start, int64_t stop, int64_t step)
    : Object(ObjectType::kRange), start_(start), stop_(stop), step_(step) {
  const bool is_empty = step > 0 ? start >= stop : start <= stop;
  const uint64_t distance = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                     : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
  size_ = is_empty ? 0 : (distance - 1) / stride + 1;
}

std::vector<Value> Range::iterate() {
  std::vector<Value> values;
  for (size_t i = 0; i < size_; ++i) values.push_back(Value::integer(at(i)));
  return values;
}

std::optional<Value> Range::item(Interpreter&, const Value& key) {
  const auto index = index_within(key, size_);
  if (!index) return std::nullopt;
  return Value::integer(at(*index));
}

void Range::print(Interpreter&, Text* out, int) {
  append(out, step_ == 1 ? fmt::format("range({}, {})", start_, stop_)
                         : fmt::format("range({}, {}, {})", start_, stop_, step_));
}

// ---- generators and views ----

void Iterator::print(Interpreter&, Text* out, int) { append(out, "<generator object>"); }

void DictView::print(Interpreter& in, Text* out, int depth) {
  append(out, fmt::format("{}([", type_name_));
  print_items(in, items_, out, depth);
  append(out, "])");
}

// ---- namespaces ----

void Namespace::set(std::string_view name, const Value& value) {
  for (auto& [key, old] : attributes_) {
    if (key != name) continue;
    old = value;
    return;
  }
  attributes_.emplace_back(name, value);
}

std::optional<Value> Namespace::attribute(Interpreter& in, std::string_view name) {
  in.charge(attributes_.size() / 8);
  for (const auto& [key, value] : attributes_)
    if (key == name) return value;
  return std::nullopt;
}

void Namespace::print(Interpreter& in, Text* out, int depth) {
  append(out, "<Namespace {");
  for (size_t i = 0; i < attributes_.size(); ++i) {
    append(out, fmt::format("{}'{}': ", i > 0 ? ", " : "", attributes_[i].first));
    print_repr(in, attributes_[i].second, out, depth + 1);
  }
  append(out, "}>");
}

// ---- loops ----

std::vector<Value> Loop::iterate() {
  return {items.begin() + static_cast<ptrdiff_t>(index) + 1, items.end()};
}

Value Loop::call(Interpreter& in, Arguments& arguments) {
  if (!statement_.recursive) in.raise("The loop must have the 'recursive' marker to be called recursively.");
  if (arguments.positional.size() != 1 || !arguments.keywords.empty())
    in.raise("loop() takes exactly one argument ({} given)", arguments.positional.size());
  const Interpreter::Nested nested(in);
  std::vector<Value> values = quern::jinja::iterate(in, arguments.positional.front());
  return in.text(in.capture_loop(statement_, scope_, std::move(values), depth_ + 1));
}

std::optional<Value> Loop::attribute(Interpreter& in, std::string_view name) {
  const auto count = [](size_t n) { return Value::integer(static_cast<int64_t>(n)); };
  if (name == "index") return count(index + 1);
  if (name == "index0") return count(index);
  if (name == "revindex") return count(items.size() - index);
  if (name == "revindex0") return count(items.size() - index - 1);
  if (name == "first") return Value::boolean(index == 0);
  if (name == "last") return Value::boolean(index + 1 == items.size());
  if (name == "length") return count(items.size());
  if (name == "depth") return Value::integer(depth_ + 1);
  if (name == "depth0") return Value::integer(depth_);
  if (name == "previtem") return index > 0 ? items[index - 1] : Value::undefined("there is no previous item");
  if (name == "nextitem")
    return index + 1 < items.size() ? items[index + 1] : Value::undefined("there is no next item");
  return method(in, loop_methods(), name, this);
}

void Loop::print(Interpreter&, Text* out, int) {
  append(out, fmt::format("<LoopContext {}/{}>", index + 1, items.size()));
}

bool Loop::changed(Interpreter& in, const std::vector<Value>& values) {
  const bool same = last_changed_ && last_changed_->size() == values.size() &&
                    std::equal(values.begin(), values.end(), last_changed_->begin(),
                               [&](const Value& a, const Value& b) { return equals(in, a, b); });
  last_changed_ = values;
  return !same;
}

// ---- what is called ----

Value Macro::call(Interpreter& in, Arguments& arguments) {
  const Interpreter::Nested nested(in);
  const size_t place = in.place();
  const ScopeGuard scope(in, &scope_);
  bind(in, *scope, arguments);
  Text text = in.capture(definition_.body, *scope);
  in.at(place);
  return in.text(std::move(text));
}

// Python's rules: positions, then names, then defaults, which see the parameters before them.
void Macro::bind(Interpreter& in, Scope& scope, Arguments& arguments) const {
  const Parameters& parameters = definition_.parameters;
  const size_t n = parameters.names.size(), n_given = arguments.positional.size();
  std::vector<bool> used(arguments.keywords.size(), false);
  const auto take = [&](std::string_view name) -> const Value* {
    in.charge(arguments.keywords.size() / kKeywordsPerStep);
    for (size_t i = 0; i < arguments.keywords.size(); ++i) {
      if (used[i] || arguments.keywords[i].first.bytes() != name) continue;
      used[i] = true;
      return &arguments.keywords[i].second;
    }
    return nullptr;
  };
  std::vector<size_t> left_out;
  for (size_t i = 0; i < n; ++i) {
    const Value* value = i < n_given ? &arguments.positional[i] : take(parameters.names[i].second.bytes());
    if (value != nullptr)
      scope.set(parameters.names[i].first, *value);
    else
      left_out.push_back(i);
  }
  if (parameters.caller) {
    const Value* caller = take("caller");
    scope.set(*parameters.caller,
              caller != nullptr && !caller->is_none() ? *caller : Value::undefined("No caller defined"));
  }
  auto* rest = parameters.kwargs ? in.make<Dict>() : nullptr;
  for (size_t i = 0; i < used.size(); ++i) {
    const auto& [name, value] = arguments.keywords[i];
    if (used[i]) continue;
    if (rest == nullptr && name.bytes() == "caller")
      in.raise(
          "macro '{}' was invoked with two values for the special caller argument. This is most likely a "
          "bug.",
          definition_.name.bytes());
    if (rest == nullptr)
      in.raise("macro '{}' takes no keyword argument '{}'", definition_.name.bytes(), name.bytes());
    rest->set(in, Value::string(name), value);
  }
  if (rest != nullptr) scope.set(*parameters.kwargs, Value::object(rest));
  if (parameters.varargs) {
    std::vector<Value> more;
    for (size_t i = n; i < n_given; ++i) more.push_back(arguments.positional[i]);
    scope.set(*parameters.varargs, in.tuple(std::move(more)));
  } else if (n_given > n) {
    in.raise("macro '{}' takes not more than {} argument(s)", definition_.name.bytes(), n);
  }
  const size_t n_required = n - parameters.defaults.size();
  for (const size_t i : left_out) {
    const auto& [symbol, name] = parameters.names[i];
    scope.set(symbol, i >= n_required
                          ? parameters.defaults[i - n_required]->evaluate(in, scope)
                          : Value::undefined(fmt::format("parameter '{}' was not provided", name.bytes())));
  }
}

std::optional<Value> Macro::attribute(Interpreter& in, std::string_view name) {
  const Parameters& parameters = definition_.parameters;
  if (name == "name") return Value::string(definition_.name);
  if (name == "catch_kwargs") return Value::boolean(parameters.kwargs.has_value());
  if (name == "catch_varargs") return Value::boolean(parameters.varargs.has_value());
  if (name == "caller") return Value::boolean(parameters.caller.has_value());
  if (name != "arguments") return std::nullopt;
  std::vector<Value> names;
  for (const auto& parameter : parameters.names) names.push_back(Value::string(parameter.second));
  return in.tuple(std::move(names));
}

void Macro::print(Interpreter&, Text* out, int) {
  append(out, fmt::format("<Macro '{}'>", definition_.name.bytes()));
}

Value Function::call(Interpreter& in, Arguments& arguments) { return builtin_.call(in, self_, arguments); }

void Function::print(Interpreter&, Text* out, int) {
  append(out, fmt::format("<built-in function {}>", builtin_.name));
}

std::optional<Value> Cycler::attribute(Interpreter& in, std::string_view name) {
  if (name == "current") return items[position];
  return method(in, cycler_methods(), name, this);
}

void Cycler::print(Interpreter&, Text* out, int) { append(out, "<jinja2.utils.Cycler object>"); }

Value Joiner::call(Interpreter&, Arguments&) {
  return std::exchange(used_, true) ? separator_ : named_string("");
}

void Joiner::print(Interpreter&, Text* out, int) { append(out, "<jinja2.utils.Joiner object>"); }

}  // namespace quern::jinja
