// Ways of writing calls of tools, all of the table: what chat templates write is in the language that answers
// are held to and is read back, and so is whatever else is in that language.
#include "cli/tool_syntax.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <span>

#include "cli/serve/tool_grammar.h"
#include "cli/tool_calls.h"
#include "runtime/engine/grammar_json.h"
#include "runtime/engine/schema_document.h"
#include "runtime/template/chat_template.h"
#include "tests/runtime/engine/grammar_fixture.h"
#include "tests/support/paths.h"

namespace quern {
namespace {

constexpr std::string_view kParameters = R"({"type": "object", "properties": {
  "city": {"type": "string"}, "days": {"type": "integer"}, "in": {"$ref": "#/$defs/unit"},
  "also": {"type": "array", "items": {"type": "string"}}, "sure": {"type": "boolean"}},
  "required": ["city"], "$defs": {"unit": {"enum": ["C", "F"]}}})";
constexpr std::string_view kArguments =
    R"({"city":"Köln \"am\" <Rhein>","days":3,"in":"C","also":["</parameter>"],"sure":true})";

// Two calls, as the template writes them into a conversation (rendered with jinja2 3.1, but for what is left
// out there: a value of `also` that a template spells as Python does).
struct WrittenCalls {
  const char *syntax, *calls;
  const char* arguments = kArguments.data();
  const char* id = "";
};

#define JSON_ARGUMENTS \
  R"({"city": "Köln \"am\" <Rhein>", "days": 3, "in": "C", "also": ["</parameter>"], "sure": true})"
#define HERMES_CALL \
  "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": " JSON_ARGUMENTS "}\n</tool_call>"
#define JSON_CALL "{\"name\": \"get_weather\", \"arguments\": " JSON_ARGUMENTS "}"
#define JSON_CALL_WITH_ID(id) \
  "{\"name\": \"get_weather\", \"arguments\": " JSON_ARGUMENTS ", \"id\": \"" id "\"}"
#define COMMAND_OBJECT(id) \
  "    {\"tool_call_id\": \"" id "\", \"tool_name\": \"get_weather\", \"parameters\": " JSON_ARGUMENTS "}"
#define QWEN_CALL                                                                               \
  "<tool_call>\n<function=get_weather>\n<parameter=city>\nKöln \"am\" <Rhein>\n</parameter>\n" \
  "<parameter=days>\n3\n</parameter>\n<parameter=in>\nC\n</parameter>\n<parameter=also>\n"      \
  "[\"</parameter>\"]\n</parameter>\n<parameter=sure>\ntrue\n</parameter>\n</function>\n</tool_call>"
#define SEED_CALL                                                                                \
  "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Köln \"am\" <Rhein></parameter>\n" \
  "<parameter=days>3</parameter>\n</function>\n</seed:tool_call>"
#define GLM_CALL                                                                                         \
  "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Köln \"am\" <Rhein></arg_value>\n"       \
  "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n<arg_key>in</arg_key>\n<arg_value>C</arg_value>\n" \
  "<arg_key>also</arg_key>\n<arg_value>[\"</parameter>\"]</arg_value>\n<arg_key>sure</arg_key>\n"        \
  "<arg_value>true</arg_value>\n</tool_call>"
#define GLM47_CALL                                                                           \
  "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Köln \"am\" <Rhein></arg_value>" \
  "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>"
#define HUNYUAN_CALL                                                                                        \
  "<tool_call:opensource>get_weather<tool_sep:opensource>\n<arg_key:opensource>city</arg_key:opensource>\n" \
  "<arg_value:opensource>Köln \"am\" <Rhein></arg_value:opensource>\n"                                     \
  "<arg_key:opensource>days</arg_key:opensource>\n<arg_value:opensource>3</arg_value:opensource>\n"         \
  "</tool_call:opensource>"
#define MINIMAX_CALL                                                                                     \
  "<invoke name=\"get_weather\">\n<parameter name=\"city\">Köln \"am\" <Rhein></parameter>\n"           \
  "<parameter name=\"days\">3</parameter>\n<parameter name=\"in\">C</parameter>\n"                       \
  "<parameter name=\"also\">[\"</parameter>\"]</parameter>\n<parameter name=\"sure\">true</parameter>\n" \
  "</invoke>"
