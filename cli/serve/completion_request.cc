#include "cli/serve/completion_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "cli/serve/tool_grammar.h"
#include "cli/thinking.h"
#include "quant/machine/random.h"

namespace quern {
namespace {

constexpr int64_t kMaxAnswers = 128;  // n, as OpenAI has it
constexpr int64_t kMaxTop = 20;       // top_logprobs, likewise
constexpr size_t kMaxStops = 16, kMaxStopBytes = 256;
constexpr size_t kMaxBiases = 1024;
constexpr size_t kMaxPrompts = 128;
constexpr double kMaxFloat = std::numeric_limits<float>::max();
// A request of OpenAI's completions that says nothing.
constexpr int64_t kUsualCompletionTokens = 16;

std::vector<std::pair<TokenId, float>> parse_logit_bias(RequestFields& fields, size_t vocab_size) {
  const Json* value = fields.find("logit_bias");
  if (value == nullptr) return {};
  const std::string param = fields.param("logit_bias");
  if (value->as_object() == nullptr)
    refuse(param, "logit_bias: expected an object of token ids, found " + value->describe());
  if (value->size() > kMaxBiases) refuse(param, fmt::format("logit_bias: more than {} tokens", kMaxBiases));
  std::vector<std::pair<TokenId, float>> biases;
  for (const JsonMember& member : *value->as_object()) {
    uint32_t id = 0;
    const char* end = member.key.data() + member.key.size();
    const auto [stop, error] = std::from_chars(member.key.data(), end, id);
    const std::optional<double> bias = member.value.as_number();
    if (error != std::errc() || stop != end || id >= vocab_size)
      refuse(param, fmt::format("logit_bias: expected token ids from 0 to {}, found {}", vocab_size - 1,
                                printable(member.key)));
    if (!bias || !(*bias >= -100 && *bias <= 100))
      refuse(param, fmt::format("logit_bias: expected a number from -100 to 100 for token {}, found {}", id,
                                member.value.describe()));
    const auto token = static_cast<TokenId>(id);
    if (std::any_of(biases.begin(), biases.end(), [&](const auto& b) { return b.first == token; }))
      refuse(param, fmt::format("logit_bias: token {} is there twice", id));  // "5" and "05"
    biases.emplace_back(token, static_cast<float>(*bias));
  }
  return biases;
}

// What both of OpenAI's have.
void parse_openai(RequestFields& fields, const RequestContext& context, CompletionRequest* request) {
  parse_common(fields, context, request);
  request->n = static_cast<size_t>(fields.integer("n", 1, kMaxAnswers).value_or(1));
  if (const Json* stream_options = fields.find("stream_options")) {
    if (!request->stream) refuse("stream_options", "stream_options: only with \"stream\": true");
    RequestFields inner(*stream_options, "stream_options");
    request->include_usage = inner.boolean("include_usage", false);
  }
  const std::vector<std::string> stops = parse_stops(fields, "stop");
  request->options.stop.insert(request->options.stop.end(), stops.begin(), stops.end());
}

void refuse_long_prompt(const CompletionRequest& request, const RequestContext& context,
                        const std::string& param) {
  for (const std::vector<TokenId>& prompt : request.prompts)
    if (prompt.size() >= context.context)
      throw ApiError(400, kInvalidRequest,
                     fmt::format("the prompt has {} tokens and the context {}, of which the answer needs at "
                                 "least one",
                                 prompt.size(), context.context),
                     param, "context_length_exceeded");
}

// Texts of a list of parts, joined as a template's message.
Json joined_content(const Json& content, const std::string& param) {
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    RequestFields part(content[i], fmt::format("{}[{}]", param, i));
    if (const std::string type = part.required_text("type"); type != "text")
      refuse_word(part.param("type"), "\"text\"", type);
    if (i > 0) text += "\n\n";
    text += part.required_text("text");
  }
  return Json(text);
}

Json parsed_arguments(const Json& calls) {
  if (calls.as_array() == nullptr) return calls;
  Json::Array out;
  for (const Json& call : *calls.as_array()) {
    const Json* function = call.find("function");
    const Json* arguments = function != nullptr ? function->find("arguments") : nullptr;
    if (arguments == nullptr || arguments->as_string() == nullptr) {
      out.push_back(call);
      continue;
    }
    const Json value = parse_call_arguments(*arguments);
    Json::Object members, inner;
    for (const JsonMember& member : *function->as_object())
      inner.push_back({member.key, member.key == "arguments" ? value : member.value});
    for (const JsonMember& member : *call.as_object())
      members.push_back({member.key, member.key == "function" ? Json(inner) : member.value});
    out.push_back(Json(members));
  }
  return Json(out);
}

Json parse_message(const Json& message, const std::string& param) {
  RequestFields fields(message, param);
  std::string role = fields.required_text("role");
  constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool", "function"};
  if (std::find(std::begin(kRoles), std::end(kRoles), role) == std::end(kRoles))
    refuse(fields.param("role"), fmt::format("{}: '{}' is unknown", fields.param("role"), printable(role)));
  if (role == "developer") role = "system";  // what templates call it
  Json::Object out;
  for (const JsonMember& member : *message.as_object()) {
    const std::string place = fields.param(member.key);
    if (member.key == "role") {
      out.push_back({"role", Json(role)});
    } else if (member.key == "content") {
      if (member.value.as_array() != nullptr)
        out.push_back({"content", joined_content(member.value, place)});
      else if (member.value.is_null() || member.value.as_string() != nullptr)
        out.push_back(member);
      else
        refuse(place,
               fmt::format("{}: expected a string or a list, found {}", place, member.value.describe()));
    } else if (member.key == "tool_calls") {
      if (!member.value.is_null()) out.push_back({member.key, parsed_arguments(member.value)});
    } else {
      out.push_back(member);
    }
  }
  if (role != "assistant") (void)fields.required("content");
  return Json(out);
}

// A text, a list of texts, a list of ids, a list of lists of ids.
void parse_prompts(RequestFields& fields, const RequestContext& context, CompletionRequest* request) {
  const std::string param = fields.param("prompt");
  const Json& value = fields.required("prompt");
  const bool is_one = value.as_array() == nullptr || (value.size() > 0 && value[0].as_number());
  const std::span<const Json> list = is_one ? std::span(&value, 1) : std::span(*value.as_array());
  if (list.empty() || list.size() > kMaxPrompts)
    refuse(param, fmt::format("{}: expected 1 to {} prompts, found {}", param, kMaxPrompts, list.size()));
  for (const Json& one : list) {
    if (const std::string* text = one.as_string()) {
      request->prompts.push_back(encode_request_text(context.tokenizer, *text));
      request->prompt_texts.push_back(*text);
    } else if (one.as_array() != nullptr) {
      request->prompts.push_back(parse_ids(*one.as_array(), context.tokenizer.size(), param));
      request->prompt_texts.push_back(context.tokenizer.decode(request->prompts.back()));
    } else {
      refuse(param, fmt::format("{}: expected a text or token ids, found {}", param, one.describe()));
    }
    if (request->prompts.back().empty()) refuse(param, param + ": it has no tokens");
  }
}

}  // namespace

