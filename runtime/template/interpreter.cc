#include "runtime/template/interpreter.h"

#include "runtime/template/objects.h"
#include "runtime/template/print.h"

namespace quern::jinja {

namespace {

constexpr size_t kSearchedInTurn = 16;  // names of a scope: more are found by a table

}  // namespace

const std::pair<Symbol, Value>* Scope::find_here(Symbol symbol) const {
  if (values_.size() > kSearchedInTurn) {
    const auto place = places_.find(symbol);
    return place == places_.end() ? nullptr : &values_[place->second];
  }
  for (const auto& entry : values_)
    if (entry.first == symbol) return &entry;
  return nullptr;
}

void Scope::set(Symbol symbol, Value value) {
  if (const auto* entry = find_here(symbol)) {
    values_[static_cast<size_t>(entry - values_.data())].second = std::move(value);
    return;
  }
  values_.emplace_back(symbol, std::move(value));
  if (values_.size() <= kSearchedInTurn) return;
  for (size_t i = places_.size(); i < values_.size(); ++i) places_.emplace(values_[i].first, i);
}

const Value* Scope::find(Symbol symbol) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent_)
    if (const auto* entry = scope->find_here(symbol)) return &entry->second;
  return nullptr;
}

void Scope::clear() {
  values_.clear();
  places_.clear();
}

void Interpreter::set_variable(std::string_view name, const Value& value) {
  for (size_t symbol = 0; symbol < program_.symbols.size(); ++symbol) {
    if (program_.symbols[symbol] != name) continue;
    variables_.push_back(std::make_unique<Value>(value));
    symbols_[symbol] = variables_.back().get();
  }
}

const Value* Interpreter::find_variable(Symbol symbol) const { return symbols_[symbol]; }

Text Interpreter::render() {
  stack_base_ = static_cast<const char*>(__builtin_frame_address(0));
  const ScopeGuard scope(*this, nullptr);
  return capture(program_.body, *scope);
}

Value Interpreter::list(std::vector<Value> items) {
  charge(2 * items.size());
  return Value::object(make<Sequence>(ObjectType::kList, std::move(items)));
}

Value Interpreter::tuple(std::vector<Value> items) {
  charge(2 * items.size());
  return Value::object(make<Sequence>(ObjectType::kTuple, std::move(items)));
}

Value Interpreter::iterator(std::vector<Value> items) {
  charge(2 * items.size());
  return Value::object(make<Iterator>(std::move(items)));
}

Value Interpreter::text(Text text, bool markup) {
  check_size(text.size());
  charge_bytes(text.size());
  charge(text.n_runs());
  return Value::string(std::move(text), markup);
}

void Interpreter::print(const Text& text) {
  charge(text.n_runs());
  charge_bytes(text.size());
  output_->append(text);
  check_size(output_->size());
}

void Interpreter::print(const Value& value) {
  if (value.is_string()) return print(value.as_text());
  print(to_text(*this, value));
}

Text Interpreter::capture(const Body& body, Scope& scope, Flow* flow) {
  Text text;
  Text* const outer = std::exchange(output_, &text);
  const Flow left = execute(body, scope);
  output_ = outer;
  if (flow != nullptr) *flow = left;
  return text;
}

Text Interpreter::capture_loop(const For& loop, Scope& scope, std::vector<Value> items, int depth) {
  Text text;
  Text* const outer = std::exchange(output_, &text);
  loop.run(*this, scope, std::move(items), depth);
  output_ = outer;
  return text;
}

Flow Interpreter::execute(const Body& body, Scope& scope) {
  for (const auto& statement : body) {
    charge(1);
    const Flow flow = statement->execute(*this, scope);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Scope& Interpreter::open_scope(Scope* parent) {
  if (free_scopes_.empty()) {
    charge(4);
    scopes_.push_back(std::make_unique<Scope>(parent));
    return *scopes_.back();
  }
  Scope& scope = *free_scopes_.back();
  free_scopes_.pop_back();
  scope.parent_ = parent;
  return scope;
}

void Interpreter::close_scope(Scope& scope) {
  if (scope.kept_) return;  // a macro may still ask it
  scope.clear();
  free_scopes_.push_back(&scope);
}

void Interpreter::keep_scope(Scope& scope) {
  for (Scope* each = &scope; each != nullptr && !each->kept_; each = each->parent_) each->kept_ = true;
}

Interpreter::Nested::Nested(Interpreter& in) : in_(in) {
  // Calls are counted, and what they take of the stack is watched: expressions within them nest as well.
  constexpr ptrdiff_t kMaxStackBytes = ptrdiff_t{3} << 20;
  const auto* here = static_cast<const char*>(__builtin_frame_address(0));
  if (++in_.nesting_ > kMaxNesting || in_.stack_base_ - here > kMaxStackBytes)
    in_.raise("calls are nested deeper than {} levels", kMaxNesting);
}

void Interpreter::refuse_steps() const { raise("the template takes more than {} steps", kMaxSteps); }

}  // namespace quern::jinja
