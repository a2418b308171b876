// What statements do.
#include "runtime/template/interpreter.h"
#include "runtime/template/objects.h"
#include "runtime/template/operators.h"
#include "runtime/template/syntax.h"

namespace quern::jinja {

Flow Data::execute(Interpreter& in, Scope&) const {
  in.at(offset);
  in.print(text);
  return Flow::kNext;
}

Flow Print::execute(Interpreter& in, Scope& scope) const {
  const Value printed = value->evaluate(in, scope);
  in.at(offset);
  in.print(printed);
  return Flow::kNext;
}

void Target::assign(Interpreter& in, Scope& scope, const Value& value) const {
  if (is_tuple) {
    in.at(offset);
    const std::vector<Value> values = iterate(in, value);
    in.at(offset);
    if (values.size() > parts.size()) in.raise("too many values to unpack (expected {})", parts.size());
    if (values.size() < parts.size())
      in.raise("not enough values to unpack (expected {}, got {})", parts.size(), values.size());
    for (size_t i = 0; i < parts.size(); ++i) parts[i].assign(in, scope, values[i]);
    return;
  }
  if (!attribute) return scope.set(symbol, value);
  in.at(offset);
  const Value* holder = scope.find(symbol);
  auto* space = holder != nullptr ? holder->as<Namespace>() : nullptr;
  if (space == nullptr) in.raise("cannot assign attribute on non-namespace object");
  space->set(*attribute, value);
}

Flow If::execute(Interpreter& in, Scope& scope) const {
  for (const Branch& branch : branches)
    if (branch.test == nullptr || truth(branch.test->evaluate(in, scope)))
      return in.execute(branch.body, scope);
  return Flow::kNext;
}

Flow For::execute(Interpreter& in, Scope& scope) const {
  const Value iterated = items->evaluate(in, scope);
  in.at(offset);
  std::vector<Value> values = iterate(in, iterated);
  if (recursive) {
    in.print(in.capture_loop(*this, scope, std::move(values), 0));
    return Flow::kNext;
  }
  return run(in, scope, std::move(values), 0);
}

Flow For::run(Interpreter& in, Scope& scope, std::vector<Value> values, int depth) const {
  if (condition != nullptr) {
    std::vector<Value> kept;
    for (const Value& value : values) {
      const ScopeGuard inner(in, &scope);
      target.assign(in, *inner, value);
      if (truth(condition->evaluate(in, *inner))) kept.push_back(value);
    }
    values = std::move(kept);
  }
  auto* context = in.make<Loop>(*this, scope, std::move(values), depth);
  bool completed = false;  // jinja2's rule for else: no pass went to its end
  for (; context->index < context->items.size(); ++context->index) {
    in.charge(1);
    const ScopeGuard inner(in, &scope);
    (*inner).set(loop, Value::object(context));
    target.assign(in, *inner, context->items[context->index]);
    const Flow flow = in.execute(body, *inner);
    if (flow == Flow::kBreak) break;
    if (flow == Flow::kNext) completed = true;
  }
  if (completed) return Flow::kNext;
  const ScopeGuard inner(in, &scope);
  return in.execute(otherwise, *inner);
}

Flow Set::execute(Interpreter& in, Scope& scope) const {
  target.assign(in, scope, value->evaluate(in, scope));
  return Flow::kNext;
}

Flow SetBlock::execute(Interpreter& in, Scope& scope) const {
  const ScopeGuard inner(in, &scope);
  Flow flow = Flow::kNext;
  Value text = in.text(in.capture(body, *inner, &flow));
  if (flow != Flow::kNext) return flow;
  if (filter != nullptr) text = filter->apply(in, *inner, text);
  target.assign(in, scope, text);
  return Flow::kNext;
}

std::optional<size_t> Parameters::index_of(std::string_view name) const {
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i].second.bytes() == name) return i;
  return std::nullopt;
}

Flow SetMacro::execute(Interpreter& in, Scope& scope) const {
  in.keep_scope(scope);
  scope.set(symbol, Value::object(in.make<Macro>(macro, scope)));
  return Flow::kNext;
}

Flow CallBlock::execute(Interpreter& in, Scope& scope) const {
  in.keep_scope(scope);
  const Value body = Value::object(in.make<Macro>(caller, scope));
  const Value result = call->call(in, scope, &body);
  in.at(offset);
  in.print(result);
  return Flow::kNext;
}

Flow FilterBlock::execute(Interpreter& in, Scope& scope) const {
  const ScopeGuard inner(in, &scope);
  Flow flow = Flow::kNext;
  const Value text = in.text(in.capture(body, *inner, &flow));
  if (flow != Flow::kNext) return flow;
  in.print(filter->apply(in, *inner, text));
  return Flow::kNext;
}

Flow ScopedBody::execute(Interpreter& in, Scope& scope) const {
  const ScopeGuard inner(in, &scope);
  std::vector<Value> values;
  for (const auto& assignment : assignments) values.push_back(assignment.second->evaluate(in, scope));
  for (size_t i = 0; i < values.size(); ++i) assignments[i].first.assign(in, *inner, values[i]);
  return in.execute(body, *inner);
}

Flow Refusal::execute(Interpreter& in, Scope&) const {
  in.at(offset);
  in.raise_text(message);
}

}  // namespace quern::jinja
