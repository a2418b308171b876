// What a request holds its answer to: response_format, and what other servers call it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/serve/request_fields.h"
#include "runtime/engine/constraint.h"
#include "runtime/engine/grammar.h"
#include "runtime/model.h"

namespace quern {

// A language that answers are held to, before it is compiled. It refers to the request's JSON.
struct Language {
  std::string param;  // of the request, for errors
  std::function<GrammarBuilder::Rule(GrammarBuilder&)> add;
};

// response_format, guided_json, guided_regex, guided_choice, guided_grammar, structured_outputs, grammar,
// json_schema, regex, ebnf: at most one of them; none: nothing is asked for. Throws ApiError 400.
std::optional<Language> parse_language(RequestFields& fields);
// "response_format" and what means the same elsewhere; none: its type is "text". Throws ApiError 400.
std::optional<Language> parse_response_format(const Json& format, const std::string& param);
// A value that is a JSON schema, or a string that holds one. `param`: what errors call it.
Language schema_language(const Json& value, const std::string& param);

// Compiles a language behind what an answer may think before it. Throws ApiError 400 with the language's
// param.
struct ThoughtRules {
  bool begun = false;    // the prompt has opened a block of thought: it is closed first
  bool allowed = false;  // the answer may open one
};
std::shared_ptr<const Constraint> compile_language(const Language& language, const ThoughtRules& thought,
                                                   std::shared_ptr<const TokenTrie> trie);

// The tries of a model's vocabulary, made when they are first asked for. Not thread-safe.
class TokenTries {
 public:
  explicit TokenTries(const Model& model) : model_(model) {}
  // spelled: control tokens that count as text.
  std::shared_ptr<const TokenTrie> get(const std::vector<TokenId>& spelled = {});

 private:
  const Model& model_;
  std::map<std::vector<TokenId>, std::shared_ptr<const TokenTrie>> tries_;
};

}  // namespace quern