#define DSML_CALL                                                                                                 \
  "<｜DSML｜invoke name=\"get_weather\">\n<｜DSML｜parameter name=\"city\" string=\"true\">Köln \"am\" "     \
  "<Rhein></｜DSML｜parameter>\n<｜DSML｜parameter name=\"days\" string=\"false\">3</｜DSML｜parameter>\n"  \
  "<｜DSML｜parameter name=\"in\" string=\"true\">C</｜DSML｜parameter>\n<｜DSML｜parameter name=\"also\" " \
  "string=\"false\">[\"</parameter>\"]</｜DSML｜parameter>\n<｜DSML｜parameter name=\"sure\" "                \
  "string=\"false\">true</｜DSML｜parameter>\n</｜DSML｜invoke>"
#define MINICPM_CALL                                                                             \
  "<function name=\"get_weather\"><param name=\"city\"><![CDATA[Köln \"am\" <Rhein>]]></param>" \
  "<param name=\"days\">3</param><param name=\"in\">C</param></function>"
#define R1_CALL                                                                      \
  "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n" JSON_ARGUMENTS \
  "\n```"                                                                            \
  "<｜tool▁call▁end｜>"
#define V31_CALL "<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>" JSON_ARGUMENTS "<｜tool▁call▁end｜>"
#define KIMI_CALL(n)                                                                          \
  "<|tool_call_begin|>functions.get_weather:" n "<|tool_call_argument_begin|>" JSON_ARGUMENTS \
  "<|tool_call_end|>"
#define GEMMA_CALL                                                                                      \
  "<|tool_call>call:get_weather{also:[<|\"|></parameter><|\"|>],city:<|\"|>Köln \"am\" <Rhein><|\"|>," \
  "days:3,in:<|\"|>C<|\"|>,sure:true}<tool_call|>"
#define LFM_CALL "get_weather(city='Köln \"am\" <Rhein>', days=3, in='C', also=['</parameter>'], sure=True)"
#define SOLAR_CALL                                                                             \
  "<|tool_call:begin|>call00001<|tool_call:name|>get_weather<|tool_call:args|>" JSON_ARGUMENTS \
  "<|tool_call:end|>"

