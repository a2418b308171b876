#include "runtime/template/parser.h"

#include <fmt/ranges.h>

#include <unordered_set>

#include "runtime/template/expression_parser.h"

namespace quern::jinja {
namespace {

// Statements.
class Parser : ExpressionParser {
 public:
  explicit Parser(const Source& source) : ExpressionParser(source) {}

  Program run() {
    program_.body = parse_body({});
    if (!unknown_.empty()) source_.refuse(unknown_.front().offset, unknown_.front().message);
    return std::move(program_);
  }

 private:
  Body parse_body(EndTags ends);
  Body parse_block(EndTags ends);
  [[noreturn]] void refuse_tag(EndTags ends) const;
  void parse_statement(Body* body, EndTags ends);
  std::unique_ptr<Statement> parse_if();
  std::unique_ptr<Statement> parse_for();
  std::unique_ptr<Statement> parse_set();
  std::unique_ptr<Statement> parse_macro();
  std::unique_ptr<Statement> parse_call_block();
  std::unique_ptr<Statement> parse_filter_block();
  std::unique_ptr<Statement> parse_with();
  std::unique_ptr<Statement> parse_named_block();
  std::unique_ptr<Statement> parse_generation();
  std::unique_ptr<Statement> parse_autoescape();
  std::unique_ptr<Statement> parse_outside();
  std::unique_ptr<Statement> parse_leave();
  void parse_print(Body* body);
  void parse_signature(Parameters* parameters);
  Body parse_macro_body(EndTags ends, Parameters* parameters);
  Body parse_inner_body(EndTags ends);
  Target parse_target(bool with_namespace, bool ends_at_in);
  Target parse_single_target(bool with_namespace);

