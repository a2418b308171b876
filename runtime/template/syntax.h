// A template as a tree: nodes that evaluate and execute themselves (Gamma et al., Design Patterns, 1994,
// "Interpreter"). Immutable once parsed.
//
// An expression's depth is counted where it is made, so that no walk over the tree recurses deeper than
// kMaxNesting allows; chains of operators of one rank are one node.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/template/builtins.h"
#include "runtime/template/value.h"

namespace quern::jinja {

class Interpreter;
class Scope;
using Symbol = uint32_t;  // a name, by its number within the template

struct Expression {
  explicit Expression(size_t where) : offset(where) {}
  virtual ~Expression() = default;
  virtual Value evaluate(Interpreter& in, Scope& scope) const = 0;

  size_t offset;  // into the source
  int depth = 1;
};
using ExpressionPtr = std::unique_ptr<Expression>;

// What a loop does after a statement.
enum class Flow : uint8_t { kNext, kBreak, kContinue };

struct Statement {
  explicit Statement(size_t where) : offset(where) {}
  virtual ~Statement() = default;
  virtual Flow execute(Interpreter& in, Scope& scope) const = 0;

  size_t offset;
};
using Body = std::vector<std::unique_ptr<Statement>>;

// ---- expressions ----

struct Literal : Expression {
  Literal(size_t where, Value held) : Expression(where), value(std::move(held)) {}
  Value evaluate(Interpreter& in, Scope& scope) const override;
  Value value;
};

struct Name : Expression {
  Name(size_t where, Symbol named) : Expression(where), symbol(named) {}
  Value evaluate(Interpreter& in, Scope& scope) const override;
  Symbol symbol;
};

// [a, b] or (a, b).
struct SequenceDisplay : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
};

struct DictDisplay : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
};

struct AttributeAccess : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  ExpressionPtr object;
  std::string name;
};

struct Subscript : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  ExpressionPtr object, key;
};

struct Slice : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  ExpressionPtr object, start, stop, step;  // null: not given
};

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<String, ExpressionPtr>> keywords;
  ExpressionPtr more_positional, more_keywords;  // *x, **x; null: none

  Arguments evaluate(Interpreter& in, Scope& scope) const;
};

struct Call : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  Value call(Interpreter& in, Scope& scope, const Value* caller) const;  // caller: of a call block, or null
  ExpressionPtr callee;
  CallArguments arguments;
};

// input | name(arguments)
struct FilterApplication : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  // With the innermost input, where it is not an expression (filter blocks).
  Value apply(Interpreter& in, Scope& scope, const Value& block) const;
  ExpressionPtr input;  // null: the block's text
  std::string name;
  const Builtin* filter = nullptr;  // null: unknown, which is said when it is reached
  CallArguments arguments;
};

// input is name arguments
struct TestApplication : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  ExpressionPtr input;
  std::string name;
  const Builtin* test = nullptr;  // null: unknown
  CallArguments arguments;
};

struct Not : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  ExpressionPtr operand;
};

struct Sign : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  ExpressionPtr operand;
  bool negative = false;
};

// a + b - c ..., from the left.
struct Arithmetic : Expression {
  using Expression::Expression;
  using Operator = Value (*)(Interpreter&, const Value&, const Value&);
  struct Step {
    Operator run;
    size_t offset;
    ExpressionPtr operand;
  };
  Value evaluate(Interpreter& in, Scope& scope) const override;
  ExpressionPtr first;
  std::vector<Step> steps;
};

// a ~ b ~ c
struct Concatenation : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  std::vector<ExpressionPtr> operands;
};

// a < b <= c: every neighbouring pair.
struct Comparison : Expression {
  using Expression::Expression;
  using Operator = bool (*)(Interpreter&, const Value&, const Value&);
  struct Step {
    Operator holds;
    ExpressionPtr operand;
  };
  Value evaluate(Interpreter& in, Scope& scope) const override;
  ExpressionPtr first;
  std::vector<Step> steps;
};

