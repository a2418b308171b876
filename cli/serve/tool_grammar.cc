#include "cli/serve/tool_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <utility>

#include "quant/error.h"
#include "runtime/engine/grammar_json.h"
#include "runtime/engine/grammar_schema.h"
#include "runtime/engine/schema_document.h"

namespace quern {
namespace {

using State = GrammarBuilder::State;
using Rule = GrammarBuilder::Rule;
using Body = ToolSyntax::Body;

// Of the values of one of these schemas; null: it is no choice, or says more of its types itself.
const Json::Array* choice_of(const Json& schema) {
  if (schema.find("type") != nullptr || SchemaDocument::is_constant(schema)) return nullptr;
  const Json* list = schema.find("anyOf");
  if (list == nullptr) list = schema.find("oneOf");
  return list != nullptr ? list->as_array() : nullptr;
}

// Types of the values that a schema takes, through references and choices; more, where that is not easily
// told.
unsigned types_of(SchemaDocument& document, const Json& schema, const std::string& path) {
  constexpr size_t kMost = 64;
  std::vector<const Json*> schemas;  // each once, however often it is referred to
  const auto add = [&](const Json& one) {
    const Json* at = &document.target(one, path);
    if (schemas.size() <= kMost && std::find(schemas.begin(), schemas.end(), at) == schemas.end())
      schemas.push_back(at);
  };
  unsigned types = 0;
  try {
    add(schema);
    for (size_t i = 0; i < schemas.size(); ++i) {
      const Json::Array* choice = choice_of(*schemas[i]);
      if (choice == nullptr)
        types |= document.own_types(*schemas[i], path);
      else
        for (const Json& one : *choice) add(one);
    }
  } catch (const Error&) {  // it is no schema
    return kAnyType;
  }
  return types == 0 || schemas.size() > kMost ? unsigned{kAnyType} : types;
}

const Json::Object* properties_of(const Tool& tool) {
  const Json* properties = tool.parameters != nullptr ? tool.parameters->find("properties") : nullptr;
  return properties != nullptr ? properties->as_object() : nullptr;
}

std::set<std::string_view> required_of(const Tool& tool) {
  std::set<std::string_view> names;
  const Json* required = tool.parameters->find("required");
  if (required == nullptr || required->as_array() == nullptr) return names;
  for (const Json& one : *required->as_array())
    if (one.as_string() != nullptr) names.insert(*one.as_string());
  return names;
}

const Json& any_json() {
  static const Json any(true);
  return any;
}

class ToolGrammar {
 public:
  ToolGrammar(GrammarBuilder& builder, const ToolRequest& request)
      : b_(builder), request_(request), syntax_(*request.syntax) {}

  Rule build(const std::optional<Language>& text) {
    const Rule root = b_.add_rule("answer");
    const Rule call = b_.add_rule("call");
    for (const Tool& tool : request_.tools) {
      const State at = b_.add_state();
      b_.add_empty(b_.begin(call), at);
      b_.add_empty(one_call(at, tool), b_.end(call));
    }
    const std::string_view mark = syntax_.mark();
    State at = b_.begin(root);
    if (request_.choice == ToolRequest::Choice::kRequired) {
      at = b_.text(line(at), mark);
    } else if (text) {
      b_.add_empty(b_.call(at, text->add(b_)), b_.end(root));
      at = b_.text(at, mark);
    } else if (mark.empty()) {
      // Text that does not begin like a call.
      const State first = b_.chars(at, ~CharSet{{'{', '{'}, {'\t', '\r'}, {' ', ' '}});
      b_.add_empty(anything(first), b_.end(root));
      b_.add_empty(at, b_.end(root));
    } else {
      at = b_.until(at, mark, b_.end(root));
    }
    b_.add_empty(calls(at, call), b_.end(root));
    return root;
  }

