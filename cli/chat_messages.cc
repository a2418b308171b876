#include "cli/chat_messages.h"

#include "cli/json_writer.h"
#include "convert/json.h"

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
  const Json* list = &document;
  if (const Json* messages = document.find("messages")) list = messages;
  if (list->as_array() == nullptr)
    fail(ErrorCode::kMalformed, "{}: expected a list of messages, found {}", where, list->describe());
  std::vector<ChatMessage> messages;
  for (const Json& message : *list->as_array()) {
    const std::string place = fmt::format("{}: message {}", where, messages.size());
    if (message.as_object() == nullptr)
      fail(ErrorCode::kMalformed, "{}: expected an object, found {}", place, message.describe());
    messages.push_back(
        {require_string(message, "role", place), read_content(message, place), read_prefix(message, place)});
  }
  return messages;
}

std::string chat_messages_json(std::span<const ChatMessage> messages) {
  std::string text = "[";
  for (const ChatMessage& message : messages) {
    JsonWriter json;
    json.begin_object().field("role", message.role).field("content", message.content);
    if (message.prefix) json.field("prefix", true);
    text += (text.size() > 1 ? ",\n " : "\n ") + json.end_object().text();
  }
  return text + "\n]\n";
}

}  // namespace quern
