#include "runtime/template/lexer.h"

#include <algorithm>
#include <optional>

#include "runtime/template/text.h"
#include "runtime/template/unicode.h"

namespace quern::jinja {
namespace {

constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                           "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                           ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

class Lexer {
 public:
  explicit Lexer(const Source& source) : source_(source), text_(source.text()) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) read_data();
    add(Token::Kind::kEnd, text_.size(), "");
    return std::move(tokens_);
  }

 private:
  struct RawTag {
    size_t begin, end;
    char sign;
  };

  void add(Token::Kind kind, size_t offset, std::string text) {
    tokens_.push_back({kind, offset, std::move(text)});
  }
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool follows(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  char32_t char_at(size_t at) const { return code_point(text_.substr(at, char_bytes(text_, at))); }
  // The end of the white space that begins at `at`.
  size_t skip_space(size_t at) const {
    while (at < text_.size() && is_space(char_at(at))) at += char_bytes(text_, at);
    return at;
  }
  std::string_view without_space_behind(std::string_view text) const;
  bool is_blank(std::string_view text) const;
  // Goes behind a tag's end: `sign` is what stands before it, `trims` whether a newline goes with it.
  void leave_tag(char sign, size_t length, bool trims);

  void read_data();
  void add_data(size_t begin, size_t end, char sign, bool is_variable);
  void read_comment(size_t begin);
  bool read_raw(size_t tag, char sign);
  std::optional<size_t> end_of_raw_begin(size_t at) const;
  RawTag find_endraw(size_t from) const;
  void read_expression(bool is_variable);
  bool read_end(bool is_variable);
  bool read_number();
  bool read_name();
  bool read_string();
  bool read_operator();
  std::string unescape(std::string_view text, size_t offset) const;
  char32_t read_code(std::string_view text, size_t* i, size_t n_digits, size_t offset) const;

  const Source& source_;
  std::string_view text_;
  size_t at_ = 0;
  bool line_starting_ = true;  // what was matched last ends a line, or nothing was
  std::string open_;           // closing brackets that are awaited
  std::vector<Token> tokens_;
};

std::string_view Lexer::without_space_behind(std::string_view text) const {
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (text[last] & 0xC0) == 0x80) --last;
    if (!is_space(code_point(text.substr(last, char_bytes(text, last))))) break;
    text = text.substr(0, last);
  }
  return text;
}

bool Lexer::is_blank(std::string_view text) const { return without_space_behind(text).empty(); }

void Lexer::leave_tag(char sign, size_t length, bool trims) {
  at_ += length;
  const size_t begin = at_;
  if (sign == '-')
    at_ = skip_space(at_);
  else if (sign != '+' && trims && peek() == '\n')
    ++at_;
  line_starting_ = at_ > begin && text_[at_ - 1] == '\n';
}

// Text up to the next tag, and the tag.
void Lexer::read_data() {
  const size_t begin = at_;
  size_t tag = begin;
  for (;; ++tag) {
    tag = text_.find('{', tag);
    if (tag == text_.npos || tag + 1 == text_.size()) {
      add_data(begin, text_.size(), '+', false);
      at_ = text_.size();
      return;
    }
    const char second = text_[tag + 1];
    if (second == '{' || second == '%' || second == '#') break;
  }
  const char second = text_[tag + 1];
  at_ = tag + 2;
  const char sign = peek() == '-' || peek() == '+' ? peek() : '\0';
  if (sign != '\0') ++at_;
  add_data(begin, tag, sign, second == '{');
  line_starting_ = false;
  if (second == '#') {
    read_comment(tag);
  } else if (second == '{') {
    add(Token::Kind::kVariableBegin, tag, "");
    read_expression(true);
  } else if (!read_raw(tag, sign)) {
    add(Token::Kind::kBlockBegin, tag, "");
    read_expression(false);
  }
}

void Lexer::add_data(size_t begin, size_t end, char sign, bool is_variable) {
  std::string_view data = text_.substr(begin, end - begin);
  if (sign == '-') {
    data = without_space_behind(data);
  } else if (sign != '+' && !is_variable) {
    const size_t line = data.rfind('\n') + 1;  // npos + 1 is 0
    if ((line > 0 || line_starting_) && is_blank(data.substr(line))) data = data.substr(0, line);
  }
  if (!data.empty()) add(Token::Kind::kData, begin, std::string(data));
}

