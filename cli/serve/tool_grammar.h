// The language of answers that may call a request's tools, and what reads the calls back.
#pragma once

#include <optional>
#include <vector>

#include "cli/serve/constraint_request.h"
#include "cli/serve/tool_request.h"
#include "cli/tool_calls.h"

namespace quern {

// Answers that call tools; with Choice::kAuto those that do not, too, which are `text`, or anything. It
// refers to the request's JSON. Where a syntax has strings without quotes, those of "enum" and "const" are
// held to, and no other keyword that says something of strings; such a keyword of a strict tool is a 400.
Language tool_language(const ToolRequest& request, std::optional<Language> text);

// What the reader of such answers has to know; empty where the syntax says of itself what is a string.
std::vector<ToolSignature> tool_signatures(const ToolRequest& request);

}  // namespace quern
