// Tools of a request, and the language of answers that may call them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/serve/constraint_request.h"
#include "cli/tool_calls.h"

namespace quern {

struct Tool {
  std::string name, param;  // param: of the request, for errors
  const Json* parameters;   // a schema of its arguments; null: any
  bool strict = false;      // a schema that cannot be kept to is refused; else its arguments are any object
};

struct ToolRequest {
  enum class Choice : uint8_t { kNone, kAuto, kRequired };

  ToolFormat format = ToolFormat::kNone;
  std::vector<Tool> tools;  // that may be called
  Choice choice = Choice::kAuto;
  bool several = true;  // calls in one answer

  bool active() const { return choice != Choice::kNone && !tools.empty(); }
};

// "tools", "tool_choice" and "parallel_tool_calls" as OpenAI has them. format: of the model's template.
// shown: the list for the template, unless no tool may be called. Throws ApiError 400.
ToolRequest parse_tools(RequestFields& fields, ToolFormat format, std::optional<Json>* shown);
// The same of responses, whose functions stand without a "function" around them.
ToolRequest parse_responses_tools(RequestFields& fields, ToolFormat format, std::optional<Json>* shown);
// The same as Anthropic has them.
ToolRequest parse_anthropic_tools(RequestFields& fields, ToolFormat format, std::optional<Json>* shown);

// Answers that call tools; with Choice::kAuto those that do not, too, which are `text`, or anything. It
// refers to the request's JSON.
Language tool_language(const ToolRequest& request, std::optional<Language> text);

}  // namespace quern