void Lexer::read_comment(size_t begin) {
  const size_t end = text_.find("#}", at_);
  if (end == text_.npos) source_.refuse(begin, "Missing end of comment tag");
  const char sign = end > at_ ? text_[end - 1] : '\0';
  at_ = end;
  leave_tag(sign, 2, true);
}

// The end of what follows "{%" when that is the tag `raw`.
std::optional<size_t> Lexer::end_of_raw_begin(size_t at) const {
  at = skip_space(at);
  if (!text_.substr(at).starts_with("raw")) return std::nullopt;
  at = skip_space(at + 3);
  if (text_.substr(at).starts_with("-%}")) return skip_space(at + 3);
  if (text_.substr(at).starts_with("%}")) return at + 2;
  return std::nullopt;
}

bool Lexer::read_raw(size_t tag, char) {
  const std::optional<size_t> begin = end_of_raw_begin(at_);
  if (!begin) return false;
  line_starting_ = text_[*begin - 1] == '\n';
  for (size_t at = *begin; (at = text_.find("{%", at)) != text_.npos; at += 2) {
    at_ = at + 2;
    const char sign = peek() == '-' || peek() == '+' ? peek() : '\0';
    if (sign != '\0') ++at_;
    at_ = skip_space(at_);
    if (!follows("endraw")) continue;
    at_ = skip_space(at_ + 6);
    const char end_sign = peek() == '-' || peek() == '+' ? peek() : '\0';
    if (!text_.substr(at_ + (end_sign != '\0')).starts_with("%}")) continue;
    add_data(*begin, at, sign, false);
    leave_tag(end_sign, end_sign != '\0' ? 3 : 2, true);
    return true;
  }
  source_.refuse(tag, "Missing end of raw directive");
}

void Lexer::read_expression(bool is_variable) {
  open_.clear();
  for (;;) {
    at_ = skip_space(at_);
    if (at_ >= text_.size()) return;  // the parser says what it misses
    if (open_.empty() && read_end(is_variable)) return;
    if (read_number() || read_name() || read_string() || read_operator()) continue;
    source_.refuse(at_, fmt::format("unexpected char '{}'", text_.substr(at_, char_bytes(text_, at_))));
  }
}

bool Lexer::read_end(bool is_variable) {
  const std::string_view end = is_variable ? "}}" : "%}";
  const bool has_sign = peek() == '-' || (peek() == '+' && !is_variable);
  if (!text_.substr(at_ + has_sign).starts_with(end)) return false;
  add(is_variable ? Token::Kind::kVariableEnd : Token::Kind::kBlockEnd, at_, "");
  leave_tag(has_sign ? peek() : '\0', 2 + size_t{has_sign}, !is_variable);
  return true;
}

bool Lexer::read_number() {
  if (!is_digit(peek())) return false;
  const size_t begin = at_;
  // Digits of a kind with single underscores between them; the end.
  const auto digits = [this](size_t at, auto is_wanted) {
    while (at < text_.size() &&
           (is_wanted(text_[at]) || (text_[at] == '_' && at + 1 < text_.size() && is_wanted(text_[at + 1]))))
      ++at;
    return at;
  };
  const auto finish = [&](Token::Kind kind, size_t end) {
    std::string number(text_.substr(begin, end - begin));
    number.erase(std::remove(number.begin(), number.end(), '_'), number.end());
    at_ = end;
    add(kind, begin, std::move(number));
    return true;
  };
  const bool after_dot = begin > 0 && text_[begin - 1] == '.';
  const size_t whole = digits(begin, is_digit);
  size_t end = whole;
  const auto char_of = [this](size_t at) { return at < text_.size() ? text_[at] : '\0'; };
  if (!after_dot) {
    if (char_of(end) == '.' && is_digit(char_of(end + 1))) end = digits(end + 1, is_digit);
    if ((char_of(end) | 0x20) == 'e') {
      const size_t exponent = end + 1 + (char_of(end + 1) == '+' || char_of(end + 1) == '-');
      if (is_digit(char_of(exponent))) end = digits(exponent, is_digit);
    }
    if (end > whole) return finish(Token::Kind::kFloat, end);
  }
  if (text_[begin] != '0') return finish(Token::Kind::kInteger, whole);
  const char base = static_cast<char>(char_of(begin + 1) | 0x20);
  const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
  const auto is_binary = [](char c) { return c == '0' || c == '1'; };
  const size_t prefixed = base == 'x'   ? digits(begin + 2, is_hex)
                          : base == 'o' ? digits(begin + 2, is_octal)
                          : base == 'b' ? digits(begin + 2, is_binary)
                                        : 0;
  if (prefixed > begin + 2) return finish(Token::Kind::kInteger, prefixed);
  return finish(Token::Kind::kInteger, digits(begin, [](char c) { return c == '0'; }));
}

