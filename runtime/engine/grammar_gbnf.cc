#include "runtime/engine/grammar_gbnf.h"

#include <algorithm>
#include <map>
#include <utility>

#include "quant/error.h"
#include "quant/utf8.h"
#include "runtime/engine/grammar_reader.h"

namespace quern {
namespace {

constexpr size_t kMaxGbnfBytes = 1u << 18;
constexpr size_t kMaxGbnfDepth = 64;

class GbnfParser final : GrammarReader {
 public:
  GbnfParser(GrammarBuilder& builder, std::string_view text, const std::string& where)
      : GrammarReader(text), builder_(builder), where_(where) {}

  GrammarBuilder::Rule parse() {
    if (text_.size() > kMaxGbnfBytes)
      fail(ErrorCode::kMalformed, "{}: {} bytes (expected at most {})", where_, text_.size(), kMaxGbnfBytes);
    if (!is_valid_utf8(text_)) fail(ErrorCode::kMalformed, "{}: not valid UTF-8", where_);
    skip_space(true);
    while (at_ < text_.size()) parse_rule();
    for (const auto& [name, rule] : rules_)
      if (!rule.defined)
        fail(ErrorCode::kMalformed, "{}: line {}: there is no rule '{}'", where_, line_of(rule.place),
             printable(name));
    const auto root = rules_.find("root");
    if (root == rules_.end()) fail(ErrorCode::kMalformed, "{}: there is no rule 'root'", where_);
    return root->second.rule;
  }

 private:
  using State = GrammarBuilder::State;
  struct NamedRule {
    GrammarBuilder::Rule rule;
    size_t place;  // of its first mention
    bool defined = false;
  };

  [[noreturn]] void refuse(const std::string& why) const override {
    fail(ErrorCode::kMalformed, "{}: line {}: {}", where_, line_of(at_), why);
  }
  size_t line_of(size_t place) const {
    const std::string_view before = text_.substr(0, place);
    return 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n'));
  }

  // White space and comments, with the ends of lines where they mean nothing.
  void skip_space(bool with_lines) {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        at_ = std::min(text_.find_first_of("\r\n", at_), text_.size());
      } else if (c == ' ' || c == '\t' || (with_lines && (c == '\n' || c == '\r'))) {
        ++at_;
      } else {
        break;
      }
    }
  }