Json parse_call_arguments(const Json& arguments) {
  if (arguments.as_string() == nullptr) return arguments;
  try {
    Json parsed = parse_json(*arguments.as_string(), "arguments", {.exact_integers = true});
    if (parsed.as_object() != nullptr) return parsed;
  } catch (const Error&) {  // a model wrote it; it harms nobody
  }
  return arguments;
}

uint64_t CompletionRequest::call_seed() const {
  uint64_t hash = options.sampler.seed ^ 0xcbf29ce484222325;  // FNV-1a
  for (const std::vector<TokenId>& prompt : prompts)
    for (const TokenId id : prompt) hash = (hash ^ static_cast<uint64_t>(id)) * 0x100000001b3;
  return hash;
}

std::vector<TokenId> parse_ids(std::span<const Json> list, size_t vocab_size, const std::string& param) {
  std::vector<TokenId> ids;
  for (const Json& element : list) {
    const uint64_t* id = element.as_uint();
    if (id == nullptr || *id >= vocab_size)
      refuse(param, fmt::format("{}: expected token ids from 0 to {}, found {}", param, vocab_size - 1,
                                element.describe()));
    ids.push_back(static_cast<TokenId>(*id));
  }
  return ids;
}

std::vector<TokenId> encode_request_text(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode_prompt(text, TextRole::kMessage);
}