constexpr const char* kTwo = R"({"city":"Köln \"am\" <Rhein>","days":3})";
constexpr const char* kThree = R"({"city":"Köln \"am\" <Rhein>","days":3,"in":"C"})";
const WrittenCalls kWrittenCalls[] = {
    {"hermes", HERMES_CALL "\n" HERMES_CALL},
    {"hermes", HERMES_CALL HERMES_CALL},
    {"mistral-list", "[TOOL_CALLS][" JSON_CALL_WITH_ID("call00001") ", " JSON_CALL_WITH_ID("call00001") "]",
     kArguments.data(), "call00001"},
    {"mistral-named",
     "[TOOL_CALLS]get_weather[CALL_ID]call00001[ARGS]" JSON_ARGUMENTS
     "[TOOL_CALLS]get_weather[CALL_ID]call00001[ARGS]" JSON_ARGUMENTS,
     kArguments.data(), "call00001"},
    {"mistral-named",
     "[TOOL_CALLS]get_weather[ARGS]" JSON_ARGUMENTS "[TOOL_CALLS]get_weather[ARGS]" JSON_ARGUMENTS},
    {"seed", SEED_CALL "\n" SEED_CALL, kTwo},
    {"qwen-xml", QWEN_CALL "\n" QWEN_CALL},
    {"qwen-xml", QWEN_CALL QWEN_CALL},
    {"glm", GLM_CALL "\n" GLM_CALL},
    {"glm", GLM47_CALL GLM47_CALL, kTwo},
    {"hunyuan", "<tool_calls:opensource>\n" HUNYUAN_CALL "\n" HUNYUAN_CALL "\n</tool_calls:opensource>",
     kTwo},
    {"minimax-xml", "<minimax:tool_call>\n" MINIMAX_CALL "\n" MINIMAX_CALL "\n</minimax:tool_call>"},
    {"deepseek-v3.2", "<｜DSML｜function_calls>\n" DSML_CALL "\n" DSML_CALL "\n</｜DSML｜function_calls>"},
    {"deepseek-v4", "<｜DSML｜tool_calls>\n" DSML_CALL "\n" DSML_CALL "\n</｜DSML｜tool_calls>"},
    {"minicpm", MINICPM_CALL "\n" MINICPM_CALL, kThree},
    {"functionary", "<function=get_weather>" JSON_ARGUMENTS "</function><function=get_weather>" JSON_ARGUMENTS
                    "</function>"},
    {"gemma", GEMMA_CALL GEMMA_CALL,
     R"({"also":["</parameter>"],"city":"Köln \"am\" <Rhein>","days":3,"in":"C","sure":true})"},
    {"lfm", "<|tool_call_start|>[" LFM_CALL ", " LFM_CALL "]<|tool_call_end|>"},
    {"lfm",
     "<|tool_call_start|>[get_weather(city=\"K\\u00f6ln \\\"am\\\" <Rhein>\",days=3), "
     "get_weather(city='K\u00f6ln \"am\" <Rhein>', days=3)]<|tool_call_end|>",
     kTwo},
    {"kimi", "<|tool_calls_section_begin|>" KIMI_CALL("0") KIMI_CALL("0") "<|tool_calls_section_end|>",
     kArguments.data(), "functions.get_weather:0"},
    {"solar", "<|tool_calls|>" SOLAR_CALL SOLAR_CALL, kArguments.data(), "call00001"},
    {"deepseek-r1", "<｜tool▁calls▁begin｜>" R1_CALL "\n" R1_CALL "<｜tool▁calls▁end｜>"},
    {"deepseek-v3.1", "<｜tool▁calls▁begin｜>" V31_CALL V31_CALL "<｜tool▁calls▁end｜>"},
    {"command", "<|START_ACTION|>[\n" COMMAND_OBJECT("0") ",\n" COMMAND_OBJECT("0") "\n]<|END_ACTION|>",
     kArguments.data(), "0"},
    {"apriel",
     "<tool_calls>[" JSON_CALL_WITH_ID("call00001") ", " JSON_CALL_WITH_ID("call00001") "]</tool_calls>",
     kArguments.data(), "call00001"},
    {"minimax-json", "<tool_calls>\n" JSON_CALL "\n" JSON_CALL "\n</tool_calls>"},
    {"nemotron", "<TOOLCALL>[" JSON_CALL ", " JSON_CALL "]</TOOLCALL>"},
    {"apertus", "<|tools_prefix|>[{\"get_weather\": " JSON_ARGUMENTS "}, {\"get_weather\": " JSON_ARGUMENTS
                "}]<|tools_suffix|>"},
    {"granite", "<|tool_call|>[" JSON_CALL ", " JSON_CALL "]"},
    {"gigachat", "<|function_call|>" JSON_CALL},
    {"llama", "{\"name\": \"get_weather\", \"parameters\": " JSON_ARGUMENTS "}"},
};

class ToolSyntaxes : public test::AConstraint {
 protected:
  ToolRequest request(const ToolSyntax& syntax, ToolRequest::Choice choice) const {
    ToolRequest request;
    request.syntax = &syntax;
    request.choice = choice;
    // Objects of any keys may have one twice, which our JSON refuses.
    const Json* wait = syntax.body == ToolSyntax::Body::kParameters ? nullptr : &wait_schema_;
    request.tools = {{"get_weather", "tools[0]", &schema_, false}, {"wait", "tools[1]", wait, false}};
    return request;
  }
  std::shared_ptr<const Constraint> language(const ToolRequest& request) const {
    GrammarBuilder builder("tools");
    const GrammarBuilder::Rule root = tool_language(request, std::nullopt).add(builder);
    return constraint(builder.finish(root));
  }
  static ToolCallSplitter::Parts read(const ToolRequest& request, std::string_view text, size_t piece) {
    ToolCallSplitter splitter(request.syntax, tool_signatures(request));
    ToolCallSplitter::Parts all;
    const auto add = [&](ToolCallSplitter::Parts parts) {
      all.text += parts.text;
      all.calls.insert(all.calls.end(), parts.calls.begin(), parts.calls.end());
    };
    for (size_t at = 0; at < text.size(); at += piece) add(splitter.push(text.substr(at, piece)));
    add(splitter.finish());
    return all;
  }
  static std::string compact(const std::string& json) { return compact_json(parse_json(json, "arguments")); }

  const Json schema_ = parse_json(kParameters, "a schema", kSchemaLimits);
  const Json wait_schema_ =
      parse_json(R"({"type": "object", "properties": {"seconds": {"type": "number"}}})", "a schema");
};

