// POST /v1/responses as OpenAI has it, without what a server would have to keep, run or look up.
#pragma once

#include "cli/serve/completion_request.h"

namespace quern {

// Throws ApiError: 400 with the field.
CompletionRequest parse_responses_request(const Json& body, const RequestContext& context);

}  // namespace quern
