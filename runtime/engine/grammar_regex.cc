#include "runtime/engine/grammar_regex.h"

#include <algorithm>
#include <utility>

#include "quant/error.h"
#include "quant/utf8.h"
#include "runtime/engine/grammar_reader.h"

namespace quern {
namespace {

constexpr size_t kMaxPatternBytes = 1u << 14;
constexpr size_t kMaxPatternDepth = 64;

const CharSet kAscii = {{0, 0x7F}};
const CharSet kDigits = {{'0', '9'}};
const CharSet kWordChars = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CharSet kSpaces = {{'\t', '\r'}, {' ', ' '}};
const CharSet kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

class RegexParser final : GrammarReader {
 public:
  using State = GrammarBuilder::State;

  RegexParser(GrammarBuilder& builder, std::string_view pattern, const std::string& where,
              const RegexOptions& options)
      : GrammarReader(pattern), builder_(builder), where_(where), options_(options) {}

  State parse(State from) {
    if (text_.size() > kMaxPatternBytes)
      refuse(fmt::format("{} bytes (expected at most {})", text_.size(), kMaxPatternBytes));
    if (!is_valid_utf8(text_)) refuse("not valid UTF-8");
    const State to = parse_alternatives(from, 0);
    if (at_ < text_.size()) refuse("a parenthesis is closed that was not opened");
    return to;
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const override {
    fail(ErrorCode::kMalformed, "{}: the expression '{}', at {}: {}", where_, printable(text_), at_, why);
  }

  State write(State from, const CharSet& set) const {
    return options_.write ? options_.write(from, set) : builder_.chars(from, set);
  }
  State anything(State from) const {
    return builder_.repeat(
        from, [&](State at) { return write(at, CharSet::all()); }, 0, std::nullopt);
  }

  // Only whole alternatives of the whole expression are anchored.
  State parse_alternatives(State from, size_t depth) {
    if (depth > kMaxPatternDepth) refuse(fmt::format("more than {} groups in each other", kMaxPatternDepth));
    const State out = builder_.add_state();
    do {
      State at = builder_.add_state();
      builder_.add_empty(from, at);
      const bool searches = options_.searches && depth == 0;
      const bool from_start = depth == 0 && take("^");
      if (searches && !from_start) at = anything(at);
      while (at_ < text_.size() && peek() != '|' && peek() != ')' && !at_end(depth))
        at = parse_item(at, depth);
      const bool to_end = depth == 0 && take("$");
      if (searches && !to_end) at = anything(at);
      builder_.add_empty(at, out);
    } while (take("|"));
    return out;
  }

  bool at_end(size_t depth) const {
    return depth == 0 && peek() == '$' && (at_ + 1 == text_.size() || peek(1) == '|');
  }

  State parse_item(State from, size_t depth) {
    const size_t begin = at_;
    if (peek() == '(') {
      const GrammarBuilder::Rule rule = builder_.add_rule("a group");
      builder_.add_empty(parse_group(builder_.begin(rule), depth), builder_.end(rule));
      return counted(from, [&](State state) { return builder_.call(state, rule); });
    }
    const CharSet set = parse_set();
    if (at_ == begin) refuse("expected a character");
    return counted(from, [&](State state) { return write(state, set); });
  }

  State counted(State from, const GrammarBuilder::Piece& piece) {
    const std::optional<Count> count = parse_count();
    if (!count) return piece(from);
    (void)take("?");  // lazy
    if (peek() == '+' || peek() == '*' || peek() == '?') refuse("a count behind a count");
    return builder_.repeat(from, piece, count->min, count->max);
  }

  std::optional<Count> parse_count() {
    if (take("?")) return Count{0, 1};
    if (take("*")) return Count{0, std::nullopt};
    if (take("+")) return Count{1, std::nullopt};
    if (!take("{")) return std::nullopt;
    Count count = {parse_number(), std::nullopt};
    if (take(",")) {
      if (peek() != '}') count.max = parse_number();
    } else {
      count.max = count.min;
    }
    if (!take("}")) refuse("expected } behind the count");
    if (count.max && *count.max < count.min) refuse("a count has a maximum below its minimum");
    return count;
  }

  State parse_group(State from, size_t depth) {
    QUERN_CHECK(take("("));
    if (peek() == '?') {
      if (!take("?:")) refuse("of groups that begin with (? only (?:...) is taken");
    }
    const State to = parse_alternatives(from, depth + 1);
    if (!take(")")) refuse("a parenthesis is not closed");
    return to;
  }

  CharSet parse_set() {
    const char c = peek();
    if (c == '[') return parse_class();
    if (c == '\\') return parse_escape(false).set;
    if (c == '^' || c == '$') refuse(fmt::format("{} inside of an alternative", c));
    if (c == '*' || c == '+' || c == '?' || c == '{') refuse("a count without what it counts");
    if (c == ']' || c == '}') refuse(fmt::format("a single {}; write \\{}", c, c));
    if (take(".")) return ~kLineEnds;
    const uint32_t point = parse_character();
    return {{point, point}};
  }

  uint32_t parse_character() {
    const size_t length = utf8_length(text_.substr(at_));
    const auto point = static_cast<uint32_t>(code_point(text_.substr(at_, length)));
    at_ += length;
    return point;
  }

  struct Escape {
    CharSet set;
    std::optional<uint32_t> character;  // none: a class
  };

  Escape parse_escape(bool in_class) {
    QUERN_CHECK(take("\\"));
    if (at_ >= text_.size()) refuse("a \\ at the end");
    const auto one = [](uint32_t point) { return Escape{{{point, point}}, point}; };
    const char c = peek();
    ++at_;
    switch (c) {
      case 'd':
        return {kDigits, {}};
      case 'D':
        return {kAscii & ~kDigits, {}};
      case 'w':
        return {kWordChars, {}};
      case 'W':
        return {kAscii & ~kWordChars, {}};
      case 's':
        return {kSpaces, {}};
      case 'S':
        return {kAscii & ~(kSpaces | CharSet{{0x1C, 0x1F}}), {}};  // which Python calls spaces too
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 't':
        return one('\t');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case '0':
        if (peek() >= '0' && peek() <= '9') refuse("an octal escape");
        return one(0);
      case 'x':
        return one(parse_hex(2));
      case 'u':
        return one(parse_hex(4));
      default:
        break;
    }
    constexpr std::string_view kSigns = "^$\\.*+?()[]{}|/-,:;=!<>@#%&~\"'` _";
    if (kSigns.find(c) == kSigns.npos || (c == '_' && !in_class))
      refuse(fmt::format("\\{} is not taken", printable(std::string_view(&c, 1))));
    return one(static_cast<uint32_t>(c));
  }

  uint32_t parse_hex(size_t n_digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < n_digits; ++i, ++at_) {
      const char c = peek();
      const char* digits = "0123456789abcdef";
      const char lower = c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
      const std::string_view all = digits;
      if (c == '\0' || all.find(lower) == all.npos)
        refuse(fmt::format("expected {} hexadecimal digits", n_digits));
      value = value * 16 + static_cast<uint32_t>(all.find(lower));
    }
    if (value >= 0xD800 && value <= 0xDFFF) refuse(fmt::format("U+{:04X} is no character", value));
    return value;
  }

