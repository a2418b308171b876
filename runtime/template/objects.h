// Lists, dictionaries and the other objects of templates.
#pragma once

#include <memory>
#include <unordered_map>

#include "runtime/template/builtins.h"
#include "runtime/template/syntax.h"
#include "runtime/template/value.h"

namespace quern::jinja {

// A list or a tuple; neither ever changes.
class Sequence : public Object {
 public:
  static bool is(ObjectType type) { return type == ObjectType::kList || type == ObjectType::kTuple; }
  Sequence(ObjectType type, std::vector<Value> values) : Object(type), items(std::move(values)) {}

  bool is_tuple() const { return type() == ObjectType::kTuple; }
  std::string_view type_name() const override { return is_tuple() ? "tuple" : "list"; }
  std::optional<size_t> length() const override { return items.size(); }
  bool is_iterable() const override { return true; }
  std::vector<Value> iterate() override { return items; }
  bool has_items() const override { return true; }
  std::optional<Value> item(Interpreter& in, const Value& key) override;
  std::optional<Value> attribute(Interpreter& in, std::string_view name) override;
  void print(Interpreter& in, Text* out, int depth) override;

  const std::vector<Value> items;
  bool is_group = false;  // of groupby: items are also .grouper and .list
};

// In the order in which keys came.
class Dict : public Object {
 public:
  static bool is(ObjectType type) { return type == ObjectType::kDict; }
  Dict() : Object(ObjectType::kDict) {}

  // While it is made. Raises a TypeError for keys that cannot be hashed.
  void set(Interpreter& in, const Value& key, const Value& value);
  const Value* find(Interpreter& in, const Value& key) const;
  const Value* find(std::string_view key) const;
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }

  std::string_view type_name() const override { return "dict"; }
  std::optional<size_t> length() const override { return entries_.size(); }
  bool is_iterable() const override { return true; }
  std::vector<Value> iterate() override;  // keys
  bool has_items() const override { return true; }
  std::optional<Value> item(Interpreter& in, const Value& key) override;
  std::optional<Value> attribute(Interpreter& in, std::string_view name) override;
  void print(Interpreter& in, Text* out, int depth) override;

 private:
  std::vector<std::pair<Value, Value>> entries_;
  std::unordered_multimap<uint64_t, size_t> index_;  // hash -> entry; unused while there are few
};

class Range : public Object {
 public:
  static bool is(ObjectType type) { return type == ObjectType::kRange; }
  Range(int64_t start, int64_t stop, int64_t step);  // step is not 0; see size()

  size_t size() const { return size_; }
  int64_t at(size_t i) const { return start_ + static_cast<int64_t>(i) * step_; }
  int64_t step() const { return step_; }
  std::string_view type_name() const override { return "range"; }
  std::optional<size_t> length() const override { return size_; }
  bool is_iterable() const override { return true; }
  std::vector<Value> iterate() override;
  bool has_items() const override { return true; }
  std::optional<Value> item(Interpreter& in, const Value& key) override;
  void print(Interpreter& in, Text* out, int depth) override;

 private:
  int64_t start_, stop_, step_;
  size_t size_;
};

// What filters such as map give: each value once.
class Iterator : public Object {
 public:
  static bool is(ObjectType type) { return type == ObjectType::kIterator; }
  explicit Iterator(std::vector<Value> items) : Object(ObjectType::kIterator), items_(std::move(items)) {}

  std::string_view type_name() const override { return "generator"; }
  bool is_iterable() const override { return true; }
  std::vector<Value> iterate() override { return std::exchange(items_, {}); }
  void print(Interpreter& in, Text* out, int depth) override;

 private:
  std::vector<Value> items_;
};

// keys(), values() and items() of a dictionary.
class DictView : public Object {
 public:
  static bool is(ObjectType type) { return type == ObjectType::kDictView; }
  DictView(std::string_view type_name, std::vector<Value> items)
      : Object(ObjectType::kDictView), type_name_(type_name), items_(std::move(items)) {}

  std::string_view type_name() const override { return type_name_; }
  std::optional<size_t> length() const override { return items_.size(); }
  bool is_iterable() const override { return true; }
  std::vector<Value> iterate() override { return items_; }
  void print(Interpreter& in, Text* out, int depth) override;

 private:
  std::string_view type_name_;
  std::vector<Value> items_;
};

// The one thing that templates may change.
class Namespace : public Object {
 public:
  static bool is(ObjectType type) { return type == ObjectType::kNamespace; }
  Namespace() : Object(ObjectType::kNamespace) {}