// a and b and c; a or b or c.
struct Junction : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  std::vector<ExpressionPtr> operands;
  bool is_or = false;
};

struct Conditional : Expression {
  using Expression::Expression;
  Value evaluate(Interpreter& in, Scope& scope) const override;
  ExpressionPtr test, then, otherwise;  // otherwise may be null
};

// ---- statements ----

struct Data : Statement {
  Data(size_t where, Text printed) : Statement(where), text(std::move(printed)) {}
  Flow execute(Interpreter& in, Scope& scope) const override;
  Text text;
};

struct Print : Statement {
  using Statement::Statement;
  Flow execute(Interpreter& in, Scope& scope) const override;
  ExpressionPtr value;
};

// What a value is assigned to: a name, a namespace's attribute, or a tuple of these.
struct Target {
  size_t offset = 0;
  Symbol symbol = 0;
  std::optional<std::string> attribute;
  std::vector<Target> parts;
  bool is_tuple = false;

  void assign(Interpreter& in, Scope& scope, const Value& value) const;
};

struct If : Statement {
  using Statement::Statement;
  struct Branch {
    ExpressionPtr test;  // null: else
    Body body;
  };
  Flow execute(Interpreter& in, Scope& scope) const override;
  std::vector<Branch> branches;
};

struct For : Statement {
  using Statement::Statement;
  Flow execute(Interpreter& in, Scope& scope) const override;
  // The loop over `items`, at a depth of recursion from 0.
  Flow run(Interpreter& in, Scope& scope, std::vector<Value> items, int depth) const;
  Target target;
  ExpressionPtr items, condition;  // condition may be null
  Symbol loop = 0;                 // the name `loop`
  bool recursive = false;
  Body body, otherwise;
};

struct Set : Statement {
  using Statement::Statement;
  Flow execute(Interpreter& in, Scope& scope) const override;
  Target target;
  ExpressionPtr value;
};

// {% set x | filter %}...{% endset %}
struct SetBlock : Statement {
  using Statement::Statement;
  Flow execute(Interpreter& in, Scope& scope) const override;
  Target target;
  std::unique_ptr<FilterApplication> filter;  // may be null
  Body body;
};

struct Parameters {
  std::vector<std::pair<Symbol, String>> names;
  std::vector<ExpressionPtr> defaults;  // of the last ones
  // The special names that the body uses.
  std::optional<Symbol> caller, varargs, kwargs;

  std::optional<size_t> index_of(std::string_view name) const;
};

// A macro, or what a call block hands over as `caller`.
struct MacroDefinition {
  String name{Text()};
  Parameters parameters;
  Body body;
  size_t offset = 0;
};

struct SetMacro : Statement {
  using Statement::Statement;
  Flow execute(Interpreter& in, Scope& scope) const override;
  Symbol symbol = 0;
  MacroDefinition macro;
};

struct CallBlock : Statement {
  using Statement::Statement;
  Flow execute(Interpreter& in, Scope& scope) const override;
  MacroDefinition caller;
  std::unique_ptr<Call> call;
};

struct FilterBlock : Statement {
  using Statement::Statement;
  Flow execute(Interpreter& in, Scope& scope) const override;
  std::unique_ptr<FilterApplication> filter;
  Body body;
};

// with, and what else only opens a scope: block, generation.
struct ScopedBody : Statement {
  using Statement::Statement;
  Flow execute(Interpreter& in, Scope& scope) const override;
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
  Body body;
};

struct Leave : Statement {
  Leave(size_t where, Flow how) : Statement(where), flow(how) {}
  Flow execute(Interpreter&, Scope&) const override { return flow; }
  Flow flow;
};

// A tag that would reach outside the template.
struct Refusal : Statement {
  Refusal(size_t where, std::string why) : Statement(where), message(std::move(why)) {}
  Flow execute(Interpreter& in, Scope& scope) const override;
  std::string message;
};

// ---- the whole ----

struct Program {
  std::vector<std::string> symbols;  // names by number
  Body body;
};

}  // namespace quern::jinja
