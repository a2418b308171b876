// Conversations as JSON: a list of {"role", "content"}.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/json/json.h"
#include "runtime/chat_format.h"

namespace quern {

// content: a string, or a list of {"type": "text", "text": ...}, whose texts are joined with a blank line;
// "prefix": true marks an answer to continue. A document {"messages": [...]} is taken too. Throws kMalformed
// "<where>: ..." for everything else, calls of tools among it.
std::vector<ChatMessage> parse_chat_messages(std::string_view json, const std::string& where);

// Whether a member says something: it is there, and neither null, false nor an empty list or object.
bool is_given(const Json* value);
// Whether a message of the list calls tools.
bool calls_tools(const Json& messages);

// A list of messages that was parsed before; same errors, but calls of tools are the caller's to refuse.
std::vector<ChatMessage> chat_messages(const Json& list, const std::string& where);

// A conversation as the variables of a chat template: the members of an object, or {"messages": list} of a
// bare list. "add_generation_prompt" is true unless it is given. Throws kMalformed "<where>: ..." when
// "messages" is no list of objects.
Json::Object parse_chat_document(std::string_view json, const std::string& where);

// The inverse of parse_chat_messages, a message a line.
std::string chat_messages_json(std::span<const ChatMessage> messages);

}  // namespace quern