  void set(std::string_view name, const Value& value);
  std::string_view type_name() const override { return "Namespace"; }
  std::string_view type_module() const override { return "jinja2.utils."; }
  std::optional<Value> attribute(Interpreter& in, std::string_view name) override;
  void print(Interpreter& in, Text* out, int depth) override;

 private:
  std::vector<std::pair<std::string, Value>> attributes_;
};

// The special variable `loop`.
class Loop : public Object {
 public:
  static bool is(ObjectType type) { return type == ObjectType::kLoop; }
  Loop(const For& statement, Scope& scope, std::vector<Value> values, int depth)
      : Object(ObjectType::kLoop),
        items(std::move(values)),
        statement_(statement),
        scope_(scope),
        depth_(depth) {}

  std::string_view type_name() const override { return "LoopContext"; }
  std::string_view type_module() const override { return "jinja2.runtime."; }
  std::optional<size_t> length() const override { return items.size(); }
  bool is_iterable() const override { return true; }
  std::vector<Value> iterate() override;
  bool is_callable() const override { return true; }
  Value call(Interpreter& in, Arguments& arguments) override;  // of a recursive loop
  std::optional<Value> attribute(Interpreter& in, std::string_view name) override;
  void print(Interpreter& in, Text* out, int depth) override;
  bool changed(Interpreter& in, const std::vector<Value>& values);

  const std::vector<Value> items;
  size_t index = 0;  // from 0

 private:
  const For& statement_;
  Scope& scope_;  // around the loop
  int depth_;
  std::optional<std::vector<Value>> last_changed_;
};

class Macro : public Object {
 public:
  static bool is(ObjectType type) { return type == ObjectType::kMacro; }
  Macro(const MacroDefinition& definition, Scope& scope)
      : Object(ObjectType::kMacro), definition_(definition), scope_(scope) {}

  std::string_view type_name() const override { return "Macro"; }
  std::string_view type_module() const override { return "jinja2.runtime."; }
  bool is_callable() const override { return true; }
  Value call(Interpreter& in, Arguments& arguments) override;
  std::optional<Value> attribute(Interpreter& in, std::string_view name) override;
  void print(Interpreter& in, Text* out, int depth) override;

 private:
  void bind(Interpreter& in, Scope& scope, Arguments& arguments) const;

  const MacroDefinition& definition_;
  Scope& scope_;  // where it was defined
};

// A built-in function, or a method of `self`.
class Function : public Object {
 public:
  static bool is(ObjectType type) { return type == ObjectType::kFunction; }
  Function(const Builtin& builtin, Value self)
      : Object(ObjectType::kFunction), builtin_(builtin), self_(std::move(self)) {}

  std::string_view type_name() const override { return "builtin_function_or_method"; }
  bool is_callable() const override { return true; }
  Value call(Interpreter& in, Arguments& arguments) override;
  void print(Interpreter& in, Text* out, int depth) override;

 private:
  const Builtin& builtin_;
  Value self_;
};

// cycler(a, b, ...)
class Cycler : public Object {
 public:
  static bool is(ObjectType type) { return type == ObjectType::kCycler; }
  explicit Cycler(std::vector<Value> values) : Object(ObjectType::kCycler), items(std::move(values)) {}

  std::string_view type_name() const override { return "Cycler"; }
  std::string_view type_module() const override { return "jinja2.utils."; }
  std::optional<Value> attribute(Interpreter& in, std::string_view name) override;
  void print(Interpreter& in, Text* out, int depth) override;

  const std::vector<Value> items;
  size_t position = 0;
};

// joiner(separator): empty when called first, the separator afterwards.
class Joiner : public Object {
 public:
  static bool is(ObjectType type) { return type == ObjectType::kJoiner; }
  explicit Joiner(Value separator) : Object(ObjectType::kJoiner), separator_(std::move(separator)) {}

  std::string_view type_name() const override { return "Joiner"; }
  std::string_view type_module() const override { return "jinja2.utils."; }
  bool is_callable() const override { return true; }
  Value call(Interpreter& in, Arguments& arguments) override;
  void print(Interpreter& in, Text* out, int depth) override;

 private:
  Value separator_;
  bool used_ = false;
};

// A dictionary key's hash; equal keys have equal ones. Raises "unhashable type: 'list'".
uint64_t hash_of(Interpreter& in, const Value& value, int depth = 0);

}  // namespace quern::jinja
