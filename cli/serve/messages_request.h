// Requests of Anthropic's protocol for messages.
#pragma once

#include <vector>

#include "cli/serve/completion_request.h"

namespace quern {

// POST /v1/messages. Throws ApiError: 400 with the field.
CompletionRequest parse_messages_request(const Json& body, const RequestContext& context);
// POST /v1/messages/count_tokens: the prompt that these messages are. Throws likewise.
std::vector<TokenId> parse_messages_prompt(const Json& body, const RequestContext& context);

}  // namespace quern
