// Tools of a request, as the protocols have them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/serve/request_fields.h"
#include "cli/tool_syntax.h"

namespace quern {

struct Tool {
  std::string name, param;  // param: of the request, for errors
  const Json* parameters;   // a schema of its arguments; null: any
  bool strict = false;      // a schema that cannot be kept to is refused; else its arguments are any object
};

struct ToolRequest {
  enum class Choice : uint8_t { kNone, kAuto, kRequired };

  const ToolSyntax* syntax = nullptr;
  std::vector<Tool> tools;  // that may be called
  Choice choice = Choice::kAuto;
  bool several = true;  // calls in one answer

  bool active() const { return choice != Choice::kNone && !tools.empty(); }
};

// "tools", "tool_choice" and "parallel_tool_calls" as OpenAI has them. syntax: of the model's template; null:
// none. shown: the list for the template, unless no tool may be called. Throws ApiError 400.
ToolRequest parse_tools(RequestFields& fields, const ToolSyntax* syntax, std::optional<Json>* shown);
// The same of responses, whose functions stand without a "function" around them.
ToolRequest parse_responses_tools(RequestFields& fields, const ToolSyntax* syntax,
                                  std::optional<Json>* shown);
// The same as Anthropic has them.
ToolRequest parse_anthropic_tools(RequestFields& fields, const ToolSyntax* syntax,
                                  std::optional<Json>* shown);

}  // namespace quern