 private:
  State anything(State from) {
    return b_.repeat(
        from, [this](State s) { return b_.chars(s, CharSet::all()); }, 0, std::nullopt);
  }
  State space(State from) {
    return b_.optional(from, [this](State s) { return b_.text(s, " "); });
  }
  State line(State from) {
    return b_.optional(from, [this](State s) { return b_.text(s, "\n"); });
  }
  // A space, or an indented line's begin.
  State indent(State from) {
    constexpr size_t kMostSpaces = 8;
    return b_.repeat(
        line(from), [this](State s) { return b_.text(s, " "); }, 0, kMostSpaces);
  }
  // A text of the syntax.
  State written(State from, std::string_view text) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find_first_of("\n#", at), text.size());
      if (end > at) from = b_.text(from, text.substr(at, end - at));
      if (end < text.size()) from = text[end] == '\n' ? line(from) : digits(from);
      at = end + 1;
    }
    return from;
  }
  State digits(State from) {
    constexpr size_t kMostDigits = 6;
    return b_.repeat(
        from,
        [this](State s) {
          return b_.chars(s, {{'0', '9'}});
        },
        1, kMostDigits);
  }
  State id(State from) {
    const CharSet letters = {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}};
    const bool is_free = syntax_.id_bytes == 0;
    const CharSet chars = is_free ? letters | CharSet{{'_', '_'}, {'-', '-'}} : letters;
    constexpr size_t kMostBytes = 40;
    return b_.repeat(
        from, [&](State s) { return b_.chars(s, chars); }, is_free ? 1 : syntax_.id_bytes,
        is_free ? kMostBytes : syntax_.id_bytes);
  }

  // Behind the mark.
  State calls(State from, Rule call) {
    const bool has_section = !syntax_.open.empty();
    const std::string_view first = has_section ? syntax_.open : syntax_.begin;
    State at = written(from, first.substr(syntax_.mark().size()));
    if (syntax_.is_list) at = indent(b_.text(indent(at), "["));
    if (has_section) at = written(at, syntax_.begin);
    at = b_.call(at, call);
    if (request_.several && !syntax_.is_single)
      at = b_.repeat(
          at,
          [&](State s) {
            s = syntax_.is_list ? indent(b_.text(s, ",")) : line(line(s));
            return b_.call(written(s, syntax_.begin), call);
          },
          0, std::nullopt);
    if (syntax_.is_list) at = b_.text(indent(at), "]");
    return written(at, syntax_.close);
  }

  // Behind `begin`.
  State one_call(State at, const Tool& tool) {
    switch (syntax_.body) {
      case Body::kObject:
        at = object(at, tool);
        break;
      case Body::kKeyed:
        at = b_.text(arguments(space(b_.text(at, fmt::format("{{\"{}\":", tool.name))), tool), "}");
        break;
      case Body::kNamed:
        at = arguments(space(named(at, tool)), tool);
        break;
      case Body::kParameters:
        at = parameters(named(at, tool), tool);
        break;
    }
    return written(at, syntax_.end);
  }

  State object(State at, const Tool& tool) {
    const auto key = [this](State s, std::string_view name) {
      return space(b_.text(s, fmt::format("\"{}\":", name)));
    };
    const auto id_member = [&](State s) { return b_.text(id(b_.text(key(s, syntax_.id_key), "\"")), "\""); };
    at = b_.text(at, "{");
    if (syntax_.id_first) at = space(b_.text(id_member(at), ","));
    at = space(b_.text(key(at, syntax_.name_key), fmt::format("\"{}\",", tool.name)));
    at = arguments(key(at, syntax_.arguments_key), tool);
    if (!syntax_.id_key.empty() && !syntax_.id_first)
      at = b_.optional(at, [&](State s) { return id_member(space(b_.text(s, ","))); });
    return b_.text(at, "}");
  }

  State named(State at, const Tool& tool) {
    if (!syntax_.id_end.empty()) at = written(id(at), syntax_.id_end);
    at = b_.text(written(at, syntax_.name_begin), tool.name);
    if (!syntax_.id_begin.empty())
      at = b_.optional(at, [this](State s) { return id(b_.text(s, syntax_.id_begin)); });
    return written(at, syntax_.name_end);
  }

  // Whether a schema can be held to, by the rule that `add` adds; an error of a strict tool.
  bool can_hold(const Tool& tool, const std::function<Rule(GrammarBuilder& builder)>& add) const {
    try {
      GrammarBuilder builder(tool.param);
      builder.finish(add(builder));
      return true;
    } catch (const Error& error) {
      if (tool.strict) refuse(tool.param, error.what());
      return false;
    }
  }

  State arguments(State from, const Tool& tool) {
    static const Json any_object(Json::Object{{"type", Json(std::string("object"))}});
    const Json* schema = tool.parameters != nullptr ? tool.parameters : &any_object;
    const auto add = [&](GrammarBuilder& builder) {
      return add_arguments(builder, *schema, *syntax_.notation, tool.param);
    };
    if (!can_hold(tool, add)) schema = &any_object;
    return b_.call(from, add(b_));
  }

  // --- arguments as texts

  State parameters(State from, const Tool& tool) {
    const Json::Object* properties = properties_of(tool);
    if (tool.strict && tool.parameters != nullptr) require_plain(tool);
    if (properties == nullptr || properties->empty()) return any_parameters(from);
    SchemaDocument document(*tool.parameters, tool.param);
    const std::set<std::string_view> required = required_of(tool);
    for (const JsonMember& property : *properties) {
      const auto piece = [&](State at) { return parameter(at, tool, document, property); };
      from = required.contains(property.key) ? piece(from) : b_.optional(from, piece);
    }
    return from;
  }

  // What is said of all arguments together is not held to here, but for their names.
  void require_plain(const Tool& tool) const {
    (void)can_hold(tool, [&](GrammarBuilder& builder) {
      return add_json_schema(builder, *tool.parameters, tool.param);
    });
    for (const char* keyword : {"$ref", "anyOf", "oneOf", "allOf", "enum", "const"})
      if (tool.parameters->find(keyword) != nullptr)
        refuse(tool.param,
               fmt::format("{}: {}: not held to beside the texts that the model writes arguments as",
                           tool.param, keyword));
  }

  State parameter(State from, const Tool& tool, SchemaDocument& document, const JsonMember& property) {
    const Json& root = *tool.parameters;
    const std::string path = "#/properties/" + property.key;
    const unsigned types = types_of(document, property.value, path);
    const bool is_typed = !syntax_.json_key_end.empty();
    const State key = b_.text(written(from, syntax_.key_begin), property.key);
    const auto as_text = [&](State at) {
      return string(written(at, syntax_.key_end), tool, document, property);
    };
    const auto as_json = [&](State at) {
      at = written(at, is_typed ? syntax_.json_key_end : syntax_.key_end);
      const auto add = [&](GrammarBuilder& builder) {
        return add_json_schema(builder, root, property.value, path, tool.param);
      };
      return can_hold(tool, add) ? json(at, tool, root, property.value, path)
                                 : json(at, tool, any_json(), any_json(), "#");
    };
    if ((types & kStringType) == 0) return as_json(key);
    if (!is_typed || types == kStringType) return as_text(key);
    const GrammarBuilder::Piece pieces[] = {as_text, as_json};
    return b_.any_of(key, pieces);
  }

  State any_parameters(State from) {
    const CharSet key = {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}, {'_', '_'}, {'-', '-'}, {'.', '.'}};
    constexpr size_t kMostBytes = 64;
    const auto one = [&](State at) {
      at = written(at, syntax_.key_begin);
      at = b_.repeat(
          at, [&](State s) { return b_.chars(s, key); }, 1, kMostBytes);
      const GrammarBuilder::Piece text = [&](State s) { return any_string(written(s, syntax_.key_end)); };
      if (syntax_.json_key_end.empty()) return text(at);
      const GrammarBuilder::Piece pieces[] = {text, [&](State s) {
                                                return json(written(s, syntax_.json_key_end),
                                                            request_.tools.front(), any_json(), any_json(),
                                                            "#");
                                              }};
      return b_.any_of(at, pieces);
    };
    return b_.repeat(from, one, 0, std::nullopt);
  }

  // The value of a parameter that may be a string, and is one unless it reads as another kind that it may be.
  State string(State from, const Tool& tool, SchemaDocument& document, const JsonMember& property) {
    const Json* schema = nullptr;
    std::span<const Json> constants;
    try {
      schema = &document.target(property.value, "#/properties/" + property.key);
      if (SchemaDocument::is_constant(*schema))
        constants = document.constants(*schema, "#/properties/" + property.key);
    } catch (const Error&) {  // it is no schema
    }
    std::vector<std::string> texts;
    for (const Json& one : constants)
      texts.push_back(one.as_string() != nullptr ? as_written(*one.as_string()) : compact_json(one));
    if (!texts.empty()) {
      const State at = add_choice(b_, syntax_.has_lines ? line(from) : from, std::move(texts));
      return written(syntax_.has_lines ? line(at) : at, syntax_.value_end);
    }
    if (tool.strict && schema != nullptr && schema->as_object() != nullptr)
      for (const JsonMember& one : *schema->as_object())
        for (const char* keyword : {"pattern", "format", "minLength", "maxLength", "anyOf", "oneOf", "allOf"})
          if (one.key == keyword)
            refuse(
                tool.param,
                fmt::format("{}: #/properties/{}: {}: strings that the model writes without quotes are not "
                            "held to it; leave it out, or \"strict\"",
                            tool.param, printable(property.key), keyword));
    return any_string(from);
  }

  std::string as_written(const std::string& text) const {
    const bool needs_cdata = syntax_.has_cdata && text.find_first_of("<&\n") != text.npos;
    return needs_cdata ? fmt::format("<![CDATA[{}]]>", text) : text;
  }

  State any_string(State from) {
    const std::string_view mark = syntax_.value_end.substr(0, syntax_.value_end.find('\n'));
    const std::string_view rest = syntax_.value_end.substr(mark.size());
    if (!syntax_.has_cdata) return written(b_.until(from, mark), rest);
    const GrammarBuilder::Piece pieces[] = {
        [&](State s) { return b_.text(s, mark); },
        [&](State s) {
          return b_.until(b_.chars(s, ~CharSet{{'<', '<'}}), mark);
        },
        [&](State s) { return b_.text(b_.until(b_.text(s, "<![CDATA["), "]]>"), mark); }};
    return written(b_.any_of(from, pieces), rest);
  }

  State json(State from, const Tool& tool, const Json& root, const Json& part, const std::string& path) {
    const State begin = syntax_.has_lines ? line(from) : from;
    const State end = b_.call(begin, add_json_schema(b_, root, part, path, tool.param));
    return written(syntax_.has_lines ? line(end) : end, syntax_.value_end);
  }

  GrammarBuilder& b_;
  const ToolRequest& request_;
  const ToolSyntax& syntax_;
};

}  // namespace

Language tool_language(const ToolRequest& request, std::optional<Language> text) {
  return {"tools", [request, text = std::move(text)](GrammarBuilder& builder) {
            return ToolGrammar(builder, request).build(text);
          }};
}

std::vector<ToolSignature> tool_signatures(const ToolRequest& request) {
  std::vector<ToolSignature> signatures;
  if (request.syntax->body != Body::kParameters) return signatures;
  for (const Tool& tool : request.tools) {
    const Json::Object* properties = properties_of(tool);
    if (properties == nullptr) continue;
    ToolSignature& signature = signatures.emplace_back(ToolSignature{tool.name, {}});
    SchemaDocument document(*tool.parameters, tool.param);
    for (const JsonMember& property : *properties)
      signature.parameters.emplace_back(property.key, types_of(document, property.value, "#"));
  }
  return signatures;
}

}  // namespace quern