bool Lexer::read_name() {
  const auto is_name_char = [](char32_t c) { return c == '_' || is_alphabetic(c) || is_decimal(c); };
  const size_t begin = at_;
  while (at_ < text_.size() && is_name_char(char_at(at_))) at_ += char_bytes(text_, at_);
  if (at_ == begin) return false;
  add(Token::Kind::kName, begin, std::string(text_.substr(begin, at_ - begin)));
  return true;
}

bool Lexer::read_string() {
  const char quote = peek();
  if (quote != '\'' && quote != '"') return false;
  size_t end = at_ + 1;
  while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
  if (end >= text_.size()) source_.refuse(at_, "the string is not closed");
  add(Token::Kind::kString, at_, unescape(text_.substr(at_ + 1, end - at_ - 1), at_));
  at_ = end + 1;
  return true;
}

// A code of exactly n hexadecimal digits behind *i, which goes to the last of them.
char32_t Lexer::read_code(std::string_view text, size_t* i, size_t n_digits, size_t offset) const {
  char32_t code = 0;
  for (size_t n = 0; n < n_digits; ++n) {
    if (++*i >= text.size() || !is_hex(text[*i])) source_.refuse(offset, "a string has a truncated escape");
    const char c = text[*i];
    code = code << 4 | static_cast<char32_t>(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return code;
}

// Python's escapes; unknown ones stay as they are.
std::string Lexer::unescape(std::string_view text, size_t offset) const {
  static constexpr std::string_view kNames = "\\'\"abfnrtv", kBytes = "\\'\"\a\b\f\n\r\t\v";
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    const char c = text[++i];
    if (const size_t known = kNames.find(c); known != kNames.npos) {
      out += kBytes[known];
    } else if (c == '\n') {
      continue;
    } else if (c >= '0' && c <= '7') {
      char32_t code = 0;
      size_t end = i;
      while (end < text.size() && end < i + 3 && text[end] >= '0' && text[end] <= '7')
        code = code * 8 + static_cast<char32_t>(text[end++] - '0');
      append_utf8(code, &out);
      i = end - 1;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      char32_t code = read_code(text, &i, c == 'x' ? 2 : c == 'u' ? 4 : 8, offset);
      const bool is_high = code >= 0xD800 && code <= 0xDBFF;
      if (is_high && text.substr(i + 1).starts_with("\\u")) {  // a pair, as JSON writes it
        i += 2;
        const char32_t low = read_code(text, &i, 4, offset);
        if (low >= 0xDC00 && low <= 0xDFFF) code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      }
      if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        source_.refuse(offset, "a string has an escape that is no character");
      append_utf8(code, &out);
    } else if (c == 'N') {
      source_.refuse(offset, "escapes by name (\\N{...}) are not supported");
    } else {
      out += '\\';
      out += c;
    }
  }
  return out;
}

bool Lexer::read_operator() {
  const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                   [this](std::string_view op) { return follows(op); });
  if (found == std::end(kOperators)) return false;
  const char c = found->front();
  if (c == '(' || c == '[' || c == '{') open_ += c == '(' ? ')' : c == '[' ? ']' : '}';
  if (c == ')' || c == ']' || c == '}') {
    if (open_.empty()) source_.refuse(at_, fmt::format("unexpected '{}'", c));
    if (open_.back() != c)
      source_.refuse(at_, fmt::format("unexpected '{}', expected '{}'", c, open_.back()));
    open_.pop_back();
  }
  add(Token::Kind::kOperator, at_, std::string(*found));
  at_ += found->size();
  return true;
}

}  // namespace

std::vector<Token> tokenize(const Source& source) { return Lexer(source).run(); }

}  // namespace quern::jinja
