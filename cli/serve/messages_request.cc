#include "cli/serve/messages_request.h"

#include <fmt/format.h>

#include <algorithm>

namespace quern {
namespace {

constexpr std::string_view kBetween = "\n\n";                      // texts that stand side by side
constexpr std::string_view kThinkingVariable = "enable_thinking";  // as templates call it
constexpr size_t kMaxNamedTools = 8;

struct Content {
  std::string text, thought;
};

void append(std::string* joined, bool is_first, std::string_view text) {
  if (!is_first) *joined += kBetween;
  *joined += text;
}

// A text, or blocks of it. Answers that come back may hold thoughts.
Content parse_content(RequestFields& fields, std::string_view name, bool of_assistant) {
  const std::string param = fields.param(name);
  const Json* value = fields.find(name);
  if (value == nullptr) refuse(param, param + " is missing");
  Content content;
  if (value->as_string() != nullptr) {
    content.text = *value->as_string();
    return content;
  }
  if (value->as_array() == nullptr)
    refuse(param,
           fmt::format("{}: expected a string or a list of blocks, found {}", param, value->describe()));
  size_t n_texts = 0, n_thoughts = 0;
  for (size_t i = 0; i < value->size(); ++i) {
    RequestFields block((*value)[i], fmt::format("{}[{}]", param, i));
    const std::string type = block.required_text("type");
    if (type == "text")
      append(&content.text, n_texts++ == 0, block.required_text("text"));
    else if (type == "thinking" && of_assistant)
      append(&content.thought, n_thoughts++ == 0, block.required_text("thinking"));
    else
      refuse(block.param("type"), fmt::format("{}: expected \"text\"{}, found \"{}\"", block.param("type"),
                                              of_assistant ? " or \"thinking\"" : "", printable(type)));
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
      refuse(message.param("role"), fmt::format("{}: expected \"user\" or \"assistant\", found \"{}\"",
                                                message.param("role"), printable(role)));
    Content content = parse_content(message, "content", role == "assistant");
    if (turns.empty() || turns.back().role != role) {
      turns.push_back({role, std::move(content)});
      continue;
    }
    Content& last = turns.back().content;
    append(&last.text, last.text.empty(), content.text);
    append(&last.thought, last.thought.empty(), content.thought);
  }
  return turns;
}

void refuse_tools(RequestFields& fields) {
  if (const Json* tools = fields.find("tools"); tools != nullptr && tools->size() > 0) {
    std::string names;
    for (size_t i = 0; tools->as_array() != nullptr && i < std::min(tools->size(), kMaxNamedTools); ++i) {
      const Json* name = (*tools)[i].find("name");
      if (name != nullptr && name->as_string() != nullptr)
        names += (names.empty() ? "" : ", ") + printable(*name->as_string());
    }
    if (tools->size() > kMaxNamedTools) names += ", ...";
    refuse("tools", fmt::format("tools: this server cannot call tools yet{}",
                                names.empty() ? "" : fmt::format(" ({})", names)));
  }
  if (const Json* servers = fields.find("mcp_servers"); servers != nullptr && servers->size() > 0)
    refuse("mcp_servers", "mcp_servers: this server cannot call tools yet");
  if (const Json* choice = fields.find("tool_choice")) {
    RequestFields inner(*choice, "tool_choice");
    const std::string type = inner.required_text("type");
    if (type != "auto" && type != "none")
      refuse(inner.param("type"), fmt::format("{}: expected \"auto\" or \"none\" where there are no tools, "
                                              "found \"{}\"",
                                              inner.param("type"), printable(type)));
  }
}

// Asks the template for a thought, or for none, where it can be asked.
void parse_thinking(RequestFields& fields, Json::Object* variables, std::vector<std::string>* ignored) {
  const Json* value = fields.find("thinking");
  if (value == nullptr) return;
  RequestFields inner(*value, "thinking");
  const std::string type = inner.required_text("type");
  if (type != "enabled" && type != "adaptive" && type != "disabled")
    refuse(inner.param("type"),
           fmt::format("{}: expected \"enabled\", \"adaptive\" or \"disabled\", found \"{}\"",
                       inner.param("type"), printable(type)));
  if (std::none_of(variables->begin(), variables->end(),
                   [](const JsonMember& v) { return v.key == kThinkingVariable; }))
    variables->push_back({std::string(kThinkingVariable), Json(type != "disabled")});
  for (const std::string& name : inner.unknown()) ignored->push_back(inner.param(name));
}

// What a template sees.
Json::Object parse_variables(RequestFields& fields, const RequestContext& context,
                             std::vector<std::string>* ignored) {
  Json::Array list;
  if (fields.find("system") != nullptr) {
    const std::string text = parse_content(fields, "system", false).text;
    if (!text.empty()) list.push_back(Json(Json::Object{{"role", Json("system")}, {"content", Json(text)}}));
  }
  const std::vector<Turn> turns = parse_turns(fields);
  for (const Turn& turn : turns) {
    Json::Object message = {{"role", Json(turn.role)}, {"content", Json(turn.content.text)}};
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
  refuse_tools(fields);
  parse_thinking(fields, &variables, ignored);
  return variables;
}

void refuse_output_format(RequestFields& fields, std::vector<std::string>* ignored) {
  constexpr std::string_view kWhy = "this server cannot constrain an answer";
  if (fields.find("output_format") != nullptr)
    refuse("output_format", fmt::format("output_format: {}", kWhy));
  const Json* config = fields.find("output_config");
  if (config == nullptr) return;
  RequestFields inner(*config, "output_config");
  if (inner.find("format") != nullptr)
    refuse(inner.param("format"), fmt::format("{}: {}", inner.param("format"), kWhy));
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
  refuse_output_format(fields, &ignored);
  set_chat_prompt(context, parse_variables(fields, context, &ignored), &request);
  request.ignored = fields.unknown();
  request.ignored.insert(request.ignored.end(), ignored.begin(), ignored.end());
  return request;
}

std::vector<TokenId> parse_messages_prompt(const Json& body, const RequestContext& context) {
  RequestFields fields(body);
  std::vector<std::string> ignored;  // what has no effect on the answer has none on its prompt
  return encode_chat(context.chat, parse_variables(fields, context, &ignored));
}

}  // namespace quern
