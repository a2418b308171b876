// A template's tokens, and expressions out of them.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/template/lexer.h"
#include "runtime/template/source.h"
#include "runtime/template/syntax.h"

namespace quern::jinja {

// What the statements' parser stands on: the place in the tokens, names that become symbols, and the grammar
// of expressions. Refuses nesting beyond kMaxNesting.
class ExpressionParser {
 protected:
  explicit ExpressionParser(const Source& source) : source_(source), tokens_(tokenize(source)) {}
  ~ExpressionParser() = default;

  using Kind = Token::Kind;
  using EndTags = std::initializer_list<std::string_view>;

  // Counts how deep the parser is in itself.
  class Nested {
   public:
    explicit Nested(ExpressionParser& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxNesting) parser_.refuse_nesting(parser_.current().offset);
    }
    ~Nested() { --parser_.nesting_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    ExpressionParser& parser_;
  };

  // Of a macro's body: which of these names it mentions.
  struct SpecialNames {
    bool caller = false, varargs = false, kwargs = false;
  };
  struct Unknown {
    size_t offset;
    std::string message;
  };

  // How a token is called in messages.
  static std::string describe(const Token& token);

  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool skip_operator(std::string_view op) {
    const bool is = current().is_operator(op);
    if (is) next();
    return is;
  }
  bool skip_name(std::string_view name) {
    const bool is = current().is_name(name);
    if (is) next();
    return is;
  }
  const Token& expect(bool fits, std::string_view what) {
    if (!fits) refuse(fmt::format("expected token '{}', got '{}'", what, describe(current())));
    return next();
  }
  const Token& expect_operator(std::string_view op) { return expect(current().is_operator(op), op); }
  const Token& expect_name() { return expect(current().kind == Kind::kName, "name"); }
  const Token& expect_block_end() {
    return expect(current().kind == Kind::kBlockEnd, "end of statement block");
  }
  [[noreturn]] void refuse(std::string_view message) const { source_.refuse(current().offset, message); }
  [[noreturn]] void refuse_nesting(size_t offset) const {
    source_.refuse(offset, fmt::format("the template is nested deeper than {} levels", kMaxNesting));
  }

  Symbol symbol(const std::string& name) {
    const auto [found, is_new] = symbols_.try_emplace(name, static_cast<Symbol>(program_.symbols.size()));
    if (is_new) program_.symbols.push_back(name);
    return found->second;
  }
  void deepen(Expression* parent, const ExpressionPtr& child) const {
    if (child == nullptr) return;
    parent->depth = std::max(parent->depth, child->depth + 1);
    if (parent->depth > kMaxNesting) refuse_nesting(parent->offset);
  }
  void deepen(Expression* parent, const CallArguments& arguments) const {
    for (const ExpressionPtr& value : arguments.positional) deepen(parent, value);
    for (const auto& [name, value] : arguments.keywords) deepen(parent, value);
    deepen(parent, arguments.more_positional);
    deepen(parent, arguments.more_keywords);
  }
  void report_unknown(size_t offset, std::string message) {
    if (!optional_) unknown_.push_back({offset, std::move(message)});
  }

  ExpressionPtr parse_tuple(bool with_condition = true, EndTags ends = {}, bool in_parentheses = false);
  bool at_tuple_end(EndTags ends) const;
  ExpressionPtr parse_expression(bool with_condition = true);
  std::unique_ptr<FilterApplication> parse_filter(ExpressionPtr input);

  const Source& source_;
  // Within an if, whose parts are optional: an unknown filter is refused only when it is reached.
  bool optional_ = false;
  std::vector<SpecialNames> macros_;  // that enclose the place, outermost first
  std::vector<Unknown> unknown_;
  Program program_;

 private:
  ExpressionPtr parse_conditional();
  ExpressionPtr parse_junction(bool is_or);
  ExpressionPtr parse_not();
  ExpressionPtr parse_comparison();
  Comparison::Operator read_comparison();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concatenation();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_arithmetic(
      std::initializer_list<std::pair<std::string_view, Arithmetic::Operator>> operators,
      ExpressionPtr (ExpressionParser::*operand)());
  ExpressionPtr parse_unary_with_filters() { return parse_unary(true); }
  ExpressionPtr parse_unary(bool with_filters);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_name();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr value);
  ExpressionPtr parse_filters_and_tests(ExpressionPtr value);
  ExpressionPtr parse_dot(ExpressionPtr value);
  ExpressionPtr parse_brackets(ExpressionPtr value);
  ExpressionPtr parse_call(ExpressionPtr value);
  CallArguments parse_arguments();
  ExpressionPtr parse_test(ExpressionPtr input);
  std::string parse_dotted_name();
  ExpressionPtr integer_literal(const Token& token) const;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  std::unordered_map<std::string, Symbol> symbols_;
};

}  // namespace quern::jinja