TEST_F(ToolSyntaxes, EachIsWrittenSomewhereBelow) {
  for (const ToolSyntax& syntax : tool_syntaxes())
    EXPECT_TRUE(std::any_of(std::begin(kWrittenCalls), std::end(kWrittenCalls), [&](const WrittenCalls& one) {
      return one.syntax == syntax.name;
    })) << syntax.name;
}

TEST_F(ToolSyntaxes, WhatTemplatesWriteIsTakenAndReadBackInAnyPieces) {
  for (const WrittenCalls& one : kWrittenCalls) {
    const ToolSyntax& syntax = *find_tool_syntax(one.syntax);
    const std::string calls = one.calls;
    for (const auto choice : {ToolRequest::Choice::kAuto, ToolRequest::Choice::kRequired}) {
      const auto answers = language(request(syntax, choice));
      const bool may_talk = choice == ToolRequest::Choice::kAuto;
      EXPECT_TRUE(takes(answers, calls)) << calls;
      EXPECT_EQ(takes(answers, "Well.\n\n" + calls), may_talk) << calls;
      EXPECT_EQ(takes(answers, "Well."), may_talk) << calls;
    }
    const ToolRequest asked = request(syntax, ToolRequest::Choice::kAuto);
    for (size_t piece = 1; piece <= calls.size(); piece += piece < 30 ? 1 : 37) {
      const std::string before = syntax.mark().empty() ? "" : "Well.";
      const ToolCallSplitter::Parts parts =
          read(asked, before.empty() ? calls : before + "\n\n" + calls, piece);
      EXPECT_EQ(parts.text, before) << calls << piece;
      ASSERT_EQ(parts.calls.size(), syntax.is_single ? 1u : 2u) << calls << piece;
      for (const ToolCall& call : parts.calls) {
        EXPECT_EQ(call.name, "get_weather");
        EXPECT_EQ(compact(call.arguments), compact(one.arguments)) << calls;
        EXPECT_EQ(call.id, one.id);
      }
    }
  }
}

// Of the templates that are known, those that calls cannot be read back from.
constexpr std::string_view kLeaveCallsOut[] = {"ibm-granite-granite-3.3-2B-Instruct.jinja",
                                               "LFM2-8B-A1B.jinja", "LFM2.5-Instruct.jinja"};
// In jinja2 too: one appends to a list, which a sandbox does not allow, one prints a generator.
constexpr std::string_view kRefuse[] = {"Kimi-K2-Instruct.jinja", "Kimi-K2-Thinking.jinja",
                                        "llama-cpp-deepseek-r1.jinja"};
bool is_among(std::span<const std::string_view> names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// What a template writes of calls in a conversation, as the server hands them over, and what stands behind
// it.
std::string written_calls(const std::string& source, const std::string& name, const ToolSyntax& syntax) {
  constexpr std::string_view kQuestion = "What is the weather there?";
  const std::string call =
      fmt::format(R"({{"id": "call00001", "type": "function", "function": {{"name": "get_weather",
                      "arguments": {}}}}})",
                  kThree);
  const Json variables = parse_json(
      fmt::format(R"({{"messages": [{{"role": "user", "content": "{}"}}, {{"role": "assistant", "content": "",
                      "tool_calls": [{}{}]}}], "bos_token": "<s>", "eos_token": "</s>", "tools": [
                      {{"type": "function", "function": {{"name": "get_weather", "description": "d",
                      "parameters": {}}}}}]}})",
                  kQuestion, call, syntax.is_single ? "" : ", " + call, kParameters),
      "variables", kSchemaLimits);
  std::string text =
      join_spans(ChatTemplate(source, name).render(*variables.as_object(), {}, *Clock::parse("2026-11-29")));
  text.erase(0, text.find(kQuestion) + kQuestion.size());
  text.erase(0, text.find(syntax.mark().empty() ? "{" : syntax.mark()));
  text.resize(text.find_last_not_of(" \n") + 1);
  return text;
}

