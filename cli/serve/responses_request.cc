#include "cli/serve/responses_request.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "runtime/engine/grammar_json.h"

namespace quern {
namespace {

// Texts of a list of parts, joined with a blank line.
std::string parse_parts(const Json& list, const std::string& param, std::span<const std::string_view> types) {
  if (list.as_array() == nullptr)
    refuse(param, fmt::format("{}: expected a string or a list of parts, found {}", param, list.describe()));
  std::string text;
  for (size_t i = 0; i < list.size(); ++i) {
    RequestFields part(list[i], fmt::format("{}[{}]", param, i));
    const std::string type = part.required_text("type");
    if (std::find(types.begin(), types.end(), type) == types.end())
      refuse_word(part.param("type"), fmt::format("\"{}\"", fmt::join(types, "\", \"")), type);
    if (i > 0) text += "\n\n";
    text += part.required_text(type == "refusal" ? "refusal" : "text");
  }
  return text;
}

std::string parse_text(RequestFields& fields, std::string_view name,
                       std::span<const std::string_view> types) {
  const Json& value = fields.required(name);
  if (value.as_string() != nullptr) return *value.as_string();
  return parse_parts(value, fields.param(name), types);
}

// Items of the input become messages of a template: what an assistant thought, said and called without
// anybody between is one.
class InputItems {
 public:
  void add(const Json& item, const std::string& param) {
    RequestFields fields(item, param);
    const std::string type = fields.text("type").value_or("message");
    if (type == "message")
      add_message(fields);
    else if (type == "reasoning")
      add_thought(fields);
    else if (type == "function_call")
      add_call(fields);
    else if (type == "function_call_output")
      add_result(fields);
    else
      refuse_word(fields.param("type"),
                  "\"message\", \"reasoning\", \"function_call\" or \"function_call_output\"", type);
  }
  void say(std::string_view role, const std::string& text) {
    end_turn();
    messages_.push_back(Json(Json::Object{{"role", Json(std::string(role))}, {"content", Json(text)}}));
  }
  Json::Array take() {
    end_turn();
    return std::move(messages_);
  }

 private:
  void add_message(RequestFields& fields) {
    constexpr std::string_view kSaid[] = {"input_text", "output_text", "refusal"};
    const std::string role = fields.required_text("role");
    const std::string text = parse_text(fields, "content", kSaid);
    if (role == "assistant") {
      if (said_ || !calls_.empty()) end_turn();
      text_ = text;
      said_ = true;
    } else if (role == "user" || role == "system") {
      say(role, text);
    } else if (role == "developer") {
      say("system", text);  // what templates call it
    } else {
      refuse(fields.param("role"), fmt::format("{}: '{}' is unknown", fields.param("role"), printable(role)));
    }
  }
  void add_thought(RequestFields& fields) {
    constexpr std::string_view kThought[] = {"reasoning_text", "summary_text"};
    if (said_ || !calls_.empty()) end_turn();
    for (const char* name : {"content", "summary"}) {
      const Json* parts = fields.find(name);
      if (parts == nullptr) continue;
      const std::string thought = parse_parts(*parts, fields.param(name), kThought);
      if (thought.empty()) continue;
      thought_ += (thought_.empty() ? "" : "\n\n") + thought;
      return;
    }
  }
  void add_call(RequestFields& fields) {
    Json::Object function = {{"name", Json(fields.required_text("name"))},
                             {"arguments", parse_call_arguments(Json(fields.required_text("arguments")))}};
    calls_.push_back(Json(Json::Object{{"id", Json(fields.required_text("call_id"))},
                                       {"type", Json(std::string("function"))},
                                       {"function", Json(std::move(function))}}));
  }
  void add_result(RequestFields& fields) {
    constexpr std::string_view kResult[] = {"input_text", "output_text"};
    const std::string id = fields.required_text("call_id");
    end_turn();
    messages_.push_back(Json(Json::Object{{"role", Json(std::string("tool"))},
                                          {"content", Json(parse_text(fields, "output", kResult))},
                                          {"tool_call_id", Json(id)}}));
  }
  // Of the assistant.
  void end_turn() {
    if (said_ || !calls_.empty()) {
      Json::Object message = {{"role", Json(std::string("assistant"))}, {"content", Json(text_)}};
      if (!thought_.empty()) message.push_back({"reasoning_content", Json(thought_)});
      if (!calls_.empty()) message.push_back({"tool_calls", Json(calls_)});
      messages_.push_back(Json(std::move(message)));
    }
    text_.clear();
    thought_.clear();
    calls_.clear();
    said_ = false;
  }