  int n_loops_ = 0;  // that break and continue can leave
  std::vector<std::string> open_tags_;
};

// Up to one of `ends`, whose name is then the current token; to the end of the template when there are none.
Body Parser::parse_body(EndTags ends) {
  Body body;
  for (;;) {
    const Token& token = current();
    if (token.kind == Kind::kData) {
      body.push_back(std::make_unique<Data>(token.offset, Text(token.text, Origin::kTemplate)));
      next();
    } else if (token.kind == Kind::kVariableBegin) {
      next();
      auto print = std::make_unique<Print>(token.offset);
      print->value = parse_tuple();
      expect(current().kind == Kind::kVariableEnd, "end of print statement");
      body.push_back(std::move(print));
    } else if (token.kind == Kind::kBlockBegin) {
      next();
      const bool is_end =
          current().kind == Kind::kName && std::find(ends.begin(), ends.end(), current().text) != ends.end();
      if (is_end) return body;
      parse_statement(&body, ends);
      expect_block_end();
    } else {
      if (ends.size() > 0) refuse_tag(ends);
      return body;
    }
  }
}

// The body of a tag: what follows its end.
Body Parser::parse_block(EndTags ends) {
  skip_operator(":");
  expect_block_end();
  return parse_body(ends);
}

void Parser::refuse_tag(EndTags ends) const {
  std::string message = current().kind == Kind::kEnd
                            ? std::string("Unexpected end of template.")
                            : fmt::format("Encountered unknown tag '{}'.", current().text);
  if (ends.size() > 0)
    message += fmt::format(" Jinja was looking for the following tags: '{}'.", fmt::join(ends, "' or '"));
  if (!open_tags_.empty())
    message += fmt::format(" The innermost block that needs to be closed is '{}'.", open_tags_.back());
  refuse(message);
}

void Parser::parse_statement(Body* body, EndTags ends) {
  using Parse = std::unique_ptr<Statement> (Parser::*)();
  static constexpr std::pair<std::string_view, Parse> kTags[] = {
      {"if", &Parser::parse_if},
      {"for", &Parser::parse_for},
      {"set", &Parser::parse_set},
      {"macro", &Parser::parse_macro},
      {"call", &Parser::parse_call_block},
      {"filter", &Parser::parse_filter_block},
      {"with", &Parser::parse_with},
      {"block", &Parser::parse_named_block},
      {"generation", &Parser::parse_generation},
      {"autoescape", &Parser::parse_autoescape},
      {"break", &Parser::parse_leave},
      {"continue", &Parser::parse_leave},
      {"include", &Parser::parse_outside},
      {"import", &Parser::parse_outside},
      {"from", &Parser::parse_outside},
      {"extends", &Parser::parse_outside},
  };
  const Nested nested(*this);
  if (current().kind != Kind::kName) refuse("tag name expected");
  if (current().text == "print") return parse_print(body);
  const auto* tag = std::find_if(std::begin(kTags), std::end(kTags),
                                 [this](const auto& row) { return row.first == current().text; });
  if (tag == std::end(kTags)) refuse_tag(ends);
  open_tags_.push_back(current().text);
  body->push_back((this->*tag->second)());
  open_tags_.pop_back();
}

std::unique_ptr<Statement> Parser::parse_if() {
  auto statement = std::make_unique<If>(next().offset);
  const bool was_optional = std::exchange(optional_, true);
  for (;;) {
    If::Branch branch;
    branch.test = parse_tuple(false);
    branch.body = parse_block({"elif", "else", "endif"});
    statement->branches.push_back(std::move(branch));
    const std::string tag = next().text;
    if (tag == "elif") continue;
    if (tag == "else") {
      statement->branches.push_back({nullptr, parse_block({"endif"})});
      next();
    }
    break;
  }
  optional_ = was_optional;
  return statement;
}

// A body with a scope of its own, in the loop that is around it.
Body Parser::parse_inner_body(EndTags ends) {
  const bool was_optional = std::exchange(optional_, false);
  Body body = parse_block(ends);
  optional_ = was_optional;
  return body;
}

std::unique_ptr<Statement> Parser::parse_for() {
  auto loop = std::make_unique<For>(next().offset);
  loop->loop = symbol("loop");
  ++n_loops_;
  loop->target = parse_target(false, true);
  expect(current().is_name("in"), "in");
  loop->items = parse_tuple(false, {"recursive"});
  if (skip_name("if")) loop->condition = parse_expression();
  loop->recursive = skip_name("recursive");
  loop->body = parse_inner_body({"endfor", "else"});
  --n_loops_;
  if (next().text == "else") {
    loop->otherwise = parse_inner_body({"endfor"});
    next();
  }
  return loop;
}

std::unique_ptr<Statement> Parser::parse_set() {
  const size_t offset = next().offset;
  Target target = parse_target(true, false);
  if (skip_operator("=")) {
    auto set = std::make_unique<Set>(offset);
    set->target = std::move(target);
    set->value = parse_tuple();
    return set;
  }
  auto set = std::make_unique<SetBlock>(offset);
  set->target = std::move(target);
  while (skip_operator("|")) set->filter = parse_filter(std::move(set->filter));
  set->body = parse_inner_body({"endset"});
  next();
  return set;
}

// The body of what is called: its special names are noted, and no loop outside can be left from it.
Body Parser::parse_macro_body(EndTags ends, Parameters* parameters) {
  const bool was_optional = std::exchange(optional_, false);
  const int n_loops = std::exchange(n_loops_, 0);
  macros_.emplace_back();
  Body body = parse_block(ends);
  next();
  const SpecialNames used = macros_.back();
  macros_.pop_back();
  optional_ = was_optional;
  n_loops_ = n_loops;
  const auto is_parameter = [parameters](std::string_view name) {
    return parameters->index_of(name).has_value();
  };
  if (used.caller && !is_parameter("caller")) parameters->caller = symbol("caller");
  if (used.varargs && !is_parameter("varargs")) parameters->varargs = symbol("varargs");
  if (used.kwargs && !is_parameter("kwargs")) parameters->kwargs = symbol("kwargs");
  return body;
}

void Parser::parse_signature(Parameters* parameters) {
  expect_operator("(");
  std::unordered_set<std::string> names;
  while (!current().is_operator(")")) {
    if (!parameters->names.empty()) expect_operator(",");
    const Token& name = expect_name();
    if (!names.insert(name.text).second)
      source_.refuse(name.offset, fmt::format("duplicate argument '{}'", name.text));
    parameters->names.emplace_back(symbol(name.text), String(Text(name.text, Origin::kTemplate)));
    if (skip_operator("="))
      parameters->defaults.push_back(parse_expression());
    else if (!parameters->defaults.empty())
      refuse("non-default argument follows default argument");
  }
  expect_operator(")");
}

std::unique_ptr<Statement> Parser::parse_macro() {
  auto statement = std::make_unique<SetMacro>(next().offset);
  MacroDefinition& macro = statement->macro;
  macro.offset = statement->offset;
  const Token& name = expect_name();
  macro.name = String(Text(name.text, Origin::kTemplate));
  statement->symbol = symbol(name.text);
  parse_signature(&macro.parameters);
  macro.body = parse_macro_body({"endmacro"}, &macro.parameters);
  return statement;
}

std::unique_ptr<Statement> Parser::parse_call_block() {
  auto block = std::make_unique<CallBlock>(next().offset);
  block->caller.offset = block->offset;
  block->caller.name = String(Text("caller", Origin::kTemplate));
  if (current().is_operator("(")) parse_signature(&block->caller.parameters);
  ExpressionPtr expression = parse_expression();
  if (dynamic_cast<Call*>(expression.get()) == nullptr) source_.refuse(block->offset, "expected call");
  block->call.reset(static_cast<Call*>(expression.release()));
  block->caller.body = parse_macro_body({"endcall"}, &block->caller.parameters);
  return block;
}

std::unique_ptr<Statement> Parser::parse_filter_block() {
  auto block = std::make_unique<FilterBlock>(next().offset);
  block->filter = parse_filter(nullptr);
  while (skip_operator("|")) block->filter = parse_filter(std::move(block->filter));
  block->body = parse_inner_body({"endfilter"});
  next();
  return block;
}

std::unique_ptr<Statement> Parser::parse_with() {
  auto with = std::make_unique<ScopedBody>(next().offset);
  while (current().kind != Kind::kBlockEnd) {
    if (!with->assignments.empty()) expect_operator(",");
    Target target = parse_target(false, false);
    expect_operator("=");
    with->assignments.emplace_back(std::move(target), parse_expression());
  }
  with->body = parse_inner_body({"endwith"});
  next();
  return with;
}

// Without inheritance a block stands for its body.
std::unique_ptr<Statement> Parser::parse_named_block() {
  auto block = std::make_unique<ScopedBody>(next().offset);
  const std::string name = expect_name().text;
  skip_name("scoped");
  skip_name("required");
  const int n_loops = std::exchange(n_loops_, 0);
  block->body = parse_inner_body({"endblock"});
  n_loops_ = n_loops;
  next();
  skip_name(name);
  return block;
}

// Marks what the model answered, for training; transformers makes it a call block.
std::unique_ptr<Statement> Parser::parse_generation() {
  auto block = std::make_unique<ScopedBody>(next().offset);
  Parameters none;
  block->body = parse_macro_body({"endgeneration"}, &none);
  return block;
}

std::unique_ptr<Statement> Parser::parse_autoescape() {
  auto block = std::make_unique<ScopedBody>(next().offset);
  if (!skip_name("false")) refuse("autoescape is not supported");
  block->body = parse_inner_body({"endautoescape"});
  next();
  return block;
}

std::unique_ptr<Statement> Parser::parse_outside() {
  const Token& tag = next();
  while (current().kind != Kind::kBlockEnd && current().kind != Kind::kEnd) next();
  return std::make_unique<Refusal>(
      tag.offset, fmt::format("'{}' reaches for another template, and there is none", tag.text));
}

std::unique_ptr<Statement> Parser::parse_leave() {
  const Token& tag = next();
  if (n_loops_ == 0) source_.refuse(tag.offset, fmt::format("'{}' outside loop", tag.text));
  return std::make_unique<Leave>(tag.offset, tag.text == "break" ? Flow::kBreak : Flow::kContinue);
}

void Parser::parse_print(Body* body) {
  next();
  for (bool first = true; current().kind != Kind::kBlockEnd; first = false) {
    if (!first) expect_operator(",");
    auto print = std::make_unique<Print>(current().offset);
    print->value = parse_expression();
    body->push_back(std::move(print));
  }
}

Target Parser::parse_single_target(bool with_namespace) {
  const Nested nested(*this);
  if (skip_operator("(")) {
    Target target = parse_target(with_namespace, false);
    expect_operator(")");
    return target;
  }
  if (current().kind != Kind::kName) refuse(fmt::format("unexpected '{}'", describe(current())));
  const Token& name = next();
  for (const char* constant : {"true", "false", "none", "True", "False", "None"})
    if (name.text == constant) source_.refuse(name.offset, "can't assign to 'const'");
  if (name.text == "loop" && n_loops_ > 0)
    source_.refuse(name.offset, "Can't assign to special loop variable in for-loop target");
  Target target;
  target.offset = name.offset;
  target.symbol = symbol(name.text);
  if (with_namespace && skip_operator(".")) target.attribute = expect_name().text;
  return target;
}

// One name, or several with commas between them.
Target Parser::parse_target(bool with_namespace, bool ends_at_in) {
  Target tuple;
  tuple.offset = current().offset;
  while (!at_tuple_end({}) && !(ends_at_in && current().is_name("in"))) {
    tuple.parts.push_back(parse_single_target(with_namespace));
    if (!skip_operator(",")) break;
    tuple.is_tuple = true;
  }
  if (tuple.is_tuple) return tuple;
  if (tuple.parts.empty()) refuse(fmt::format("Expected an expression, got '{}'", describe(current())));
  Target only = std::move(tuple.parts.front());
  return only;
}

}  // namespace

Program parse(const Source& source) { return Parser(source).run(); }

}  // namespace quern::jinja