  static bool is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  }
  std::string parse_name() {
    const size_t begin = at_;
    while (is_name_char(peek())) ++at_;
    if (at_ == begin) refuse(fmt::format("expected a name, found '{}'", printable(text_.substr(at_, 8))));
    return std::string(text_.substr(begin, at_ - begin));
  }

  NamedRule& rule_named(const std::string& name) {
    const auto [found, is_new] = rules_.try_emplace(name, NamedRule{0, at_});
    if (is_new) found->second.rule = builder_.add_rule(name);
    return found->second;
  }

  void parse_rule() {
    const std::string name = parse_name();
    skip_space(false);
    if (!take("::=")) refuse(fmt::format("expected ::= behind the name '{}'", printable(name)));
    skip_space(true);
    NamedRule& rule = rule_named(name);
    if (rule.defined) refuse(fmt::format("the rule '{}' is there twice", printable(name)));
    rule.defined = true;
    const GrammarBuilder::Rule id = rule.rule;
    builder_.add_empty(parse_alternatives(builder_.begin(id), 0), builder_.end(id));
    if (at_ < text_.size() && peek() != '\n' && peek() != '\r')
      refuse(fmt::format("expected the end of the rule, found '{}'", printable(text_.substr(at_, 8))));
    skip_space(true);
  }

  State parse_alternatives(State from, size_t depth) {
    if (depth > kMaxGbnfDepth) refuse(fmt::format("more than {} parentheses in each other", kMaxGbnfDepth));
    const State out = builder_.add_state();
    for (;;) {
      const State begin = builder_.add_state();
      builder_.add_empty(from, begin);
      builder_.add_empty(parse_sequence(begin, depth), out);
      if (!take("|")) return out;
      skip_space(true);
    }
  }

  State parse_sequence(State at, size_t depth) {
    for (;;) {
      skip_space(depth > 0);
      const char c = peek();
      if (at_ >= text_.size() || c == '|' || c == ')' || c == '\n' || c == '\r') return at;
      at = parse_item(at, depth);
    }
  }

  // An item and its count, which stands behind it: what may be long is read once, into a rule of its own.
  State parse_item(State from, size_t depth) {
    const size_t begin = at_;
    if (peek() == '(') {
      const GrammarBuilder::Rule rule = builder_.add_rule("a parenthesis");
      builder_.add_empty(parse_atom(builder_.begin(rule), depth), builder_.end(rule));
      return counted(from, depth, [&](State state) { return builder_.call(state, rule); });
    }
    (void)parse_atom(builder_.add_state(), depth);  // whose way leads nowhere
    const size_t end = at_;
    return counted(from, depth, [&](State state) {
      const size_t now = std::exchange(at_, begin);
      const State to = parse_atom(state, depth);
      QUERN_CHECK(at_ == end);
      at_ = now;
      return to;
    });
  }

  State counted(State from, size_t depth, const GrammarBuilder::Piece& piece) {
    skip_space(depth > 0);
    const std::optional<Count> count = parse_count();
    return count ? builder_.repeat(from, piece, count->min, count->max) : piece(from);
  }

  std::optional<Count> parse_count() {
    if (take("?")) return Count{0, 1};
    if (take("*")) return Count{0, std::nullopt};
    if (take("+")) return Count{1, std::nullopt};
    if (!take("{")) return std::nullopt;
    skip_space(false);
    Count count = {0, std::nullopt};
    const bool has_min = peek() != ',';
    if (has_min) count.min = parse_number();
    skip_space(false);
    if (take(",")) {
      skip_space(false);
      if (peek() != '}') count.max = parse_number();
    } else {
      count.max = count.min;
    }
    skip_space(false);
    if (!take("}")) refuse("expected } behind the count");
    if (count.max && *count.max < count.min)
      refuse(fmt::format("the count {{{},{}}} has a maximum below its minimum", count.min, *count.max));
    return count;
  }

  State parse_atom(State from, size_t depth) {
    if (take("\"")) return parse_text(from);
    if (take("[")) return builder_.chars(from, parse_class());
    if (take(".")) return builder_.chars(from, CharSet::all());
    if (take("(")) {
      skip_space(true);
      const State to = parse_alternatives(from, depth + 1);
      skip_space(true);
      if (!take(")")) refuse("a parenthesis is not closed");
      return to;
    }
    if (peek() == '<' || peek() == '!') refuse("tokens (<...>) are not taken; spell their text");
    if (!is_name_char(peek()))
      refuse(fmt::format("expected a text, a class, a name or a parenthesis, found '{}'",
                         printable(text_.substr(at_, 8))));
    const std::string name = parse_name();
    return builder_.call(from, rule_named(name).rule);
  }

  State parse_text(State from) {
    std::string bytes;
    while (!take("\"")) {
      if (at_ >= text_.size() || peek() == '\n') refuse("a text is not closed");
      append_utf8(static_cast<char32_t>(parse_char()), &bytes);
    }
    return builder_.text(from, bytes);
  }

  CharSet parse_class() {
    const bool negated = take("^");
    std::vector<CharSet::Range> ranges;
    while (!take("]")) {
      if (at_ >= text_.size() || peek() == '\n') refuse("a class is not closed");
      const uint32_t low = parse_char();
      uint32_t high = low;
      if (peek() == '-' && peek(1) != ']' && peek(1) != '\0') {
        ++at_;
        high = parse_char();
      }
      if (high < low) refuse("a range of a class ends before it begins");
      ranges.push_back({low, high});
    }
    const CharSet set = CharSet::of(std::move(ranges));
    return negated ? ~set : set;
  }

  uint32_t parse_char() {
    if (!take("\\")) {
      const size_t length = utf8_length(text_.substr(at_));
      const auto point = static_cast<uint32_t>(code_point(text_.substr(at_, length)));
      at_ += length;
      return point;
    }
    const char c = peek();
    ++at_;
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'x':
        return parse_hex(2);
      case 'u':
        return parse_hex(4);
      case 'U':
        return parse_hex(8);
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^':
      case '/':
        return static_cast<uint32_t>(c);
      default:
        refuse(fmt::format("\\{} is not known", printable(std::string_view(&c, 1))));
    }
  }

  uint32_t parse_hex(size_t n_digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < n_digits; ++i, ++at_) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) refuse(fmt::format("expected {} hexadecimal digits", n_digits));
      value = value * 16 + static_cast<uint32_t>(digit);
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
      refuse(fmt::format("U+{:04X} is no character", value));
    return value;
  }

  GrammarBuilder& builder_;
  const std::string where_;
  std::map<std::string, NamedRule> rules_;
};

}  // namespace

GrammarBuilder::Rule add_gbnf(GrammarBuilder& builder, std::string_view text, const std::string& where) {
  return GbnfParser(builder, text, where).parse();
}

Grammar parse_gbnf(std::string_view text, const std::string& where) {
  GrammarBuilder builder(where);
  const GrammarBuilder::Rule root = add_gbnf(builder, text, where);
  return builder.finish(root);
}

}  // namespace quern