void parse_common(RequestFields& fields, const RequestContext& context, CompletionRequest* request) {
  CompletionOptions& options = request->options;
  options = context.defaults;
  request->model = fields.text("model").value_or("");
  request->stream = fields.boolean("stream", false);
  SamplerOptions& sampler = options.sampler;
  sampler.temperature = static_cast<float>(
      fields.number("temperature", 0, kMaxFloat).value_or(static_cast<double>(sampler.temperature)));
  sampler.top_p = fields.number("top_p", 0, 1).value_or(sampler.top_p);
  sampler.min_p = fields.number("min_p", 0, 1).value_or(sampler.min_p);
  // -1 keeps all, as in other servers.
  sampler.top_k =
      static_cast<int>(std::max<int64_t>(fields.integer("top_k", -1, INT32_MAX).value_or(sampler.top_k), 0));
  for (const char* name : {"repeat_penalty", "repetition_penalty"})
    sampler.repeat_penalty = static_cast<float>(
        fields.number(name, 1e-6, kMaxFloat).value_or(static_cast<double>(sampler.repeat_penalty)));
  options.presence_penalty = static_cast<float>(fields.number("presence_penalty", -2, 2).value_or(0));
  options.frequency_penalty = static_cast<float>(fields.number("frequency_penalty", -2, 2).value_or(0));
  const std::optional<int64_t> seed = fields.integer("seed", INT64_MIN, INT64_MAX);
  sampler.seed = seed           ? static_cast<uint64_t>(*seed)
                 : context.seed ? *context.seed
                                : random_value<uint32_t>();
  options.logit_bias = parse_logit_bias(fields, context.tokenizer.size());
  options.ignore_eos = fields.boolean("ignore_eos", options.ignore_eos);
  request->language = parse_language(fields);
}

std::vector<std::string> parse_stops(RequestFields& fields, std::string_view name) {
  const Json* value = fields.find(name);
  if (value == nullptr) return {};
  const std::string param = fields.param(name);
  const std::span<const Json> list =
      value->as_array() == nullptr ? std::span(value, 1) : std::span(*value->as_array());
  if (list.size() > kMaxStops) refuse(param, fmt::format("{}: more than {} texts", param, kMaxStops));
  std::vector<std::string> stops;
  for (const Json& stop : list) {
    const std::string* text = stop.as_string();
    if (text == nullptr || text->empty() || text->size() > kMaxStopBytes)
      refuse(param, fmt::format("{}: expected texts of 1 to {} bytes, found {}", param, kMaxStopBytes,
                                stop.describe()));
    stops.push_back(*text);
  }
  return stops;
}

void parse_template_variables(RequestFields& fields, Json::Object* variables) {
  if (const Json* kwargs = fields.find("chat_template_kwargs")) {
    if (kwargs->as_object() == nullptr)
      refuse("chat_template_kwargs", "chat_template_kwargs: expected an object, found " + kwargs->describe());
    for (const JsonMember& member : *kwargs->as_object())
      if (member.key != "messages") variables->push_back(member);
  }
  if (std::none_of(variables->begin(), variables->end(),
                   [](const JsonMember& v) { return v.key == "add_generation_prompt"; }))
    variables->push_back({"add_generation_prompt", Json(true)});
}

Json::Object parse_chat_variables(RequestFields& fields, const ChatEncoding* chat, ToolRequest* tools) {
  const Json::Array& messages = fields.required_list("messages");
  Json::Array list;
  for (size_t i = 0; i < messages.size(); ++i)
    list.push_back(parse_message(messages[i], fmt::format("messages[{}]", i)));
  Json::Object variables = {{"messages", Json(list)}};
  parse_template_variables(fields, &variables);
  if (const Json* functions = fields.find("functions"); functions != nullptr && functions->size() > 0)
    refuse("functions", "functions: the older form is not taken; use tools");
  std::optional<Json> shown;
  *tools = parse_tools(fields, chat != nullptr ? chat->tool_syntax() : nullptr, &shown);
  if (shown) variables.push_back({"tools", std::move(*shown)});
  return variables;
}