TEST_F(ToolSyntaxes, WhatEachTemplateWritesIsTakenAndReadBack) {
  size_t n_known = 0, n_read = 0;
  for (const auto& file :
       std::filesystem::directory_iterator(test::unpacked_data("template_goldens/templates"))) {
    const std::string name = file.path().filename().string();
    std::ifstream in(file.path(), std::ios::binary);
    const std::string source{std::istreambuf_iterator<char>(in), {}};
    const ToolSyntax* const syntax = tool_syntax_of(source);
    if (syntax == nullptr) continue;
    ++n_known;
    SCOPED_TRACE(name);
    if (is_among(kRefuse, name)) {
      EXPECT_THROW(written_calls(source, name, *syntax), Error);
      continue;
    }
    std::string text = written_calls(source, name, *syntax);
    const ToolRequest asked = request(*syntax, ToolRequest::Choice::kRequired);
    const ToolCallSplitter::Parts parts = read(asked, text, 5);
    if (is_among(kLeaveCallsOut, name)) {
      EXPECT_EQ(text.find("get_weather"), text.npos) << text;
      continue;
    }
    ++n_read;
    EXPECT_EQ(parts.calls.size(), syntax->is_single ? 1u : 2u) << text;
    for (const ToolCall& call : parts.calls) {
      EXPECT_EQ(call.name, "get_weather");
      EXPECT_EQ(compact(call.arguments), compact(kThree)) << text;
    }
    ASSERT_TRUE(text.ends_with(parts.text)) << text;
    text.resize(text.size() - parts.text.size());
    EXPECT_TRUE(takes(language(asked), text)) << text;
  }
  EXPECT_EQ(n_known, 54u);
  EXPECT_EQ(n_read, 48u);
}

TEST_F(ToolSyntaxes, WhateverIsTakenIsReadBackAndKeepsToTheSchema) {
  std::mt19937 random(1);
  size_t n_calls = 0;
  for (const ToolSyntax& syntax : tool_syntaxes()) {
    const ToolRequest asked = request(syntax, ToolRequest::Choice::kRequired);
    const auto tools = language(asked), arguments = constraint(schema(kParameters));
    for (int i = 0; i < 8; ++i) {
      const std::string text = walk(tools, random);
      if (text.empty()) continue;
      const ToolCallSplitter::Parts parts = read(asked, text, 3);
      EXPECT_EQ(parts.text, "") << syntax.name << ": " << text;
      EXPECT_FALSE(parts.calls.empty()) << syntax.name << ": " << text;
      for (const ToolCall& call : parts.calls) {
        ++n_calls;
        if (call.name == "get_weather")
          EXPECT_TRUE(takes(arguments, compact(call.arguments))) << text << "\n" << call.arguments;
        else
          EXPECT_EQ(call.name, "wait") << text;
      }
    }
  }
  EXPECT_GT(n_calls, 50u);
}

TEST_F(ToolSyntaxes, ACallCutShortIsText) {
  for (const WrittenCalls& one : kWrittenCalls) {
    const ToolSyntax& syntax = *find_tool_syntax(one.syntax);
    const ToolRequest asked = request(syntax, ToolRequest::Choice::kAuto);
    const std::string cut = std::string(one.calls).substr(0, std::string(one.calls).find("Rhein"));
    const ToolCallSplitter::Parts parts = read(asked, cut, 4);
    EXPECT_EQ(parts.text, cut) << syntax.name;
    EXPECT_TRUE(parts.calls.empty()) << syntax.name;
  }
}

// Where a model writes strings without quotes the schema says what is one.
TEST_F(ToolSyntaxes, TextsAreOfTheKindThatTheSchemaSays) {
  const Json schema = parse_json(R"({"type": "object", "properties": {
      "text": {"type": "string"}, "maybe": {"type": ["string", "null"]}, "number": {"type": "number"},
      "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "list": {"type": "array"}}})",
                                 "a schema", kSchemaLimits);
  ToolRequest asked = request(*find_tool_syntax("qwen-xml"), ToolRequest::Choice::kAuto);
  asked.tools = {{"f", "tools[0]", &schema, false}};
  const auto value = [&](const std::string& name, const std::string& text) {
    const auto parts = read(
        asked,
        "<tool_call><function=f><parameter=" + name + ">\n" + text + "\n</parameter></function></tool_call>",
        7);
    return parts.calls.empty() ? "none" : compact(parts.calls[0].arguments);
  };
  EXPECT_EQ(value("text", "3"), R"({"text":"3"})");
  EXPECT_EQ(value("text", "  a\n\n b\n"), R"({"text":"  a\n\n b\n"})");
  EXPECT_EQ(value("text", "null"), R"({"text":"null"})");
  EXPECT_EQ(value("maybe", "null"), R"({"maybe":null})");
  EXPECT_EQ(value("maybe", "3"), R"({"maybe":"3"})");
  EXPECT_EQ(value("number", "3"), R"({"number":3})");
  EXPECT_EQ(value("number", "three"), R"({"number":"three"})");
  EXPECT_EQ(value("either", "3"), R"({"either":3})");
  EXPECT_EQ(value("either", "x"), R"({"either":"x"})");
  EXPECT_EQ(value("list", "[\"</parameter>\", 1]"), R"({"list":["</parameter>",1]})");
  EXPECT_EQ(value("unknown", "True"), R"({"unknown":true})");
  EXPECT_EQ(value("unknown", "{\"a\": [1]}"), R"({"unknown":{"a":[1]}})");
}

