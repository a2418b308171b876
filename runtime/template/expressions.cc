// How expressions evaluate.
#include "runtime/template/interpreter.h"
#include "runtime/template/objects.h"
#include "runtime/template/operators.h"
#include "runtime/template/print.h"
#include "runtime/template/syntax.h"

namespace quern::jinja {

Value Literal::evaluate(Interpreter& in, Scope&) const {
  in.charge(1);
  return value;
}

Value Name::evaluate(Interpreter& in, Scope& scope) const {
  in.charge(1);
  if (const Value* value = scope.find(symbol)) return *value;
  if (const Value* value = in.find_variable(symbol)) return *value;
  const std::string_view name = in.name_of(symbol);
  if (const Builtin* function = find_builtin(functions(), name))
    return Value::object(in.make<Function>(*function, Value()));
  in.charge(4);
  return Value::undefined(fmt::format("'{}' is undefined", name));
}

Value SequenceDisplay::evaluate(Interpreter& in, Scope& scope) const {
  std::vector<Value> values;
  values.reserve(items.size());
  for (const ExpressionPtr& item : items) values.push_back(item->evaluate(in, scope));
  return is_tuple ? in.tuple(std::move(values)) : in.list(std::move(values));
}

Value DictDisplay::evaluate(Interpreter& in, Scope& scope) const {
  auto* dict = in.make<Dict>();
  for (const auto& [key, value] : items) {
    const Value evaluated = key->evaluate(in, scope);
    const Value held = value->evaluate(in, scope);
    in.at(offset);
    dict->set(in, evaluated, held);
  }
  return Value::object(dict);
}

Value AttributeAccess::evaluate(Interpreter& in, Scope& scope) const {
  const Value of = object->evaluate(in, scope);
  in.at(offset);
  in.charge(1);
  return get_attribute(in, of, name);
}

Value Subscript::evaluate(Interpreter& in, Scope& scope) const {
  const Value of = object->evaluate(in, scope);
  const Value at = key->evaluate(in, scope);
  in.at(offset);
  in.charge(1);
  return get_item(in, of, at);
}

Value Slice::evaluate(Interpreter& in, Scope& scope) const {
  const Value of = object->evaluate(in, scope);
  Value bounds[3];
  const ExpressionPtr* given[3] = {&start, &stop, &step};
  for (size_t i = 0; i < 3; ++i)
    if (*given[i] != nullptr) bounds[i] = (*given[i])->evaluate(in, scope);
  in.at(offset);
  in.charge(1);
  return get_slice(in, of, &bounds[0], &bounds[1], &bounds[2]);
}

Arguments CallArguments::evaluate(Interpreter& in, Scope& scope) const {
  Arguments arguments;
  for (const ExpressionPtr& value : positional) arguments.positional.push_back(value->evaluate(in, scope));
  for (const auto& [name, value] : keywords)
    arguments.keywords.emplace_back(name, value->evaluate(in, scope));
  if (more_positional != nullptr)
    for (Value& value : iterate(in, more_positional->evaluate(in, scope)))
      arguments.positional.push_back(std::move(value));
  if (more_keywords == nullptr) return arguments;
  const Value more = more_keywords->evaluate(in, scope);
  const auto* dict = more.as<Dict>();
  if (dict == nullptr) in.raise("argument after ** must be a mapping, not {}", type_name(more));
  for (const auto& [name, value] : dict->entries()) {
    if (!name.is_string()) in.raise("keywords must be strings");
    in.charge(arguments.keywords.size() / kKeywordsPerStep);
    if (arguments.keyword(name.bytes()) != nullptr)
      in.raise("got multiple values for keyword argument '{}'", name.bytes());
    arguments.keywords.emplace_back(name.as_string(), value);
  }
  return arguments;
}

Value Call::evaluate(Interpreter& in, Scope& scope) const { return call(in, scope, nullptr); }

Value Call::call(Interpreter& in, Scope& scope, const Value* caller) const {
  const Value target = callee->evaluate(in, scope);
  Arguments values = arguments.evaluate(in, scope);
  if (caller != nullptr) values.keywords.emplace_back(String(Text("caller", Origin::kTemplate)), *caller);
  in.at(offset);
  in.charge(2);
  in.require_defined(target);
  if (target.as_object() == nullptr) in.raise("'{}' object is not callable", type_name(target));
  return target.as_object()->call(in, values);
}

Value FilterApplication::evaluate(Interpreter& in, Scope& scope) const { return apply(in, scope, Value()); }

Value FilterApplication::apply(Interpreter& in, Scope& scope, const Value& block) const {
  const auto* inner = dynamic_cast<const FilterApplication*>(input.get());
  const Value self = input == nullptr   ? block
                     : inner != nullptr ? inner->apply(in, scope, block)
                                        : input->evaluate(in, scope);
  const Arguments values = arguments.evaluate(in, scope);
  in.at(offset);
  in.charge(2);
  if (filter == nullptr) in.raise("No filter named '{}' found.", name);
  return filter->call(in, self, values);
}

Value TestApplication::evaluate(Interpreter& in, Scope& scope) const {
  const Value self = input->evaluate(in, scope);
  const Arguments values = arguments.evaluate(in, scope);
  in.at(offset);
  in.charge(2);
  if (test == nullptr) in.raise("No test named '{}' found.", name);
  return test->call(in, self, values);
}

Value Not::evaluate(Interpreter& in, Scope& scope) const {
  in.charge(1);
  return Value::boolean(!truth(operand->evaluate(in, scope)));
}

Value Sign::evaluate(Interpreter& in, Scope& scope) const {
  const Value value = operand->evaluate(in, scope);
  in.at(offset);
  in.charge(1);
  return negative ? negate(in, value) : posit(in, value);
}

Value Arithmetic::evaluate(Interpreter& in, Scope& scope) const {
  Value value = first->evaluate(in, scope);
  for (const Step& step : steps) {
    const Value right = step.operand->evaluate(in, scope);
    in.at(step.offset);
    in.charge(1);
    value = step.run(in, value, right);
  }
  return value;
}

Value Concatenation::evaluate(Interpreter& in, Scope& scope) const {
  Text text;
  for (const ExpressionPtr& operand : operands) {
    const Value value = operand->evaluate(in, scope);
    in.at(offset);
    if (value.is_string())
      text.append(value.as_text());
    else
      text.append(to_text(in, value));
    in.check_size(text.size());
  }
  return in.text(std::move(text));
}

Value Comparison::evaluate(Interpreter& in, Scope& scope) const {
  Value left = first->evaluate(in, scope);
  for (const Step& step : steps) {
    Value right = step.operand->evaluate(in, scope);
    in.at(offset);
    in.charge(1);
    if (!step.holds(in, left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Junction::evaluate(Interpreter& in, Scope& scope) const {
  in.charge(1);
  Value value;
  for (const ExpressionPtr& operand : operands) {
    value = operand->evaluate(in, scope);
    if (truth(value) == is_or) break;
  }
  return value;
}

Value Conditional::evaluate(Interpreter& in, Scope& scope) const {
  in.charge(1);
  if (truth(test->evaluate(in, scope))) return then->evaluate(in, scope);
  if (otherwise != nullptr) return otherwise->evaluate(in, scope);
  return Value::undefined("the inline if-expression evaluated to false and no else section was defined.");
}

}  // namespace quern::jinja
