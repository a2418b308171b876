#include "cli/serve/tool_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace quern {
namespace {

constexpr size_t kMaxTools = 128;
constexpr size_t kMaxNameBytes = 64;

void check_name(const std::string& name, const std::string& param, const std::vector<Tool>& others) {
  const bool known_chars = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
  if (name.empty() || name.size() > kMaxNameBytes || !known_chars)
    refuse(param, fmt::format("{}: expected at most {} letters, digits, '_', '-' and '.', found '{}'", param,
                              kMaxNameBytes, printable(name)));
  if (std::any_of(others.begin(), others.end(), [&](const Tool& tool) { return tool.name == name; }))
    refuse(param, fmt::format("{}: '{}' is there twice", param, name));
}

const Json::Array* tool_list(RequestFields& fields) {
  const Json* value = fields.find("tools");
  if (value == nullptr) return nullptr;
  const std::string param = fields.param("tools");
  if (value->as_array() == nullptr || value->size() > kMaxTools)
    refuse(param, fmt::format("{}: expected a list of at most {} tools, found {}", param, kMaxTools,
                              value->describe()));
  return value->as_array();
}

// A schema of arguments: of an object, or nothing.
const Json* parameters_of(const Json* value, const std::string& param) {
  if (value == nullptr) return nullptr;
  if (value->as_object() == nullptr)
    refuse(param, fmt::format("{}: expected a JSON schema, found {}", param, value->describe()));
  if (value->size() == 0) return nullptr;
  const Json* type = value->find("type");
  if (type != nullptr && (type->as_string() == nullptr || *type->as_string() != "object"))
    refuse(param, fmt::format("{}: expected the type \"object\", found {}", param, type->describe()));
  return value;
}

void keep_only(ToolRequest* request, const std::string& name, const std::string& param) {
  std::erase_if(request->tools, [&](const Tool& tool) { return tool.name != name; });
  if (request->tools.empty()) refuse(param, fmt::format("{}: there is no tool '{}'", param, printable(name)));
  request->choice = ToolRequest::Choice::kRequired;
}

// "none", "auto" or "required".
void choose(ToolRequest* request, const std::string& word, const std::string& param) {
  if (word != "none" && word != "auto" && word != "required")
    refuse_word(param, "\"none\", \"auto\", \"required\" or a function", word);
  if (word == "required" && request->tools.empty()) refuse(param, param + ": there are no tools");
  request->choice = word == "none"   ? ToolRequest::Choice::kNone
                    : word == "auto" ? ToolRequest::Choice::kAuto
                                     : ToolRequest::Choice::kRequired;
}

void require_function(RequestFields& fields) {
  if (const std::string type = fields.required_text("type"); type != "function")
    refuse_word(fields.param("type"), "\"function\"", type);
}

// What stands in "function", of a tool or of a choice.
RequestFields function_of(RequestFields& fields) {
  require_function(fields);
  return RequestFields(fields.required("function"), fields.param("function"));
}

// As OpenAI's conversations have it.
Json function_tool(const std::string& name, const std::string& description, const Json* schema) {
  Json::Object function = {{"name", Json(name)}, {"description", Json(description)}};
  function.push_back({"parameters", schema != nullptr ? *schema : Json(Json::Object{})});
  return Json(Json::Object{{"type", Json(std::string("function"))}, {"function", Json(function)}});
}

// Adds what `fields` say of a tool whose schema is called `schema_name` there. shown: gets it as OpenAI's
// conversations have it; null: it stands there in that form already.
void add_tool(RequestFields& fields, std::string_view schema_name, ToolRequest* request, Json::Array* shown) {
  const std::string name = fields.required_text("name");
  const std::string description = shown != nullptr ? fields.text("description").value_or("") : "";
  check_name(name, fields.param("name"), request->tools);
  const std::string param = fields.param(schema_name);
  const Json* schema = fields.find(schema_name);
  request->tools.push_back({name, param, parameters_of(schema, param), fields.boolean("strict", false)});
  if (shown != nullptr) shown->push_back(function_tool(name, description, schema));
}

// What the protocols have of their own.
struct Protocol {
  const char* several;  // the field beside "tools" that allows several calls in one answer; null: none
  void (*add_tool)(const Json& tool, const std::string& param, ToolRequest* request, Json::Array* shown);
  void (*choose)(const Json& choice, const std::string& param, ToolRequest* request);
};

void add_openai_tool(const Json& tool, const std::string& param, ToolRequest* request, Json::Array* shown) {
  RequestFields fields(tool, param);
  RequestFields function = function_of(fields);
  add_tool(function, "parameters", request, nullptr);
  shown->push_back(tool);
}

void choose_openai_tool(const Json& choice, const std::string& param, ToolRequest* request) {
  if (const std::string* word = choice.as_string()) return choose(request, *word, param);
  RequestFields fields(choice, param);
  RequestFields function = function_of(fields);
  keep_only(request, function.required_text("name"), function.param("name"));
}

void add_responses_tool(const Json& tool, const std::string& param, ToolRequest* request,
                        Json::Array* shown) {
  RequestFields fields(tool, param);
  require_function(fields);
  add_tool(fields, "parameters", request, shown);
}

void choose_responses_tool(const Json& choice, const std::string& param, ToolRequest* request) {
  if (const std::string* word = choice.as_string()) return choose(request, *word, param);
  RequestFields fields(choice, param);
  if (fields.required_text("type") != "allowed_tools") {
    require_function(fields);
    return keep_only(request, fields.required_text("name"), fields.param("name"));
  }
  std::vector<std::string> names;
  const Json::Array& allowed = fields.required_list("tools");
  for (size_t i = 0; i < allowed.size(); ++i) {
    RequestFields one(allowed[i], fmt::format("{}[{}]", fields.param("tools"), i));
    require_function(one);
    names.push_back(one.required_text("name"));
  }
  std::erase_if(request->tools, [&](const Tool& tool) {
    return std::find(names.begin(), names.end(), tool.name) == names.end();
  });
  choose(request, fields.required_text("mode"), fields.param("mode"));
}

void add_anthropic_tool(const Json& tool, const std::string& param, ToolRequest* request,
                        Json::Array* shown) {
  RequestFields fields(tool, param);
  if (const auto type = fields.text("type"); type && *type != "custom")
    refuse(fields.param("type"), fmt::format("{}: '{}' is not run here; expected \"custom\"",
                                             fields.param("type"), printable(*type)));
  add_tool(fields, "input_schema", request, shown);
}

void choose_anthropic_tool(const Json& choice, const std::string& param, ToolRequest* request) {
  RequestFields fields(choice, param);
  const std::string type = fields.required_text("type");
  request->several = !fields.boolean("disable_parallel_tool_use", false);
  if (type == "none" || type == "auto")
    choose(request, type, fields.param("type"));
  else if (type == "any")
    choose(request, "required", fields.param("type"));
  else if (type == "tool")
    keep_only(request, fields.required_text("name"), fields.param("name"));
  else
    refuse_word(fields.param("type"), "\"auto\", \"any\", \"tool\" or \"none\"", type);
}

std::string no_syntax() {
  std::string models;
  for (const ToolSyntax& one : tool_syntaxes())
    models += fmt::format("{}{}", models.empty() ? "" : ", ", one.models);
  return fmt::format(
      "tools: the model's chat template has none, or its model writes calls in a way that is not read here "
      "(read are those of {})",
      models);
}

ToolRequest parse(RequestFields& fields, const Protocol& protocol, const ToolSyntax* syntax,
                  std::optional<Json>* shown) {
  ToolRequest request;
  request.syntax = syntax;
  const Json::Array* list = tool_list(fields);
  Json::Array openai;
  for (size_t i = 0; list != nullptr && i < list->size(); ++i)
    protocol.add_tool((*list)[i], fmt::format("tools[{}]", i), &request, &openai);
  if (protocol.several != nullptr) request.several = fields.boolean(protocol.several, true);
  if (const Json* choice = fields.find("tool_choice"))
    protocol.choose(*choice, fields.param("tool_choice"), &request);
  if (!request.active()) return request;
  if (syntax == nullptr) refuse("tools", no_syntax());
  *shown = Json(std::move(openai));
  return request;
}

}  // namespace

ToolRequest parse_tools(RequestFields& fields, const ToolSyntax* syntax, std::optional<Json>* shown) {
  return parse(fields, {"parallel_tool_calls", add_openai_tool, choose_openai_tool}, syntax, shown);
}

ToolRequest parse_responses_tools(RequestFields& fields, const ToolSyntax* syntax,
                                  std::optional<Json>* shown) {
  return parse(fields, {"parallel_tool_calls", add_responses_tool, choose_responses_tool}, syntax, shown);
}

ToolRequest parse_anthropic_tools(RequestFields& fields, const ToolSyntax* syntax,
                                  std::optional<Json>* shown) {
  return parse(fields, {nullptr, add_anthropic_tool, choose_anthropic_tool}, syntax, shown);
}

}  // namespace quern
