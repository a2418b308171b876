#include "cli/chat_messages.h"

#include <algorithm>

#include "quant/json/json.h"
#include "quant/json/json_writer.h"

namespace quern {
namespace {

const std::string& require_string(const Json& object, std::string_view key, const std::string& where) {
  const Json* value = object.find(key);
  const std::string* text = value != nullptr ? value->as_string() : nullptr;
  if (text == nullptr)
    fail(ErrorCode::kMalformed, "{}: expected a string \"{}\", found {}", where, key,
         value != nullptr ? value->describe() : "nothing");
  return *text;
}

std::string read_content(const Json& message, const std::string& where) {
  const Json* content = message.find("content");
  if (content == nullptr || content->as_array() == nullptr) return require_string(message, "content", where);
  std::string joined;
  bool first = true;
  for (const Json& chunk : *content->as_array()) {
    const Json* type = chunk.find("type");
    if (type != nullptr && (type->as_string() == nullptr || *type->as_string() != "text"))
      fail(ErrorCode::kMalformed, "{}: content chunks of type {} are not supported, only \"text\"", where,
           type->describe());
    if (!first) joined += "\n\n";
    first = false;
    joined += require_string(chunk, "text", where);
  }
  return joined;
}

bool read_prefix(const Json& message, const std::string& where) {
  const Json* prefix = message.find("prefix");
  if (prefix == nullptr) return false;
  if (prefix->as_bool() == nullptr)
    fail(ErrorCode::kMalformed, "{}: expected true or false for \"prefix\", found {}", where,
         prefix->describe());
  return *prefix->as_bool();
}

}  // namespace

std::vector<ChatMessage> parse_chat_messages(std::string_view json, const std::string& where) {
  const Json document = parse_json(json, where);
  const Json* messages = document.find("messages");
  const Json& list = messages != nullptr ? *messages : document;
  if (calls_tools(list))
    fail(ErrorCode::kMalformed, "{}: a message calls tools, which a conversation here has no place for",
         where);
  return chat_messages(list, where);
}

bool is_given(const Json* value) {
  if (value == nullptr || value->is_null()) return false;
  if (const bool* truth = value->as_bool()) return *truth;
  return (value->as_array() == nullptr && value->as_object() == nullptr) || value->size() > 0;
}

bool calls_tools(const Json& messages) {
  const Json::Array* list = messages.as_array();
  return list != nullptr && std::any_of(list->begin(), list->end(), [](const Json& message) {
           return is_given(message.find("tool_calls")) || is_given(message.find("function_call"));
         });
}

std::vector<ChatMessage> chat_messages(const Json& list, const std::string& where) {
  if (list.as_array() == nullptr)
    fail(ErrorCode::kMalformed, "{}: expected a list of messages, found {}", where, list.describe());
  std::vector<ChatMessage> messages;
  for (const Json& message : *list.as_array()) {
    const std::string place = fmt::format("{}: message {}", where, messages.size());
    if (message.as_object() == nullptr)
      fail(ErrorCode::kMalformed, "{}: expected an object, found {}", place, message.describe());
    messages.push_back(
        {require_string(message, "role", place), read_content(message, place), read_prefix(message, place)});
  }
  return messages;
}

Json::Object parse_chat_document(std::string_view json, const std::string& where) {
  constexpr JsonLimits kLimits = {.max_depth = 100, .max_values = 1u << 20, .exact_integers = true};
  const Json document = parse_json(json, where, kLimits);
  Json::Object variables;
  if (document.as_object() != nullptr)
    variables = *document.as_object();
  else
    variables.push_back({"messages", document});
  bool says_prompt = false;
  const Json* messages = nullptr;
  for (const JsonMember& variable : variables) {
    if (variable.key == "messages") messages = &variable.value;
    says_prompt |= variable.key == "add_generation_prompt";
  }
  if (messages == nullptr || messages->as_array() == nullptr)
    fail(ErrorCode::kMalformed, "{}: expected a list of messages, found {}", where,
         messages != nullptr ? messages->describe() : document.describe());
  for (size_t i = 0; i < messages->size(); ++i)
    if ((*messages)[i].as_object() == nullptr)
      fail(ErrorCode::kMalformed, "{}: message {}: expected an object, found {}", where, i,
           (*messages)[i].describe());
  if (!says_prompt) variables.push_back({"add_generation_prompt", Json(true)});
  return variables;
}

std::string chat_messages_json(std::span<const ChatMessage> messages) {
  JsonWriter json;
  json.begin_array();
  for (const ChatMessage& message : messages) {
    json.line(1).begin_object().field("role", message.role).field("content", message.content);
    if (message.prefix) json.field("prefix", true);
    json.end_object();
  }
  return json.line(0).end_array().text() + "\n";
}

}  // namespace quern
