#include "cli/serve/tool_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "quant/error.h"
#include "runtime/engine/grammar_json.h"
#include "runtime/engine/grammar_schema.h"

namespace quern {
namespace {

using State = GrammarBuilder::State;
using Rule = GrammarBuilder::Rule;
using Body = ToolSyntax::Body;

// What a chain of references within the document ends at; null: nowhere.
const Json* resolved(const Json& schema, const Json& root) {
  const Json* at = &schema;
  constexpr int kMaxHops = 32;
  for (int hop = 0; at != nullptr && hop < kMaxHops; ++hop) {
    const Json* reference = at->find("$ref");
    if (reference == nullptr) return at;
    const std::string path = reference->as_string() != nullptr ? *reference->as_string() : "";
    if (!path.starts_with("#")) return nullptr;
    at = &root;
    for (size_t begin = 1; begin < path.size() && at != nullptr;) {
      const size_t end = std::min(path.find('/', begin + 1), path.size());
      at = at->find(path.substr(begin + 1, end - begin - 1));
      begin = end;
    }
  }
  return nullptr;
}

unsigned kind_named(const Json& type) {
  constexpr std::pair<std::string_view, unsigned> kNames[] = {
      {"null", kJsonNull},     {"boolean", kJsonBoolean}, {"integer", kJsonNumber}, {"number", kJsonNumber},
      {"string", kJsonString}, {"array", kJsonArray},     {"object", kJsonObject}};
  for (const auto& [name, kind] : kNames)
    if (type.as_string() != nullptr && *type.as_string() == name) return kind;
  return kJsonAny;
}

std::span<const Json> constants_of(const Json& schema) {
  if (const Json* one = schema.find("const")) return {one, 1};
  const Json* several = schema.find("enum");
  if (several == nullptr || several->as_array() == nullptr) return {};
  return *several->as_array();
}

// Kinds that a schema takes; more, where that is not easily told.
unsigned kinds_of_schema(const Json& schema, const Json& root, int depth = 0) {
  const Json* at = resolved(schema, root);
  constexpr int kMaxDepth = 8;
  if (at == nullptr || at->as_object() == nullptr || depth > kMaxDepth) return kJsonAny;
  unsigned kinds = 0;
  if (const Json* type = at->find("type")) {
    if (type->as_array() == nullptr) return kind_named(*type);
    for (const Json& one : *type->as_array()) kinds |= kind_named(one);
  } else if (const auto constants = constants_of(*at); !constants.empty()) {
    for (const Json& one : constants) kinds |= json_kind(one);
  } else {
    for (const char* keyword : {"anyOf", "oneOf"})
      if (const Json* list = at->find(keyword); list != nullptr && list->as_array() != nullptr)
        for (const Json& one : *list->as_array()) kinds |= kinds_of_schema(one, root, depth + 1);
  }
  return kinds != 0 ? kinds : unsigned{kJsonAny};
}

const Json::Object* properties_of(const Tool& tool) {
  const Json* properties = tool.parameters != nullptr ? tool.parameters->find("properties") : nullptr;
  return properties != nullptr ? properties->as_object() : nullptr;
}

bool is_required(const Tool& tool, const std::string& name) {
  const Json* required = tool.parameters->find("required");
  if (required == nullptr || required->as_array() == nullptr) return false;
  return std::any_of(required->as_array()->begin(), required->as_array()->end(),
                     [&](const Json& one) { return one.as_string() != nullptr && *one.as_string() == name; });
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

  // Whether `part`, at `path` of the schema, can be held to; an error of a strict tool.
  bool can_hold(const Tool& tool, const Json& root, const Json& part, const std::string& path) const {
    try {
      GrammarBuilder builder(tool.param);
      builder.finish(add_json_schema(builder, root, part, path, tool.param));
      return true;
    } catch (const Error& error) {
      if (tool.strict) refuse(tool.param, error.what());
      return false;
    }
  }

  State arguments(State from, const Tool& tool) {
    static const Json any_object(Json::Object{{"type", Json(std::string("object"))}});
    const Json* schema = tool.parameters != nullptr ? tool.parameters : &any_object;
    if (!can_hold(tool, *schema, *schema, "#")) schema = &any_object;
    return b_.call(from, add_json_schema(b_, *schema, tool.param));
  }

  // --- arguments as texts

  State parameters(State from, const Tool& tool) {
    const Json::Object* properties = properties_of(tool);
    if (tool.strict && tool.parameters != nullptr) require_plain(tool);
    if (properties == nullptr || properties->empty()) return any_parameters(from);
    for (const JsonMember& property : *properties) {
      const auto piece = [&](State at) { return parameter(at, tool, property); };
      from = is_required(tool, property.key) ? piece(from) : b_.optional(from, piece);
    }
    return from;
  }

  // What is said of all arguments together is not held to here, but for their names.
  void require_plain(const Tool& tool) const {
    (void)can_hold(tool, *tool.parameters, *tool.parameters, "#");
    for (const char* keyword : {"$ref", "anyOf", "oneOf", "allOf", "enum", "const"})
      if (tool.parameters->find(keyword) != nullptr)
        refuse(tool.param,
               fmt::format("{}: {}: not held to beside the texts that the model writes arguments as",
                           tool.param, keyword));
  }

  State parameter(State from, const Tool& tool, const JsonMember& property) {
    const Json& root = *tool.parameters;
    const unsigned kinds = kinds_of_schema(property.value, root);
    const bool is_typed = !syntax_.json_key_end.empty();
    const State key = b_.text(written(from, syntax_.key_begin), property.key);
    const auto as_text = [&](State at) { return string(written(at, syntax_.key_end), tool, property); };
    const auto as_json = [&](State at) {
      const std::string path = "#/properties/" + property.key;
      at = written(at, is_typed ? syntax_.json_key_end : syntax_.key_end);
      return can_hold(tool, root, property.value, path) ? json(at, tool, root, property.value, path)
                                                        : json(at, tool, any_json(), any_json(), "#");
    };
    if ((kinds & kJsonString) == 0) return as_json(key);
    if (!is_typed || kinds == kJsonString) return as_text(key);
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
  State string(State from, const Tool& tool, const JsonMember& property) {
    const Json* schema = resolved(property.value, *tool.parameters);
    const auto constants = schema != nullptr ? constants_of(*schema) : std::span<const Json>();
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
  for (const Tool& tool : request.tools) {
    ToolSignature& signature = signatures.emplace_back(ToolSignature{tool.name, {}});
    const Json::Object* properties = properties_of(tool);
    for (size_t i = 0; properties != nullptr && i < properties->size(); ++i)
      signature.parameters.emplace_back((*properties)[i].key,
                                        kinds_of_schema((*properties)[i].value, *tool.parameters));
  }
  return signatures;
}

}  // namespace quern
