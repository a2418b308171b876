#include "runtime/engine/value_notation.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "quant/json/json_writer.h"
#include "quant/utf8.h"

namespace quern {
namespace {

constexpr std::pair<std::string_view, std::string_view> kPythonWords[] = {
    {"True", "true"}, {"False", "false"}, {"None", "null"}};

void write_compact(JsonWriter& json, const Json& value) {
  if (const Json::Object* object = value.as_object()) {
    json.begin_object();
    for (const JsonMember& one : *object) write_compact(json.key(one.key), one.value);
    json.end_object();
  } else if (const Json::Array* array = value.as_array()) {
    json.begin_array();
    for (const Json& one : *array) write_compact(json, one);
    json.end_array();
  } else if (const std::string* text = value.as_string()) {
    json.value(*text);
  } else if (const bool* truth = value.as_bool()) {
    json.value(*truth);
  } else if (const uint64_t* n = value.as_uint()) {
    json.value(*n);
  } else if (const auto i = value.as_int()) {
    json.value(*i);
  } else if (const auto x = value.as_number()) {
    json.value(*x);
  } else {
    json.null();
  }
}

bool is_bare_char(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '-' ||
         c == '.' || static_cast<unsigned char>(c) >= 0x80;
}

bool opens(char c, const ValueNotation& notation) {
  return c == '{' || c == '[' || (c == '(' && notation.is_call);
}
bool closes(char c, const ValueNotation& notation) {
  return c == '}' || c == ']' || (c == ')' && notation.is_call);
}

// One way of those that a notation allows: one quote, and one spelling of words.
class ValueWriter {
 public:
  ValueWriter(const ValueNotation& notation, std::string_view quote, bool python_words)
      : notation_(notation), quote_(quote), python_words_(python_words) {}

  // False: there is no way.
  bool write(const Json& value) {
    if (const std::string* text = value.as_string()) return string(*text);
    if (const Json::Array* array = value.as_array()) {
      return list('[', array->size(), ']', [&](size_t i) { return write((*array)[i]); });
    }
    if (const Json::Object* object = value.as_object()) {
      std::vector<const JsonMember*> members;
      for (const JsonMember& one : *object) members.push_back(&one);
      return list('{', members.size(), '}', [&](size_t i) {
        const bool named = notation_.has_bare_keys ? bare(members[i]->key) : string(members[i]->key);
        out_ += ':';
        return named && write(members[i]->value);
      });
    }
    std::string word = compact_json(value);
    for (const auto& [python, json] : kPythonWords)
      if (python_words_ && word == json) word = python;
    out_ += word;
    return true;
  }
  std::string take() { return std::move(out_); }

 private:
  bool list(char open, size_t n, char close, const auto& item) {
    out_ += open;
    for (size_t i = 0; i < n; ++i) {
      if (i > 0) out_ += ',';
      if (!item(i)) return false;
    }
    out_ += close;
    return true;
  }
  bool bare(const std::string& name) {
    out_ += name;
    return is_bare_name(name);
  }
  bool string(const std::string& text) {
    out_ += quote_;
    if (!notation_.has_escapes) {
      if (text.find(quote_) != text.npos) return false;
      out_ += text;
    } else {
      const std::string json = json_quote(text);
      for (size_t i = 1; i + 1 < json.size(); ++i) {
        const bool is_escape = json[i] == '\\';
        if (is_escape && json[i + 1] == '"' && quote_ != "\"") {
          ++i;
        } else if (is_escape) {
          out_ += json[i++];
        } else if (quote_[0] == json[i]) {
          out_ += '\\';
        }
        out_ += json[i];
      }
    }
    out_ += quote_;
    return true;
  }

  const ValueNotation& notation_;
  const std::string_view quote_;
  const bool python_words_;
  std::string out_;
};

// Goes through a value and writes it as JSON; what is no value ends up as no JSON.
class ValueReader {
 public:
  ValueReader(std::string_view text, const ValueNotation& notation) : text_(text), notation_(notation) {}

  std::string read() {
    while (at_ < text_.size()) {
      if (read_string() || read_word()) continue;
      out_ += structural(text_[at_++]);
    }
    return std::move(out_);
  }

 private:
  char structural(char c) {
    if (opens(c, notation_)) ++depth_;
    const bool outermost = depth_ == 1 && notation_.is_call;
    if (closes(c, notation_)) --depth_;
    if (!outermost) return c;
    switch (c) {
      case '(':
        return '{';
      case ')':
        return '}';
      case '=':
        return ':';
      case ':':
      case '{':
      case '}':
        return '?';  // not in a call
      default:
        return c;
    }
  }

