// A rendering under way: its scopes, its output, what it may still take.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/template/clock.h"
#include "runtime/template/source.h"
#include "runtime/template/syntax.h"
#include "runtime/template/value.h"

namespace quern::jinja {

// Names and their values; what is not here is looked up around it. Macros see the scope of their definition
// as it is when they are called.
class Scope {
 public:
  explicit Scope(Scope* parent) : parent_(parent) {}

  void set(Symbol symbol, Value value);
  const Value* find(Symbol symbol) const;  // here and around; null: nowhere

 private:
  friend class Interpreter;
  Scope* parent_;
  bool kept_ = false;  // a macro was defined in it
  void clear();
  const std::pair<Symbol, Value>* find_here(Symbol symbol) const;

  std::vector<std::pair<Symbol, Value>> values_;
  std::unordered_map<Symbol, size_t> places_;  // in values_, once there are many of them
};

class Interpreter {
 public:
  Interpreter(const Source& source, const Program& program, const Clock& clock)
      : source_(source), program_(program), clock_(clock), symbols_(program.symbols.size()) {}
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Gives the template a variable; names it never mentions are dropped.
  void set_variable(std::string_view name, const Value& value);
  Text render();

  // ---- for nodes and built-ins ----

  // The place that errors name from now on.
  void at(size_t offset) { offset_ = offset; }
  size_t place() const { return offset_; }
  // Takes steps from what is left.
  void charge(size_t steps) {
    if (steps > steps_left_) refuse_steps();
    steps_left_ -= steps;
  }
  // The same for text that is read or made: copying is cheap, but not free.
  void charge_bytes(size_t bytes) { charge(bytes / 16); }
  template <class... Args>
  [[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) const {
    source_.refuse(offset_, fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void raise_text(std::string_view message) const { source_.refuse(offset_, message); }
  // Undefined values raise what they are; anything else passes.
  void require_defined(const Value& value) const {
    if (value.is_undefined()) raise_text(value.undefined_message());
  }
  void check_depth(int depth) const {
    if (depth > kMaxNesting) raise("values are nested deeper than {} levels", kMaxNesting);
  }
  void check_size(size_t bytes) const {
    if (bytes > kMaxTextBytes) raise("a text grows beyond {} bytes", kMaxTextBytes);
  }

  // An object that lives until the end of the rendering.
  template <class T, class... Args>
  T* make(Args&&... args) {
    charge(4);
    auto object = std::make_unique<T>(std::forward<Args>(args)...);
    T* made = object.get();
    objects_.push_back(std::move(object));
    return made;
  }
  Value list(std::vector<Value> items);
  Value tuple(std::vector<Value> items);
  Value iterator(std::vector<Value> items);
  // A text that was made: its size is checked and charged.
  Value text(Text text, bool markup = false);
  Value text(std::string bytes, Origin origin) { return this->text(Text(std::move(bytes), origin)); }

  // Appends to what is printed at the moment.
  void print(const Text& text);
  void print(const Value& value);
  // What is printed, caught. flow: how the body was left; null where it cannot be.
  Text capture(const Body& body, Scope& scope, Flow* flow = nullptr);
  Text capture_loop(const For& loop, Scope& scope, std::vector<Value> items, int depth);
  Flow execute(const Body& body, Scope& scope);

  const Value* find_variable(Symbol symbol) const;
  std::string_view name_of(Symbol symbol) const { return program_.symbols[symbol]; }
  const Clock& clock() const { return clock_; }

  Scope& open_scope(Scope* parent);
  void close_scope(Scope& scope);
  void keep_scope(Scope& scope);  // and those around it: a macro refers to them

  // Counts calls within calls.
  class Nested {
   public:
    explicit Nested(Interpreter& in);
    ~Nested() { --in_.nesting_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    Interpreter& in_;
  };

 private:
  [[noreturn]] void refuse_steps() const;

  const Source& source_;
  const Program& program_;
  const Clock& clock_;
  size_t offset_ = 0;
  size_t steps_left_ = kMaxSteps;
  int nesting_ = 0;
  const char* stack_base_ = nullptr;
  Text* output_ = nullptr;
  std::vector<const Value*> symbols_;  // variables by symbol; null: none
  std::vector<std::unique_ptr<Value>> variables_;
  std::vector<std::unique_ptr<Object>> objects_;
  std::vector<std::unique_ptr<Scope>> scopes_;
  std::vector<Scope*> free_scopes_;
};

// A scope for the time of a statement.
class ScopeGuard {
 public:
  ScopeGuard(Interpreter& in, Scope* parent) : in_(in), scope_(in.open_scope(parent)) {}
  ~ScopeGuard() { in_.close_scope(scope_); }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;
  Scope& operator*() const { return scope_; }

 private:
  Interpreter& in_;
  Scope& scope_;
};

}  // namespace quern::jinja
