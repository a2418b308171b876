// Filters, tests, functions and methods that templates find: rows of explicit tables.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "runtime/template/value.h"

namespace quern::jinja {

class Interpreter;

// One call of a built-in, its arguments bound to the row's parameters.
struct BuiltinCall {
  Interpreter& in;
  const Value& self;               // the filter's input, the method's object
  std::vector<const Value*> args;  // one a parameter, null: not given
  const Arguments& all;            // unbound

  bool has(size_t i) const { return args[i] != nullptr; }
  const Value& operator[](size_t i) const { return *args[i]; }
  // False where it is not given.
  bool flag(size_t i) const { return has(i) && truth(*args[i]); }
  // Raises a TypeError's text for what is no whole number.
  int64_t integer(size_t i, int64_t fallback) const;
};

struct Builtin {
  using Function = Value (*)(BuiltinCall& call);

  std::string_view name;
  std::string_view parameters;  // "old new count"; "*": takes all as they come
  size_t n_required;            // of the parameters
  Function run;

  // Binds and runs. Raises a TypeError's text for arguments that do not fit.
  Value call(Interpreter& in, const Value& self, const Arguments& arguments) const;
};

std::span<const Builtin> filters() noexcept;
std::span<const Builtin> tests() noexcept;
std::span<const Builtin> functions() noexcept;  // global names: range, namespace, ...
std::span<const Builtin> string_methods() noexcept;
std::span<const Builtin> list_methods() noexcept;
std::span<const Builtin> tuple_methods() noexcept;
std::span<const Builtin> dict_methods() noexcept;
std::span<const Builtin> cycler_methods() noexcept;
std::span<const Builtin> loop_methods() noexcept;

const Builtin* find_builtin(std::span<const Builtin> table, std::string_view name) noexcept;  // null: none

}  // namespace quern::jinja
