#include "runtime/template/expression_parser.h"

#include <charconv>
#include <cstdlib>
#include <unordered_set>

#include "runtime/template/operators.h"

namespace quern::jinja {

std::string ExpressionParser::describe(const Token& token) {
  switch (token.kind) {
    case Kind::kVariableEnd:
      return "end of print statement";
    case Kind::kBlockEnd:
      return "end of statement block";
    case Kind::kEnd:
      return "end of template";
    case Kind::kString:
      return "string";
    default:
      return token.text;
  }
}

bool ExpressionParser::at_tuple_end(EndTags ends) const {
  const Token& token = current();
  return token.kind == Kind::kVariableEnd || token.kind == Kind::kBlockEnd || token.is_operator(")") ||
         (token.kind == Kind::kName && std::find(ends.begin(), ends.end(), token.text) != ends.end());
}

ExpressionPtr ExpressionParser::parse_tuple(bool with_condition, EndTags ends, bool in_parentheses) {
  auto tuple = std::make_unique<SequenceDisplay>(current().offset);
  tuple->is_tuple = true;
  bool has_comma = false;
  while (!at_tuple_end(ends)) {
    tuple->items.push_back(parse_expression(with_condition));
    if (!skip_operator(",")) break;
    has_comma = true;
  }
  if (!has_comma && !tuple->items.empty()) return std::move(tuple->items.front());
  if (!has_comma && !in_parentheses)
    refuse(fmt::format("Expected an expression, got '{}'", describe(current())));
  for (const ExpressionPtr& item : tuple->items) deepen(tuple.get(), item);
  return tuple;
}

ExpressionPtr ExpressionParser::parse_expression(bool with_condition) {
  const Nested nested(*this);
  return with_condition ? parse_conditional() : parse_junction(true);
}

ExpressionPtr ExpressionParser::parse_conditional() {
  const size_t n_unknown = unknown_.size();
  ExpressionPtr value = parse_junction(true);
  while (skip_name("if")) {
    auto conditional = std::make_unique<Conditional>(value->offset);
    conditional->then = std::move(value);
    conditional->test = parse_junction(true);
    if (skip_name("else")) conditional->otherwise = parse_expression();
    deepen(conditional.get(), conditional->then);
    deepen(conditional.get(), conditional->test);
    deepen(conditional.get(), conditional->otherwise);
    value = std::move(conditional);
    unknown_.resize(n_unknown);  // what is optional is refused when it is reached
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_junction(bool is_or) {
  const auto operand = [&] { return is_or ? parse_junction(false) : parse_not(); };
  const std::string_view word = is_or ? "or" : "and";
  ExpressionPtr first = operand();
  if (!current().is_name(word)) return first;
  auto junction = std::make_unique<Junction>(first->offset);
  junction->is_or = is_or;
  junction->operands.push_back(std::move(first));
  while (skip_name(word)) junction->operands.push_back(operand());
  for (const ExpressionPtr& each : junction->operands) deepen(junction.get(), each);
  return junction;
}

ExpressionPtr ExpressionParser::parse_not() {
  if (!current().is_name("not")) return parse_comparison();
  const Nested nested(*this);
  auto negation = std::make_unique<Not>(next().offset);
  negation->operand = parse_not();
  deepen(negation.get(), negation->operand);
  return negation;
}

// The comparison that the current tokens say, which are skipped; null: none.
Comparison::Operator ExpressionParser::read_comparison() {
  static constexpr std::pair<std::string_view, Comparison::Operator> kComparisons[] = {
      {"==", equals},        {"!=", differs}, {"<", less},
      {"<=", less_or_equal}, {">", greater},  {">=", greater_or_equal}};
  for (const auto& [text, holds] : kComparisons)
    if (skip_operator(text)) return holds;
  if (skip_name("in")) return is_in;
  if (current().is_name("not") && look().is_name("in")) {
    next();
    next();
    return is_not_in;
  }
  return nullptr;
}

ExpressionPtr ExpressionParser::parse_comparison() {
  ExpressionPtr first = parse_sum();
  const size_t offset = current().offset;
  Comparison::Operator holds = read_comparison();
  if (holds == nullptr) return first;
  auto comparison = std::make_unique<Comparison>(offset);
  comparison->first = std::move(first);
  deepen(comparison.get(), comparison->first);
  for (; holds != nullptr; holds = read_comparison()) {
    comparison->steps.push_back({holds, parse_sum()});
    deepen(comparison.get(), comparison->steps.back().operand);
  }
  return comparison;
}

ExpressionPtr ExpressionParser::parse_arithmetic(
    std::initializer_list<std::pair<std::string_view, Arithmetic::Operator>> operators,
    ExpressionPtr (ExpressionParser::*operand)()) {
  ExpressionPtr first = (this->*operand)();
  const auto find = [&] {
    return std::find_if(operators.begin(), operators.end(),
                        [this](const auto& row) { return current().is_operator(row.first); });
  };
  const auto* row = find();
  if (row == operators.end()) return first;
  auto arithmetic = std::make_unique<Arithmetic>(first->offset);
  arithmetic->first = std::move(first);
  deepen(arithmetic.get(), arithmetic->first);
  for (; row != operators.end(); row = find()) {
    const size_t offset = next().offset;
    arithmetic->steps.push_back({row->second, offset, (this->*operand)()});
    deepen(arithmetic.get(), arithmetic->steps.back().operand);
  }
  return arithmetic;
}

ExpressionPtr ExpressionParser::parse_sum() {
  return parse_arithmetic({{"+", add}, {"-", subtract}}, &ExpressionParser::parse_concatenation);
}

ExpressionPtr ExpressionParser::parse_concatenation() {
  ExpressionPtr first = parse_product();
  if (!current().is_operator("~")) return first;
  auto concatenation = std::make_unique<Concatenation>(first->offset);
  concatenation->operands.push_back(std::move(first));
  while (skip_operator("~")) concatenation->operands.push_back(parse_product());
  for (const ExpressionPtr& each : concatenation->operands) deepen(concatenation.get(), each);
  return concatenation;
}

ExpressionPtr ExpressionParser::parse_product() {
  return parse_arithmetic({{"*", multiply}, {"/", divide}, {"//", floor_divide}, {"%", modulo}},
                          &ExpressionParser::parse_power);
}

ExpressionPtr ExpressionParser::parse_power() {
  return parse_arithmetic({{"**", power}}, &ExpressionParser::parse_unary_with_filters);
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filters) {
  ExpressionPtr value;
  if (current().is_operator("-") || current().is_operator("+")) {
    const Nested nested(*this);
    auto sign = std::make_unique<Sign>(current().offset);
    sign->negative = next().text == "-";
    sign->operand = parse_unary(false);
    deepen(sign.get(), sign->operand);
    value = std::move(sign);
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  return with_filters ? parse_filters_and_tests(std::move(value)) : std::move(value);
}

ExpressionPtr ExpressionParser::integer_literal(const Token& token) const {
  std::string_view digits = token.text;
  int base = 10;
  if (digits.size() > 2 && digits[0] == '0') {
    const char letter = static_cast<char>(digits[1] | 0x20);
    base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    if (base != 10) digits.remove_prefix(2);
  }
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (error != std::errc() || end != digits.data() + digits.size())
    source_.refuse(token.offset, "integers beyond 64 bits are not supported");
  return std::make_unique<Literal>(token.offset, Value::integer(value));
}

ExpressionPtr ExpressionParser::parse_primary() {
  const Token& token = current();
  if (token.kind == Kind::kName) return parse_name();
  if (token.kind == Kind::kString) {
    std::string text;
    while (current().kind == Kind::kString) text += next().text;
    return std::make_unique<Literal>(token.offset, Value::string(std::move(text), Origin::kTemplate));
  }
  if (token.kind == Kind::kInteger) return integer_literal(next());
  if (token.kind == Kind::kFloat)
    return std::make_unique<Literal>(token.offset, Value::number(std::strtod(next().text.c_str(), nullptr)));
  if (skip_operator("(")) {
    ExpressionPtr value = parse_tuple(true, {}, true);
    expect_operator(")");
    return value;
  }
  if (token.is_operator("[")) return parse_list();
  if (token.is_operator("{")) return parse_dict();
  refuse(fmt::format("unexpected '{}'", describe(token)));
}

ExpressionPtr ExpressionParser::parse_name() {
  const Token& token = next();
  const std::string& name = token.text;
  if (name == "true" || name == "True" || name == "false" || name == "False")
    return std::make_unique<Literal>(token.offset, Value::boolean((name[0] | 0x20) == 't'));
  if (name == "none" || name == "None") return std::make_unique<Literal>(token.offset, Value());
  for (SpecialNames& macro : macros_) {
    macro.caller |= name == "caller";
    macro.varargs |= name == "varargs";
    macro.kwargs |= name == "kwargs";
  }
  return std::make_unique<Name>(token.offset, symbol(name));
}

ExpressionPtr ExpressionParser::parse_list() {
  auto list = std::make_unique<SequenceDisplay>(expect_operator("[").offset);
  while (!current().is_operator("]")) {
    if (!list->items.empty()) expect_operator(",");
    if (current().is_operator("]")) break;
    list->items.push_back(parse_expression());
    deepen(list.get(), list->items.back());
  }
  expect_operator("]");
  return list;
}

ExpressionPtr ExpressionParser::parse_dict() {
  auto dict = std::make_unique<DictDisplay>(expect_operator("{").offset);
  while (!current().is_operator("}")) {
    if (!dict->items.empty()) expect_operator(",");
    if (current().is_operator("}")) break;
    ExpressionPtr key = parse_expression();
    expect_operator(":");
    ExpressionPtr value = parse_expression();
    deepen(dict.get(), key);
    deepen(dict.get(), value);
    dict->items.emplace_back(std::move(key), std::move(value));
  }
  expect_operator("}");
  return dict;
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr value) {
  for (;;) {
    if (current().is_operator("."))
      value = parse_dot(std::move(value));
    else if (current().is_operator("["))
      value = parse_brackets(std::move(value));
    else if (current().is_operator("("))
      value = parse_call(std::move(value));
    else
      return value;
  }
}

ExpressionPtr ExpressionParser::parse_filters_and_tests(ExpressionPtr value) {
  for (;;) {
    if (skip_operator("|"))
      value = parse_filter(std::move(value));
    else if (skip_name("is"))
      value = parse_test(std::move(value));
    else if (current().is_operator("("))
      value = parse_call(std::move(value));
    else
      return value;
  }
}

ExpressionPtr ExpressionParser::parse_dot(ExpressionPtr value) {
  const size_t offset = next().offset;
  const Token& token = next();
  if (token.kind == Kind::kName) {
    auto access = std::make_unique<AttributeAccess>(offset);
    access->object = std::move(value);
    access->name = token.text;
    deepen(access.get(), access->object);
    return access;
  }
  if (token.kind != Kind::kInteger) source_.refuse(token.offset, "expected name or number");
  auto subscript = std::make_unique<Subscript>(offset);
  subscript->object = std::move(value);
  subscript->key = integer_literal(token);
  deepen(subscript.get(), subscript->object);
  return subscript;
}

// x[key], x[a, b] or x[start:stop:step].
ExpressionPtr ExpressionParser::parse_brackets(ExpressionPtr value) {
  const size_t offset = next().offset;
  std::vector<ExpressionPtr> keys;
  ExpressionPtr bounds[3];
  size_t n_colons = 0;
  while (!current().is_operator("]")) {
    if (n_colons > 0) refuse("several slices in one subscript are not supported");
    if (!keys.empty()) expect_operator(",");
    ExpressionPtr key;
    if (!current().is_operator(":")) key = parse_expression();
    if (!current().is_operator(":")) {
      keys.push_back(std::move(key));
      continue;
    }
    if (!keys.empty()) refuse("several slices in one subscript are not supported");
    bounds[0] = std::move(key);
    while (n_colons < 2 && skip_operator(":")) {
      ++n_colons;
      if (!current().is_operator(":") && !current().is_operator("]")) bounds[n_colons] = parse_expression();
    }
  }
  expect_operator("]");
  if (n_colons > 0) {
    auto slice = std::make_unique<Slice>(offset);
    slice->object = std::move(value);
    slice->start = std::move(bounds[0]);
    slice->stop = std::move(bounds[1]);
    slice->step = std::move(bounds[2]);
    for (const ExpressionPtr* each : {&slice->object, &slice->start, &slice->stop, &slice->step})
      deepen(slice.get(), *each);
    return slice;
  }
  auto subscript = std::make_unique<Subscript>(offset);
  subscript->object = std::move(value);
  if (keys.size() == 1) {
    subscript->key = std::move(keys.front());
  } else {
    auto tuple = std::make_unique<SequenceDisplay>(offset);
    tuple->is_tuple = true;
    tuple->items = std::move(keys);
    for (const ExpressionPtr& item : tuple->items) deepen(tuple.get(), item);
    subscript->key = std::move(tuple);
  }
  deepen(subscript.get(), subscript->object);
  deepen(subscript.get(), subscript->key);
  return subscript;
}

ExpressionPtr ExpressionParser::parse_call(ExpressionPtr value) {
  auto call = std::make_unique<Call>(current().offset);
  call->callee = std::move(value);
  call->arguments = parse_arguments();
  deepen(call.get(), call->callee);
  deepen(call.get(), call->arguments);
  return call;
}

CallArguments ExpressionParser::parse_arguments() {
  const size_t offset = expect_operator("(").offset;
  CallArguments arguments;
  std::unordered_set<std::string> names;
  const auto require = [&](bool condition) {
    if (!condition) source_.refuse(offset, "invalid syntax for function call expression");
  };
  for (bool first = true; !current().is_operator(")"); first = false) {
    if (!first) expect_operator(",");
    if (current().is_operator(")")) break;
    if (skip_operator("*")) {
      require(!arguments.more_positional && !arguments.more_keywords);
      arguments.more_positional = parse_expression();
    } else if (skip_operator("**")) {
      require(!arguments.more_keywords);
      arguments.more_keywords = parse_expression();
    } else if (current().kind == Kind::kName && look().is_operator("=")) {
      require(!arguments.more_keywords);
      const std::string name = next().text;
      next();
      if (!names.insert(name).second)
        source_.refuse(offset, fmt::format("keyword argument repeated: {}", name));
      arguments.keywords.emplace_back(String(Text(name, Origin::kTemplate)), parse_expression());
    } else {
      require(!arguments.more_positional && !arguments.more_keywords && arguments.keywords.empty());
      arguments.positional.push_back(parse_expression());
    }
  }
  expect_operator(")");
  return arguments;
}

std::string ExpressionParser::parse_dotted_name() {
  std::string name = expect_name().text;
  while (skip_operator(".")) name += "." + expect_name().text;
  return name;
}

std::unique_ptr<FilterApplication> ExpressionParser::parse_filter(ExpressionPtr input) {
  auto application = std::make_unique<FilterApplication>(current().offset);
  application->name = parse_dotted_name();
  application->filter = find_builtin(filters(), application->name);
  if (application->filter == nullptr)
    report_unknown(application->offset, fmt::format("No filter named '{}'.", application->name));
  if (current().is_operator("(")) application->arguments = parse_arguments();
  application->input = std::move(input);
  deepen(application.get(), application->input);
  deepen(application.get(), application->arguments);
  return application;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr input) {
  const bool negated = skip_name("not");
  auto application = std::make_unique<TestApplication>(current().offset);
  application->name = parse_dotted_name();
  application->test = find_builtin(tests(), application->name);
  if (application->test == nullptr)
    report_unknown(application->offset, fmt::format("No test named '{}'.", application->name));
  const Token& token = current();
  const bool takes_value =
      token.kind == Kind::kString || token.kind == Kind::kInteger || token.kind == Kind::kFloat ||
      token.is_operator("[") || token.is_operator("{") ||
      (token.kind == Kind::kName && token.text != "else" && token.text != "or" && token.text != "and");
  if (token.is_operator("(")) {
    application->arguments = parse_arguments();
  } else if (takes_value) {
    if (token.is_name("is")) refuse("You cannot chain multiple tests with is");
    application->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  application->input = std::move(input);
  deepen(application.get(), application->input);
  deepen(application.get(), application->arguments);
  if (!negated) return application;
  auto negation = std::make_unique<Not>(application->offset);
  negation->operand = std::move(application);
  deepen(negation.get(), negation->operand);
  return negation;
}

}  // namespace quern::jinja
