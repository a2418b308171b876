#include "cli/serve/constraint_request.h"

#include <fmt/format.h>

#include <utility>

#include "runtime/engine/grammar_gbnf.h"
#include "runtime/engine/grammar_json.h"
#include "runtime/engine/grammar_regex.h"
#include "runtime/engine/grammar_schema.h"

namespace quern {
namespace {

constexpr size_t kMaxChoices = 4096;

Language gbnf_language(const std::string& text, const std::string& param) {
  return {param, [&text, param](GrammarBuilder& builder) { return add_gbnf(builder, text, param); }};
}

Language regex_language(const std::string& text, const std::string& param) {
  return {param, [&text, param](GrammarBuilder& builder) {
            const GrammarBuilder::Rule rule = builder.add_rule(param);
            builder.add_empty(add_regex(builder, builder.begin(rule), text, param), builder.end(rule));
            return rule;
          }};
}

Language choice_language(const Json& list, const std::string& param) {
  if (list.as_array() == nullptr || list.size() == 0 || list.size() > kMaxChoices)
    refuse(param, fmt::format("{}: expected a list of 1 to {} texts, found {}", param, kMaxChoices,
                              list.describe()));
  std::vector<std::string> texts;
  for (const Json& one : *list.as_array()) {
    if (one.as_string() == nullptr)
      refuse(param, fmt::format("{}: expected texts, found {}", param, one.describe()));
    texts.push_back(*one.as_string());
  }
  return {param, [texts, param](GrammarBuilder& builder) {
            const GrammarBuilder::Rule rule = builder.add_rule(param);
            builder.add_empty(add_choice(builder, builder.begin(rule), texts), builder.end(rule));
            return rule;
          }};
}

// {"type": "object"}
const Json& object_schema() {
  static const Json schema(Json::Object{{"type", Json(std::string("object"))}});
  return schema;
}

// false, "", [] and {}
bool is_empty(const Json& value) {
  if (const bool* truth = value.as_bool()) return !*truth;
  if (const std::string* text = value.as_string()) return text->empty();
  return (value.as_array() != nullptr || value.as_object() != nullptr) && value.size() == 0;
}

const std::string& text_of(const Json& value, const std::string& param) {
  if (value.as_string() == nullptr)
    refuse(param, fmt::format("{}: expected a string, found {}", param, value.describe()));
  return *value.as_string();
}

// vLLM's: one of its members says what.
std::optional<Language> parse_structured_outputs(const Json& value, const std::string& param) {
  RequestFields fields(value, param);
  std::optional<Language> language;
  const auto set = [&](Language one) {
    if (language) refuse(param, fmt::format("{}: only one constraint at a time", param));
    language = std::move(one);
  };
  if (const Json* schema = fields.find("json")) set(schema_language(*schema, fields.param("json")));
  if (const Json* regex = fields.find("regex"))
    set(regex_language(text_of(*regex, fields.param("regex")), fields.param("regex")));
  if (const Json* choice = fields.find("choice")) set(choice_language(*choice, fields.param("choice")));
  if (const Json* grammar = fields.find("grammar"))
    set(gbnf_language(text_of(*grammar, fields.param("grammar")), fields.param("grammar")));
  if (fields.boolean("json_object", false)) set(schema_language(object_schema(), param));
  for (const std::string& name : fields.unknown())
    refuse(fields.param(name), fmt::format("{}: not supported, and to ignore it would break a promise",
                                           printable(fields.param(name))));
  return language;
}

}  // namespace

Language schema_language(const Json& value, const std::string& param) {
  if (value.as_string() == nullptr)
    return {param,
            [&value, param](GrammarBuilder& builder) { return add_json_schema(builder, value, param); }};
  auto schema = std::make_shared<Json>();
  try {
    *schema = parse_json(*value.as_string(), param, kSchemaLimits);
  } catch (const Error& error) {
    refuse(param, error.what());
  }
  return {param,
          [schema, param](GrammarBuilder& builder) { return add_json_schema(builder, *schema, param); }};
}

std::optional<Language> parse_response_format(const Json& format, const std::string& param) {
  RequestFields fields(format, param);
  const std::string type = fields.required_text("type");
  if (type == "text") return std::nullopt;
  if (type == "json_object") {
    const Json* schema = fields.find("schema");  // as llama-server has it
    return schema != nullptr ? schema_language(*schema, fields.param("schema"))
                             : schema_language(object_schema(), param);
  }
  if (type != "json_schema")
    refuse_word(fields.param("type"), "\"text\", \"json_object\" or \"json_schema\"", type);
  const Json* named = fields.find("json_schema");
  if (named == nullptr) {  // of responses, Anthropic's, and older clients'
    const bool has_schema = param != "response_format" || fields.find("schema") != nullptr;
    return schema_language(fields.required(has_schema ? "schema" : "json_schema"), fields.param("schema"));
  }
  RequestFields inner(*named, fields.param("json_schema"));
  return schema_language(inner.required("schema"), inner.param("schema"));
}

std::optional<Language> parse_language(RequestFields& fields) {
  std::optional<Language> language;
  const auto set = [&](std::optional<Language> one) {
    if (!one) return;
    if (language)
      refuse(one->param,
             fmt::format("{} and {}: only one constraint at a time", language->param, one->param));
    language = std::move(one);
  };
  // Where a text is empty, nothing is asked for.
  const auto text = [&](std::string_view name) -> const std::string* {
    const Json* value = fields.find(name);
    if (value == nullptr) return nullptr;
    const std::string& found = text_of(*value, fields.param(name));
    return found.empty() ? nullptr : &found;
  };
  if (const Json* format = fields.find("response_format"))
    set(parse_response_format(*format, fields.param("response_format")));
  for (const char* name : {"guided_json", "json_schema"})
    if (const Json* schema = fields.find(name);
        schema != nullptr && !(schema->as_string() && schema->as_string()->empty()))
      set(schema_language(*schema, fields.param(name)));
  for (const char* name : {"guided_regex", "regex"})
    if (const std::string* regex = text(name)) set(regex_language(*regex, fields.param(name)));
  for (const char* name : {"guided_grammar", "grammar", "ebnf"})
    if (const std::string* grammar = text(name)) set(gbnf_language(*grammar, fields.param(name)));
  if (const Json* choice = fields.find("guided_choice"))
    set(choice_language(*choice, fields.param("guided_choice")));
  if (const Json* outputs = fields.find("structured_outputs"))
    set(parse_structured_outputs(*outputs, fields.param("structured_outputs")));
  for (const char* name :
       {"guided_whitespace_pattern", "grammar_lazy", "grammar_triggers", "structural_tag"}) {
    const Json* value = fields.find(name);
    if (value == nullptr || is_empty(*value)) continue;
    refuse(fields.param(name),
           fmt::format("{}: not supported, and to ignore it would break a promise", name));
  }
  return language;
}

std::shared_ptr<const Constraint> compile_language(const Language& language, const ThoughtRules& thought,
                                                   std::shared_ptr<const TokenTrie> trie) {
  constexpr std::string_view kOpen = "<think>", kClose = "</think>";
  try {
    GrammarBuilder builder(language.param);
    const GrammarBuilder::Rule root = builder.add_rule("answer");
    const GrammarBuilder::Rule rule = language.add(builder);
    GrammarBuilder::State at = builder.begin(root);
    if (thought.begun || thought.allowed) {
      const auto block = [&](GrammarBuilder::State from) {
        if (!thought.begun) from = builder.text(from, kOpen);
        from = builder.until(from, kClose);
        return builder.repeat(
            from,
            [&](GrammarBuilder::State s) {
              return builder.chars(s, {{'\n', '\n'}, {' ', ' '}});
            },
            0, 4);
      };
      at = thought.begun ? block(at) : builder.optional(at, block);
    }
    builder.add_empty(builder.call(at, rule), builder.end(root));
    return std::make_shared<const Constraint>(builder.finish(root), std::move(trie));
  } catch (const Error& error) {
    refuse(language.param, error.what());
  }
}

std::shared_ptr<const TokenTrie> TokenTries::get(const std::vector<TokenId>& spelled) {
  std::shared_ptr<const TokenTrie>& trie = tries_[spelled];
  if (trie == nullptr)
    trie = std::make_shared<const TokenTrie>(model_.tokenizer(), model_.hparams().vocab_size, spelled);
  return trie;
}

}  // namespace quern
