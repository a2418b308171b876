#include "cli/serve/messages_request.h"

#include <fmt/format.h>

#include <algorithm>

namespace quern {
namespace {

constexpr std::string_view kBetween = "\n\n";                      // texts that stand side by side
constexpr std::string_view kThinkingVariable = "enable_thinking";  // as templates call it

struct Content {
  std::string text, thought;
  Json::Array calls;    // of an assistant, as OpenAI has them
  Json::Array results;  // messages of the role "tool", which come before the text
};

void append(std::string* joined, bool is_first, std::string_view text) {
  if (!is_first) *joined += kBetween;
  *joined += text;
}

// {"type": "tool_use", "id", "name", "input"}
Json parse_call_block(RequestFields& block) {
  const Json* input = block.find("input");
  Json::Object function = {{"name", Json(block.required_text("name"))},
                           {"arguments", input != nullptr ? *input : Json(Json::Object{})}};
  return Json(Json::Object{{"id", Json(block.required_text("id"))},
                           {"type", Json(std::string("function"))},
                           {"function", Json(std::move(function))}});
}

Content parse_content(RequestFields& fields, std::string_view name, std::string_view role);

// {"type": "tool_result", "tool_use_id", "content"}
Json parse_result_block(RequestFields& block) {
  const std::string id = block.required_text("tool_use_id");
  (void)block.boolean("is_error", false);  // its text says so
  const std::string text =
      block.find("content") != nullptr ? parse_content(block, "content", "tool").text : "";
  return Json(
      Json::Object{{"role", Json(std::string("tool"))}, {"content", Json(text)}, {"tool_call_id", Json(id)}});
}

// A text, or blocks of it. Answers that come back may hold thoughts and calls, what a user says their
// results.
Content parse_content(RequestFields& fields, std::string_view name, std::string_view role) {
  const bool of_assistant = role == "assistant";
  const std::string param = fields.param(name);
  const Json& value = fields.required(name);
  Content content;
  if (value.as_string() != nullptr) {
    content.text = *value.as_string();
    return content;
  }
  if (value.as_array() == nullptr)
    refuse(param,
           fmt::format("{}: expected a string or a list of blocks, found {}", param, value.describe()));
  size_t n_texts = 0, n_thoughts = 0;
  for (size_t i = 0; i < value.size(); ++i) {
    RequestFields block(value[i], fmt::format("{}[{}]", param, i));
    const std::string type = block.required_text("type");
    if (type == "text")
      append(&content.text, n_texts++ == 0, block.required_text("text"));
    else if (type == "thinking" && of_assistant)
      append(&content.thought, n_thoughts++ == 0, block.required_text("thinking"));
    else if (type == "tool_use" && of_assistant)
      content.calls.push_back(parse_call_block(block));
    else if (type == "tool_result" && role == "user")
      content.results.push_back(parse_result_block(block));
    else
      refuse_word(block.param("type"),
                  of_assistant     ? "\"text\", \"thinking\" or \"tool_use\""
                  : role == "user" ? "\"text\" or \"tool_result\""
                                   : "\"text\"",
                  type);
  }
  return content;
}

// Messages of one role that follow each other are one.
struct Turn {
  std::string role;
  Content content;
};

std::vector<Turn> parse_turns(RequestFields& fields) {
  const Json::Array& messages = fields.required_list("messages");
  std::vector<Turn> turns;
  for (size_t i = 0; i < messages.size(); ++i) {
    RequestFields message(messages[i], fmt::format("messages[{}]", i));
    const std::string role = message.required_text("role");
    if (role != "user" && role != "assistant")
      refuse_word(message.param("role"), "\"user\" or \"assistant\"", role);
    Content content = parse_content(message, "content", role);
    if (turns.empty() || turns.back().role != role) {
      turns.push_back({role, std::move(content)});
      continue;
    }
    Content& last = turns.back().content;
    append(&last.text, last.text.empty(), content.text);
    append(&last.thought, last.thought.empty(), content.thought);
    last.calls.insert(last.calls.end(), content.calls.begin(), content.calls.end());
    last.results.insert(last.results.end(), content.results.begin(), content.results.end());
  }
  return turns;
}

// Asks the template for a thought, or for none, where it can be asked.
void parse_thinking(RequestFields& fields, Json::Object* variables, std::vector<std::string>* ignored) {
  const Json* value = fields.find("thinking");
  if (value == nullptr) return;
  RequestFields inner(*value, "thinking");
  const std::string type = inner.required_text("type");
  if (type != "enabled" && type != "adaptive" && type != "disabled")
    refuse_word(inner.param("type"), "\"enabled\", \"adaptive\" or \"disabled\"", type);
  if (std::none_of(variables->begin(), variables->end(),
                   [](const JsonMember& v) { return v.key == kThinkingVariable; }))
    variables->push_back({std::string(kThinkingVariable), Json(type != "disabled")});
  for (const std::string& name : inner.unknown()) ignored->push_back(inner.param(name));
}

// What a template sees.
Json::Object parse_variables(RequestFields& fields, const RequestContext& context, ToolRequest* tools,
                             std::vector<std::string>* ignored) {
  Json::Array list;
  if (fields.find("system") != nullptr) {
    const std::string text = parse_content(fields, "system", "system").text;
    if (!text.empty()) list.push_back(Json(Json::Object{{"role", Json("system")}, {"content", Json(text)}}));
  }
  const std::vector<Turn> turns = parse_turns(fields);
  for (const Turn& turn : turns) {
    list.insert(list.end(), turn.content.results.begin(), turn.content.results.end());
    if (!turn.content.results.empty() && turn.content.text.empty()) continue;
    Json::Object message = {{"role", Json(turn.role)}, {"content", Json(turn.content.text)}};
    if (!turn.content.calls.empty()) message.push_back({"tool_calls", Json(turn.content.calls)});
    if (!turn.content.thought.empty()) message.push_back({"reasoning_content", Json(turn.content.thought)});
    if (&turn == &turns.back() && turn.role == "assistant") {
      if (context.chat != nullptr && !context.chat->continues_answers())
        refuse("messages", "messages: the last is the assistant's, and a chat template cannot go on with it");
      message.push_back({"prefix", Json(true)});
    }
    list.push_back(Json(message));
  }
  Json::Object variables = {{"messages", Json(list)}};
  parse_template_variables(fields, &variables);
  if (const Json* servers = fields.find("mcp_servers"); servers != nullptr && servers->size() > 0)
    refuse("mcp_servers", "mcp_servers: this server asks no others");
  std::optional<Json> shown;
  *tools =
      parse_anthropic_tools(fields, context.chat != nullptr ? context.chat->tool_syntax() : nullptr, &shown);
  if (shown) variables.push_back({"tools", std::move(*shown)});
  parse_thinking(fields, &variables, ignored);
  return variables;
}

// output_config.format, and its older name. Beside it response_format and its like are taken as in OpenAI's.
void parse_output_format(RequestFields& fields, CompletionRequest* request,
                         std::vector<std::string>* ignored) {
  const auto take = [&](RequestFields& owner, std::string_view name) {
    const Json* format = owner.find(name);
    if (format == nullptr) return;
    const std::string param = owner.param(name);
    if (request->language) refuse(param, fmt::format("{}: only one constraint at a time", param));
    RequestFields inner(*format, param);
    if (const std::string type = inner.required_text("type"); type != "json_schema")
      refuse_word(inner.param("type"), "\"json_schema\"", type);
    request->language = schema_language(inner.required("schema"), inner.param("schema"));
  };
  take(fields, "output_format");
  const Json* config = fields.find("output_config");
  if (config == nullptr) return;
  RequestFields inner(*config, "output_config");
  take(inner, "format");
  for (const std::string& name : inner.unknown()) ignored->push_back(inner.param(name));
}

}  // namespace

CompletionRequest parse_messages_request(const Json& body, const RequestContext& context) {
  RequestFields fields(body);
  CompletionRequest request;
  parse_common(fields, context, &request);
  const std::optional<int64_t> max_tokens = fields.integer("max_tokens", 1, INT32_MAX);
  if (!max_tokens) refuse("max_tokens", "max_tokens is missing");
  request.options.max_tokens = *max_tokens;
  const std::vector<std::string> stops = parse_stops(fields, "stop_sequences");
  request.options.stop.insert(request.options.stop.end(), stops.begin(), stops.end());
  std::vector<std::string> ignored;
  parse_output_format(fields, &request, &ignored);
  ToolRequest tools;
  set_chat_prompt(context, parse_variables(fields, context, &tools, &ignored), &request);
  set_constraint(context, tools, &request);
  request.ignored = fields.unknown();
  request.ignored.insert(request.ignored.end(), ignored.begin(), ignored.end());
  return request;
}

std::vector<TokenId> parse_messages_prompt(const Json& body, const RequestContext& context) {
  RequestFields fields(body);
  std::vector<std::string> ignored;  // what has no effect on the answer has none on its prompt
  ToolRequest tools;
  return encode_chat(context.chat, parse_variables(fields, context, &tools, &ignored));
}

}  // namespace quern