  CharSet parse_class() {
    QUERN_CHECK(take("["));
    const bool negated = take("^");
    std::vector<CharSet::Range> ranges;
    CharSet classes;
    bool is_ascii = false;
    if (peek() == ']') refuse("an empty class");
    while (!take("]")) {
      if (at_ >= text_.size()) refuse("a class is not closed");
      if (peek() == '[') refuse("a [ in a class; write \\[");
      const Escape low = class_member();
      if (!low.character) {
        classes = classes | low.set;
        is_ascii = true;
        continue;
      }
      uint32_t high = *low.character;
      if (peek() == '-' && peek(1) != ']') {
        ++at_;
        const Escape end = class_member();
        if (!end.character) refuse("a range of a class ends in a class");
        high = *end.character;
      }
      if (high < *low.character) refuse("a range of a class ends before it begins");
      ranges.push_back({*low.character, high});
    }
    CharSet set = CharSet::of(std::move(ranges)) | classes;
    if (!negated) return set;
    // What Python calls a digit, a space or a word beyond ASCII is in neither.
    return is_ascii ? kAscii & ~(set | CharSet{{0x1C, 0x1F}}) : ~set;
  }

  Escape class_member() {
    if (at_ >= text_.size()) refuse("a class is not closed");
    if (peek() == '\\') return parse_escape(true);
    const uint32_t point = parse_character();
    return {{}, point};
  }

  GrammarBuilder& builder_;
  const std::string where_;
  const RegexOptions& options_;
};

}  // namespace

GrammarBuilder::State add_regex(GrammarBuilder& builder, GrammarBuilder::State from, std::string_view pattern,
                                const std::string& where, const RegexOptions& options) {
  return RegexParser(builder, pattern, where, options).parse(from);
}

Grammar compile_regex(std::string_view pattern, const std::string& where) {
  GrammarBuilder builder(where);
  const GrammarBuilder::Rule root = builder.add_rule("root");
  builder.add_empty(add_regex(builder, builder.begin(root), pattern, where), builder.end(root));
  return builder.finish(root);
}

}  // namespace quern