  Json::Array messages_;
  std::string text_, thought_;
  Json::Array calls_;
  bool said_ = false;
};

// What a server would have to keep, look up or do later.
void refuse_state(RequestFields& fields) {
  for (const char* name : {"previous_response_id", "conversation", "prompt"})
    if (fields.find(name) != nullptr)
      refuse(name, fmt::format("{}: this server keeps nothing; send the whole conversation as input", name));
  if (fields.boolean("store", false))
    refuse("store", "store: this server keeps no responses; expected false");
  if (fields.boolean("background", false))
    refuse("background", "background: answers are given at once; expected false");
}

void parse_include(RequestFields& fields) {
  const Json* include = fields.find("include");
  if (include == nullptr) return;
  if (include->as_array() == nullptr)
    refuse("include", "include: expected a list, found " + include->describe());
  for (const Json& one : *include->as_array())
    if (const std::string* name = one.as_string();
        name == nullptr || *name != "reasoning.encrypted_content")  // thoughts are there in plain text
      refuse("include", "include: not given here: " + one.describe());
}

// Asks the template for a thought, or for none, where it can be asked.
void parse_reasoning(RequestFields& fields, Json::Object* variables, CompletionRequest* request) {
  const Json* value = fields.find("reasoning");
  if (value == nullptr) return;
  RequestFields inner(*value, "reasoning");
  if (const auto effort = inner.text("effort")) {
    const auto set = [&](std::string_view name, Json json) {  // chat_template_kwargs come first
      if (std::none_of(variables->begin(), variables->end(),
                       [&](const JsonMember& v) { return v.key == name; }))
        variables->push_back({std::string(name), std::move(json)});
    };
    set("enable_thinking", Json(*effort != "none"));
    if (*effort != "none") set("reasoning_effort", Json(*effort));
  }
  for (const std::string& name : inner.unknown())
    if (inner.find(name) != nullptr) request->ignored.push_back(inner.param(name));
}

// text.format. Beside it response_format and its like are taken as elsewhere.
void parse_text_format(RequestFields& fields, CompletionRequest* request) {
  const Json* text = fields.find("text");
  if (text == nullptr) return;
  RequestFields inner(*text, "text");
  if (const Json* format = inner.find("format")) {
    std::optional<Language> language = parse_response_format(*format, inner.param("format"));
    if (language && request->language)
      refuse(language->param, fmt::format("{} and {}: only one constraint at a time", language->param,
                                          request->language->param));
    if (language) request->language = std::move(language);
  }
  for (const std::string& name : inner.unknown())
    if (inner.find(name) != nullptr) request->ignored.push_back(inner.param(name));
}

// What the answer repeats.
void keep_echoes(const Json& body, CompletionRequest* request) {
  constexpr std::pair<const char*, const char*> kEchoes[] = {
      {"instructions", "null"},
      {"max_output_tokens", "null"},
      {"metadata", "{}"},
      {"parallel_tool_calls", "true"},
      {"reasoning", "null"},
      {"text", R"({"format": {"type": "text"}})"},
      {"tool_choice", "\"auto\""},
      {"tools", "[]"},
      {"user", "null"},
  };
  for (const auto& [name, otherwise] : kEchoes) {
    const Json* value = body.find(name);
    request->echoed.emplace_back(name,
                                 value == nullptr || value->is_null() ? otherwise : compact_json(*value));
  }
}

}  // namespace

CompletionRequest parse_responses_request(const Json& body, const RequestContext& context) {
  RequestFields fields(body);
  CompletionRequest request;
  refuse_state(fields);
  parse_include(fields);
  parse_common(fields, context, &request);
  if (const auto n = fields.integer("max_output_tokens", 1, INT32_MAX)) request.options.max_tokens = *n;
  const std::vector<std::string> stops = parse_stops(fields, "stop");
  request.options.stop.insert(request.options.stop.end(), stops.begin(), stops.end());
  if (const Json* options = fields.find("stream_options")) {
    if (!request.stream) refuse("stream_options", "stream_options: only with \"stream\": true");
    (void)RequestFields(*options, "stream_options");  // include_obfuscation: there is none
  }

  InputItems items;
  if (const auto text = fields.text("instructions"); text && !text->empty()) items.say("system", *text);
  if (const std::string* text = fields.required("input").as_string()) {
    items.say("user", *text);
  } else {
    const Json::Array& list = fields.required_list("input");
    for (size_t i = 0; i < list.size(); ++i) items.add(list[i], fmt::format("input[{}]", i));
  }
  Json::Object variables = {{"messages", Json(items.take())}};
  parse_template_variables(fields, &variables);
  std::optional<Json> shown;
  const ToolRequest tools =
      parse_responses_tools(fields, context.chat != nullptr ? context.chat->tool_syntax() : nullptr, &shown);
  if (shown) variables.push_back({"tools", std::move(*shown)});
  parse_reasoning(fields, &variables, &request);
  parse_text_format(fields, &request);
  set_chat_prompt(context, variables, &request, "input");
  set_constraint(context, tools, &request);
  keep_echoes(body, &request);
  for (const char* name : {"metadata", "user"}) (void)fields.find(name);  // repeated, without effect
  const std::vector<std::string> unknown = fields.unknown();
  request.ignored.insert(request.ignored.begin(), unknown.begin(), unknown.end());
  return request;
}

}  // namespace quern
