// Conversations as JSON: a list of {"role", "content"}.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/chat_format.h"

namespace quern {

// content: a string, or a list of {"type": "text", "text": ...}, whose texts are joined with a blank line;
// "prefix": true marks an answer to continue. A document {"messages": [...]} is taken too. Throws kMalformed
// "<where>: ..." for everything else.
std::vector<ChatMessage> parse_chat_messages(std::string_view json, const std::string& where);

// The inverse, a message a line.
std::string chat_messages_json(std::span<const ChatMessage> messages);

}  // namespace quern