std::vector<TokenId> encode_chat(const ChatEncoding* chat, const Json::Object& variables,
                                 const std::string& param) {
  if (chat == nullptr)
    throw ApiError(400, kInvalidRequest,
                   "the model has no chat template: use /v1/completions, or start the server with "
                   "--chat-format or --template",
                   param);
  try {
    return chat->encode(variables);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kResource) throw ApiError(413, kInvalidRequest, error.what(), param);
    refuse(param, error.what());
  }
}

std::string render_chat(const ChatEncoding* chat, const Json::Object& variables) {
  if (chat == nullptr) throw ApiError(400, kInvalidRequest, "the model has no chat template", "messages");
  try {
    return chat->render(variables);
  } catch (const Error& error) {
    refuse("messages", error.what());
  }
}

void set_chat_prompt(const RequestContext& context, const Json::Object& variables, CompletionRequest* request,
                     const std::string& param) {
  request->options.new_text = true;
  request->prompts.push_back(encode_chat(context.chat, variables, param));
  refuse_long_prompt(*request, context, param);
  request->splits_thought = context.chat->thinks();
  request->begins_in_thought = ends_in_thought(context.tokenizer, request->prompts.front());
}

void set_constraint(const RequestContext& context, const ToolRequest& tools, CompletionRequest* request) {
  if (tools.active()) {
    request->language = tool_language(tools, std::move(request->language));
    request->tool_syntax = tools.syntax;
    request->options.spelled = context.chat->call_tokens();
  }
  if (!request->language) return;
  const ThoughtRules thought = {request->begins_in_thought, request->splits_thought};
  request->options.constraint =
      compile_language(*request->language, thought, context.tries.get(request->options.spelled));
  request->language.reset();
  if (tools.active())
    request->tool_signatures = tool_signatures(tools);  // of schemas that were not too large
}

CompletionRequest parse_chat_request(const Json& body, const RequestContext& context) {
  RequestFields fields(body);
  CompletionRequest request;
  parse_openai(fields, context, &request);
  for (const char* name : {"max_tokens", "max_completion_tokens"})
    if (const auto n = fields.integer(name, 1, INT32_MAX)) request.options.max_tokens = *n;
  request.log_probs = fields.boolean("logprobs", false);
  const std::optional<int64_t> top = fields.integer("top_logprobs", 0, kMaxTop);
  if (top && !request.log_probs) refuse("top_logprobs", "top_logprobs: only with \"logprobs\": true");
  request.n_top = static_cast<size_t>(top.value_or(0));
  const std::string thoughts = fields.text("reasoning_format").value_or("auto");
  if (thoughts != "auto" && thoughts != "none")
    refuse_word("reasoning_format", "\"auto\" or \"none\"", thoughts);
  ToolRequest tools;
  set_chat_prompt(context, parse_chat_variables(fields, context.chat, &tools), &request);
  request.splits_thought &= thoughts == "auto";
  set_constraint(context, tools, &request);
  request.ignored = fields.unknown();
  return request;
}

CompletionRequest parse_completion_request(const Json& body, const RequestContext& context) {
  RequestFields fields(body);
  CompletionRequest request;
  parse_openai(fields, context, &request);
  request.options.max_tokens = fields.integer("max_tokens", 0, INT32_MAX).value_or(kUsualCompletionTokens);
  if (const auto top = fields.integer("logprobs", 0, kMaxTop)) {
    request.log_probs = true;
    request.n_top = static_cast<size_t>(*top);
  }
  request.echo = fields.boolean("echo", false);
  if (const auto best_of = fields.integer("best_of", 1, kMaxAnswers);
      best_of && static_cast<size_t>(*best_of) != request.n)
    refuse("best_of", "best_of: expected the same as n: all answers are given");
  if (const auto suffix = fields.text("suffix"); suffix && !suffix->empty())
    refuse("suffix", "suffix: this server does not fill in");
  parse_prompts(fields, context, &request);
  refuse_long_prompt(request, context, "prompt");
  set_constraint(context, {}, &request);
  request.ignored = fields.unknown();
  return request;
}

}  // namespace quern