  bool read_word() {
    const size_t begin = at_;
    while (at_ < text_.size() && is_bare_char(text_[at_])) ++at_;
    if (at_ == begin) return false;
    std::string_view word = text_.substr(begin, at_ - begin);
    size_t next = at_;
    while (next < text_.size() && text_[next] == ' ') ++next;
    const char sign = notation_.is_call && depth_ == 1 ? '=' : ':';
    const bool may_be_key = notation_.has_bare_keys || sign == '=';
    if (may_be_key && next < text_.size() && text_[next] == sign) {
      out_ += json_quote(word);
      return true;
    }
    for (const auto& [python, json] : kPythonWords)
      if (notation_.has_python && word == python) word = json;
    out_ += word;
    return true;
  }

  bool read_string() {
    for (const std::string_view quote : notation_.quote_texts()) {
      if (!text_.substr(at_).starts_with(quote)) continue;
      at_ += quote.size();
      if (!notation_.has_escapes) {
        const size_t end = std::min(text_.find(quote, at_), text_.size());
        out_ += json_quote(text_.substr(at_, end - at_));
        at_ = std::min(end + quote.size(), text_.size());
        return true;
      }
      out_ += '"';
      while (at_ < text_.size() && text_[at_] != quote[0]) read_char();
      out_ += at_ < text_.size() ? "\"" : "";
      ++at_;
      return true;
    }
    return false;
  }

  void read_char() {
    const char c = text_[at_++];
    if (c == '\\' && at_ < text_.size()) {
      read_escape(text_[at_++]);
    } else if (c == '"') {
      out_ += "\\\"";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out_ += fmt::format("\\u{:04x}", static_cast<int>(c));
    } else {
      out_ += c;
    }
  }

  void read_escape(char c) {
    if (std::string_view("\"\\/bfnrtu").find(c) != std::string_view::npos) {
      out_ += '\\';
      out_ += c;
    } else if (c == '\'') {
      out_ += c;
    } else if (c == 'a' || c == 'v') {
      out_ += c == 'a' ? "\\u0007" : "\\u000b";
    } else if (c == 'x') {
      out_ += fmt::format("\\u00{}", digits(2));
    } else if (c == 'U') {
      const std::string hex = digits(8);
      const bool is_hex = hex.find_first_not_of("0123456789abcdefABCDEF") == hex.npos;
      const uint64_t point = hex.size() == 8 && is_hex ? std::stoull(hex, nullptr, 16) : UINT64_MAX;
      std::string character;
      if (point >= 0x20 && point <= 0x10FFFF) append_utf8(static_cast<char32_t>(point), &character);
      out_ += utf8_length(character) > 0 ? character : "\\U";  // no JSON
    } else if (c != '\n') {  // a line that goes on; others Python leaves as they stand
      out_ += "\\\\";
      out_ += c;
    }
  }
  std::string digits(size_t n) {
    const std::string_view all = text_.substr(at_, n);
    at_ += all.size();
    return std::string(all);
  }

  const std::string_view text_;
  const ValueNotation& notation_;
  size_t at_ = 0, depth_ = 0;
  std::string out_;
};

}  // namespace

std::string compact_json(const Json& value) {
  JsonWriter json;
  write_compact(json, value);
  return json.text();
}

bool is_bare_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), is_bare_char);
}

std::vector<std::string> written_values(const Json& value, const ValueNotation& notation) {
  std::vector<std::string> texts;
  for (const std::string_view quote : notation.quote_texts()) {
    for (const bool python_words : {false, true}) {
      ValueWriter writer(notation, quote, python_words);
      if ((!python_words || notation.has_python) && writer.write(value)) texts.push_back(writer.take());
    }
  }
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  return texts;
}

size_t find_value_end(std::string_view text, const ValueNotation& notation, ValueSearch* search) {
  size_t& i = search->at;
  const size_t longest = notation.quotes[0].size();
  while (i < text.size()) {
    const char c = text[i];
    if (!search->quote.empty()) {
      if (c == '\\' && notation.has_escapes) {
        if (i + 1 == text.size()) break;
        i += 2;
      } else if (text.substr(i).starts_with(search->quote)) {
        i += search->quote.size();
        search->quote = {};
      } else if (text.size() - i < longest && search->quote.starts_with(text.substr(i))) {
        break;  // it may become the quote
      } else {
        ++i;
      }
      continue;
    }
    const auto quotes = notation.quote_texts();
    const auto opened = std::find_if(quotes.begin(), quotes.end(), [&](std::string_view quote) {
      return text.substr(i).starts_with(quote);
    });
    if (opened != quotes.end()) {
      search->quote = *opened;
      i += opened->size();
    } else if (text.size() - i < longest && notation.quotes[0].starts_with(text.substr(i))) {
      break;
    } else {
      ++i;
      if (opens(c, notation)) ++search->depth;
      if (closes(c, notation) && --search->depth == 0) return i;
    }
  }
  return text.npos;
}

std::string json_of_value(std::string_view text, const ValueNotation& notation) {
  return ValueReader(text, notation).read();
}

}  // namespace quern
