// Requests for completions, as what the engine is asked for: OpenAI's, and what the protocols share.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cli/chat_encoding.h"
#include "cli/serve/constraint_request.h"
#include "cli/serve/request_fields.h"
#include "cli/serve/tool_request.h"
#include "cli/tool_calls.h"
#include "quant/json/json.h"
#include "runtime/completion.h"

namespace quern {

enum class CompletionKind : uint8_t { kChat, kText, kMessage, kResponse };  // kMessage: Anthropic's

struct CompletionRequest {
  std::string model;                          // as the client named it; empty: not at all
  std::vector<std::vector<TokenId>> prompts;  // one for a conversation
  std::vector<std::string> prompt_texts;      // with echo
  size_t n = 1;                               // answers to each prompt
  CompletionOptions options;                  // of the first answer; the next have seeds one larger each
  bool stream = false, include_usage = false;
  bool log_probs = false;
  size_t n_top = 0;
  bool echo = false;
  // The answer may begin with a thought, or the prompt has begun one (cli/thinking.h).
  bool splits_thought = false, begins_in_thought = false;
  const ToolSyntax* tool_syntax = nullptr;  // in which the answer may call tools; null: it may not
  std::vector<ToolSignature> tool_signatures;
  std::optional<Language> language;  // until it is compiled into the options
  std::vector<std::string> ignored;  // fields without effect
  // Fields that a response repeats, and their JSON.
  std::vector<std::pair<std::string, std::string>> echoed;

  // Of the ids of calls: they depend on the request and its seed alone, and differ from turn to turn.
  uint64_t call_seed() const;
};

// What a request is read with.
struct RequestContext {
  const Tokenizer& tokenizer;
  const ChatEncoding* chat;           // null: the model has no chat template
  const CompletionOptions& defaults;  // of what a request does not say
  std::optional<uint64_t> seed;       // likewise; none: each request gets a drawn one
  uint64_t context;                   // positions
  TokenTries& tries;                  // of the model's vocabulary
};

// POST /v1/chat/completions and /v1/completions. Throw ApiError: 400 with the field.
CompletionRequest parse_chat_request(const Json& body, const RequestContext& context);
CompletionRequest parse_completion_request(const Json& body, const RequestContext& context);

// The variables of the chat template that `fields` describes: messages checked, texts of lists joined. tools:
// those of the request.
Json::Object parse_chat_variables(RequestFields& fields, const ChatEncoding* chat, ToolRequest* tools);
// Adds "chat_template_kwargs", and "add_generation_prompt" unless it is there.
void parse_template_variables(RequestFields& fields, Json::Object* variables);
// Model, stream, how tokens are picked, and the language that the answer is held to.
void parse_common(RequestFields& fields, const RequestContext& context, CompletionRequest* request);
// A text, or a list of some.
std::vector<std::string> parse_stops(RequestFields& fields, std::string_view name);
// The conversation becomes the request's prompt. Throws ApiError 400 about the field `param` where it has no
// room in the context.
void set_chat_prompt(const RequestContext& context, const Json::Object& variables, CompletionRequest* request,
                     const std::string& param = "messages");
// Arguments of a call, which are JSON in a string, as templates take them: the object that they are. What is
// none stays what it is.
Json parse_call_arguments(const Json& arguments);
// Holds the answer to its language, which may call tools. The prompt is set.
void set_constraint(const RequestContext& context, const ToolRequest& tools, CompletionRequest* request);
// Its ids, or what the template prints. Throws ApiError for what the template refuses.
std::vector<TokenId> encode_chat(const ChatEncoding* chat, const Json::Object& variables,
                                 const std::string& param = "messages");
std::string render_chat(const ChatEncoding* chat, const Json::Object& variables);
// `list`: numbers below vocab_size. param: what errors call it.
std::vector<TokenId> parse_ids(std::span<const Json> list, size_t vocab_size, const std::string& param);
// A text of a request: it spells no special token.
std::vector<TokenId> encode_request_text(const Tokenizer& tokenizer, std::string_view text);

}  // namespace quern