// Choices of choices, of which there are more ways than can be gone, and one that refers to itself.
TEST_F(ToolSyntaxes, TypesOfNestedChoicesAreFoundWithoutGoingEachWay) {
  std::string definitions =
      R"("d8": {"type": ["string", "null"]}, "self": {"anyOf": [{"$ref": "#/$defs/self"},
      {"type": "integer"}]})";
  for (int i = 0; i < 8; ++i) {
    std::string choices;
    for (int k = 0; k < 40; ++k)
      choices += fmt::format(R"({}{{"$ref": "#/$defs/d{}"}})", k > 0 ? ", " : "", i + 1);
    definitions += fmt::format(R"(, "d{}": {{"anyOf": [{}]}})", i, choices);
  }
  const Json schema = parse_json(fmt::format(R"({{"$defs": {{{}}}, "type": "object", "properties": {{
      "deep": {{"$ref": "#/$defs/d0"}}, "self": {{"$ref": "#/$defs/self"}}, "lost": {{"$ref": "#/nowhere"}}}}}})",
                                             definitions),
                                 "a schema", kSchemaLimits);
  ToolRequest asked = request(*find_tool_syntax("glm"), ToolRequest::Choice::kRequired);
  asked.tools = {{"f", "tools[0]", &schema, false}};
  const std::vector<ToolSignature> signatures = tool_signatures(asked);
  ASSERT_EQ(signatures.size(), 1u);
  using Parameters = std::vector<std::pair<std::string, unsigned>>;
  EXPECT_EQ(signatures[0].parameters,
            (Parameters{{"deep", kStringType | kNullType}, {"self", kIntegerType}, {"lost", kAnyType}}));
  const auto answers = language(asked);
  EXPECT_TRUE(takes(answers,
                    "<tool_call>f<arg_key>deep</arg_key><arg_value>3</arg_value><arg_key>lost</arg_key>"
                    "<arg_value>[1]</arg_value></tool_call>"));
  EXPECT_TRUE(tool_signatures(request(*find_tool_syntax("hermes"), ToolRequest::Choice::kAuto)).empty());
}

TEST_F(ToolSyntaxes, AStrictToolIsRefusedWhatItsTextsAreNotHeldTo) {
  const auto attempt = [&](const char* syntax, const char* properties) {
    const Json schema = parse_json(fmt::format(R"({{"type": "object", "properties": {}}})", properties),
                                   "a schema", kSchemaLimits);
    ToolRequest asked = request(*find_tool_syntax(syntax), ToolRequest::Choice::kRequired);
    asked.tools = {{"f", "tools[0]", &schema, true}};
    try {
      (void)language(asked);
      return std::string();
    } catch (const ApiError& error) {
      return std::string(error.what());
    }
  };
  const char *
      pattern = R"({"a": {"type": "string", "pattern": "x+"}})",
     *plain =
         R"({"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "string", "pattern": "x+"}}})";
  EXPECT_EQ(attempt("hermes", pattern), "");
  EXPECT_NE(attempt("qwen-xml", pattern).find("#/properties/a: pattern: "), std::string::npos);
  EXPECT_NE(attempt("glm", R"({"a": {"not": {}}})").find("#/properties/a: not: "), std::string::npos);
  EXPECT_EQ(attempt("qwen-xml", plain), "");
}

}  // namespace
}  // namespace quern
