// A template's text as tokens, with jinja2's rules for white space (trim_blocks and lstrip_blocks set, as
// transformers sets them).
#pragma once

#include <string>
#include <vector>

#include "runtime/template/source.h"

namespace quern::jinja {

struct Token {
  enum class Kind : uint8_t {
    kData,           // text between the tags; never empty
    kVariableBegin,  // {{
    kVariableEnd,
    kBlockBegin,  // {%
    kBlockEnd,
    kName,
    kString,   // text: what the literal stands for
    kInteger,  // text: its digits, with a 0x, 0o or 0b in front
    kFloat,
    kOperator,  // text: the operator
    kEnd
  };

  Kind kind;
  size_t offset;  // into Source::text()
  std::string text;

  bool is(Kind k, std::string_view t) const { return kind == k && text == t; }
  bool is_operator(std::string_view op) const { return is(Kind::kOperator, op); }
  bool is_name(std::string_view name) const { return is(Kind::kName, name); }
};

// The last token is kEnd. Refuses what is no token, and brackets that do not match.
std::vector<Token> tokenize(const Source& source);

}  // namespace quern::jinja
