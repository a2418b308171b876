#include "runtime/template/builtins.h"

#include <algorithm>

#include "runtime/template/interpreter.h"

namespace quern::jinja {
namespace {

std::vector<std::string_view> split_words(std::string_view words) {
  std::vector<std::string_view> out;
  while (!words.empty()) {
    const size_t end = std::min(words.find(' '), words.size());
    out.push_back(words.substr(0, end));
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return out;
}

}  // namespace

int64_t BuiltinCall::integer(size_t i, int64_t fallback) const {
  if (!has(i)) return fallback;
  const Value& value = *args[i];
  in.require_defined(value);
  if (!value.is_whole()) in.raise("'{}' object cannot be interpreted as an integer", type_name(value));
  return value.as_integer();
}

Value Builtin::call(Interpreter& in, const Value& self, const Arguments& arguments) const {
  BuiltinCall call{in, self, {}, arguments};
  if (parameters == "*") return run(call);
  const std::vector<std::string_view> names = split_words(parameters);
  if (arguments.positional.size() > names.size())
    in.raise("{}() takes at most {} argument{} ({} given)", name, names.size(), names.size() == 1 ? "" : "s",
             arguments.positional.size());
  call.args.assign(names.size(), nullptr);
  for (size_t i = 0; i < arguments.positional.size(); ++i) call.args[i] = &arguments.positional[i];
  for (const auto& [key, value] : arguments.keywords) {
    const auto found = std::find(names.begin(), names.end(), key.bytes());
    if (found == names.end()) in.raise("{}() got an unexpected keyword argument '{}'", name, key.bytes());
    const Value*& slot = call.args[static_cast<size_t>(found - names.begin())];
    if (slot != nullptr) in.raise("{}() got multiple values for argument '{}'", name, key.bytes());
    slot = &value;
  }
  for (size_t i = 0; i < n_required; ++i)
    if (call.args[i] == nullptr)
      in.raise("{}() missing 1 required positional argument: '{}'", name, names[i]);
  return run(call);
}

const Builtin* find_builtin(std::span<const Builtin> table, std::string_view name) noexcept {
  const auto found =
      std::find_if(table.begin(), table.end(), [name](const Builtin& row) { return row.name == name; });
  return found == table.end() ? nullptr : &*found;
}

}  // namespace quern::jinja
