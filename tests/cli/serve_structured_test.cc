// serve: answers held to schemas, grammars and tools, by a model that knows of none.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <thread>
#include <tuple>

#include "tests/cli/serve_fixture.h"

namespace quern::test {
namespace {

const char* const kPerson = R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 8},
    "age": {"type": "integer", "minimum": 0, "maximum": 120}, "kind": {"enum": ["king", "fool"]}},
    "required": ["name", "age", "kind"], "additionalProperties": false})";

Json json_schema_format(const std::string& schema) {
  return Json::parse(fmt::format(
      R"({{"type": "json_schema", "json_schema": {{"name": "x", "strict": true, "schema": {}}}}})", schema));
}

TEST_F(Serve, AnswersKeepToASchemaWhateverIsDrawn) {
  for (int seed = 0; seed < 8; ++seed) {
    const Json choice = chat(fmt::format(R"("seed": {}, "temperature": 1.5, "response_format": {})", seed,
                                         json_schema_format(kPerson).dump()))["choices"][0];
    const std::string text = choice["message"]["content"];
    EXPECT_EQ(choice["finish_reason"], "stop") << text;
    const Json person = Json::parse(text);
    EXPECT_EQ(person.size(), 3u) << text;
    EXPECT_GE(person["age"].get<int>(), 0) << text;
    EXPECT_LE(person["age"].get<int>(), 120) << text;
    EXPECT_TRUE(person["kind"] == "king" || person["kind"] == "fool") << text;
  }
  const std::string object = chat(
      R"("seed": 3, "max_tokens": 300, "response_format": {"type": "json_object"})")["choices"][0]["message"]
                                                                                    ["content"];
  EXPECT_TRUE(object.starts_with("{")) << object;
}

TEST_F(Serve, OtherServersWordsForAConstraintMeanTheSame) {
  const auto answer = [](const std::string& constraint) {
    return chat(R"("seed": 5, "max_tokens": 200, )" + constraint)["choices"];
  };
  const std::string quoted = Json(kPerson).dump();
  const Json by_format = answer(R"("response_format": )" + json_schema_format(kPerson).dump());
  for (const std::string& same :
       {fmt::format(R"("guided_json": {})", kPerson), fmt::format(R"("json_schema": {})", kPerson),
        fmt::format(R"("json_schema": {})", quoted),
        fmt::format(R"("structured_outputs": {{"json": {}}})", kPerson),
        fmt::format(R"("response_format": {{"type": "json_object", "schema": {}}})", kPerson)})
    EXPECT_EQ(answer(same), by_format) << same;
  const auto text = [&](const std::string& constraint) {
    const Json choices = answer(constraint);
    EXPECT_EQ(choices[0]["finish_reason"], "stop");
    return choices[0]["message"]["content"].get<std::string>();
  };
  const std::string choice = text(R"("guided_choice": ["thou", "you"])");
  EXPECT_TRUE(choice == "thou" || choice == "you") << choice;
  EXPECT_EQ(text(R"("structured_outputs": {"choice": ["thou", "you"]})"), choice);
  for (const char* name : {"guided_regex", "regex"}) {
    const std::string digits = text(fmt::format(R"("{}": "[0-9]{{3}}-[a-f]")", name));
    EXPECT_EQ(digits.size(), 5u) << digits;
    EXPECT_EQ(digits.find_first_not_of("0123456789-abcdef"), std::string::npos) << digits;
  }
  for (const char* name : {"guided_grammar", "grammar", "ebnf"})
    EXPECT_EQ(text(fmt::format(R"("{}": "root ::= \"to be\" [!]{{2}}")", name)), "to be!!");
  const Json completion = complete(R"("max_tokens": 50, "grammar": "root ::= \" \"? \"no\"")")["choices"][0];
  EXPECT_TRUE(completion["text"].get<std::string>().ends_with("no")) << completion;
  EXPECT_EQ(completion["finish_reason"], "stop");
  EXPECT_EQ(chat(R"("max_tokens": 2, "regex": "[a-z]{30}")")["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(chat(R"("max_tokens": 1, "grammar": "", "regex": null)")["object"], "chat.completion");
}

TEST_F(Serve, WhatCannotBeKeptIsRefusedWithItsPlace) {
  const std::tuple<std::string, const char*, const char*> kBad[] = {
      {R"("response_format": )" + json_schema_format(R"({"properties": {"a": {"not": {}}}})").dump(),
       "response_format.json_schema.schema", "#/properties/a: not:"},
      {R"("response_format": {"type": "json_schema"})", "response_format.json_schema", "missing"},
      {R"("response_format": {"type": "xml"})", "response_format.type", "xml"},
      {R"("guided_json": "{")", "guided_json", "JSON"},
      {R"("guided_json": 5)", "guided_json", "expected a schema"},
      {R"("grammar": "root ::= x")", "grammar", "line 1: there is no rule 'x'"},
      {R"("grammar": "root ::= root \"a\" | \"b\"")", "grammar", "left recursion"},
      {R"("grammar": 5)", "grammar", "expected a string"},
      {R"x("regex": "(?=a)")x", "regex", "(?"},
      {R"("guided_choice": [])", "guided_choice", "expected a list"},
      {R"("guided_choice": [1])", "guided_choice", "expected texts"},
      {R"("structured_outputs": {"structural_tag": {}})", "structured_outputs.structural_tag",
       "not supported"},
      {R"("guided_whitespace_pattern": "x")", "guided_whitespace_pattern", "not supported"},
      {R"("regex": "a", "grammar": "root ::= \"a\"")", "grammar", "only one constraint"},
  };
  for (const auto& [constraint, param, words] : kBad) {
    const Json error = chat(constraint, 400)["error"];
    EXPECT_EQ(error["param"], param) << constraint;
    EXPECT_NE(error["message"].get<std::string>().find(words), std::string::npos) << error;
  }
  const Reply reply = message(R"("max_tokens": 9, "output_config": {"format": {"type": "json_schema",
                                 "schema": {"if": {}}}})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_NE(reply.body.find("output_config.format.schema: #: if:"), std::string::npos) << reply.body;
  const Json kept = Json::parse(message(fmt::format(R"("max_tokens": 200, "output_config": {{"format":
                        {{"type": "json_schema", "schema": {}}}}})",
                                                    kPerson))
                                    .body);
  EXPECT_EQ(Json::parse(kept["content"][0]["text"].get<std::string>()).size(), 3u);
}

TEST_F(Serve, HeldAnswersAreTheSameInCompany) {
  const std::string held =
      fmt::format(R"("seed": 11, "n": 2, "response_format": {})", json_schema_format(kPerson).dump());
  const Json alone = chat(held)["choices"];
  std::vector<std::string> others(6);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < others.size(); ++i)
    threads.emplace_back([&, i] {
      others[i] =
          (i % 2 == 0 ? chat(held) : chat(fmt::format(R"("seed": {}, "max_tokens": 20)", i)))["choices"]
              .dump();
    });
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < others.size(); i += 2) EXPECT_EQ(others[i], alone.dump());
}

// As Qwen's writes tools and calls, in short.
const char* const kTemplate =
    R"({% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %} <tool_call>{"name": ...}{% endif %})"
    R"({% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>)"
    R"({{ c.function.arguments | tojson }}{{ c.id }}{% endfor %}{% endfor %} assistant:)";
const char* const kTools =
    R"([{"type": "function", "function": {"name": "weather", "description": "d", "strict": true, "parameters":
        {"type": "object", "properties": {"city": {"enum": ["Rome", "Verona"]}}, "required": ["city"]}}},
        {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties":
        {"zone": {"const": "UTC"}}}}}])";

class ServeTools : public ServeAlone {
 protected:
  explicit ServeTools(const char* text = kTemplate)
      : server_(model_, {"--template", folder_.write("tools.jinja", text), "--slots", "2"}) {}
  Json ask(const std::string& more, int status = 200) {
    const Reply reply = post(server_.port(), "/v1/chat/completions",
                             fmt::format(R"({{"messages": [{{"role": "user", "content": "Hi"}}], "seed": 1,
                                             "max_tokens": 300, {}}})",
                                         more));
    EXPECT_EQ(reply.status, status) << reply.body;
    return Json::parse(reply.body);
  }

  Server server_;
};

TEST_F(ServeTools, CallsComeInOpenAIsForm) {
  const std::string tools = fmt::format(R"("tools": {})", kTools);
  const Json choice = ask(tools + R"(, "tool_choice": {"type": "function", "function": {"name": "weather"}},
                                     "parallel_tool_calls": false)")["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls") << choice;
  EXPECT_TRUE(choice["message"]["content"].is_null()) << choice;
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u);
  const Json call = choice["message"]["tool_calls"][0];
  EXPECT_EQ(call["type"], "function");
  EXPECT_EQ(call["id"].get<std::string>().size(), 9u);
  EXPECT_EQ(call["function"]["name"], "weather");
  const Json arguments = Json::parse(call["function"]["arguments"].get<std::string>());
  EXPECT_TRUE(arguments["city"] == "Rome" || arguments["city"] == "Verona") << arguments;

  const std::string required = tools + R"(, "tool_choice": "required", "parallel_tool_calls": false)";
  const Json any = ask(required)["choices"][0]["message"]["tool_calls"];
  ASSERT_EQ(any.size(), 1u);
  const Reply stream =
      post(server_.port(), "/v1/chat/completions",
           fmt::format(R"({{"messages": [{{"role": "user", "content": "Hi"}}], "seed": 1, "max_tokens": 300,
                           "stream": true, {}}})",
                       required));
  std::string name, streamed, end;
  for (const Json& event : events_of(stream.body)) {
    if (event.is_string()) continue;
    const Json& one = event["choices"][0];
    if (one["delta"].contains("tool_calls")) {
      const Json& delta = one["delta"]["tool_calls"][0];
      EXPECT_EQ(delta["index"], 0);
      name += delta["function"]["name"].get<std::string>();
      streamed += delta["function"]["arguments"].get<std::string>();
    }
    if (!one["finish_reason"].is_null()) end = one["finish_reason"].get<std::string>();
  }
  EXPECT_EQ(end, "tool_calls") << stream.body;
  EXPECT_EQ(name, any[0]["function"]["name"]);
  EXPECT_EQ(streamed, any[0]["function"]["arguments"]);
}

// The same of a template whose model writes arguments as texts of their own, as Qwen 3 Coder's.
class ServeXmlTools : public ServeTools {
 protected:
  ServeXmlTools()
      : ServeTools("{{ tools | tojson }} <tool_call><function=f><parameter=p>{{ messages[0].content }}:") {}
};

TEST_F(ServeXmlTools, CallsComeInOpenAIsForm) {
  const std::string tools =
      R"("tools": [{"type": "function", "function": {"name": "weather", "strict": true, "parameters":
          {"type": "object", "properties": {"city": {"enum": ["Rome", "Verona"]},
          "days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["city", "days"]}}}],
         "tool_choice": "required", "parallel_tool_calls": false)";
  const Json choice = ask(tools)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls") << choice;
  EXPECT_TRUE(choice["message"]["content"].is_null()) << choice;
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u);
  const Json function = choice["message"]["tool_calls"][0]["function"];
  EXPECT_EQ(function["name"], "weather");
  const Json arguments = Json::parse(function["arguments"].get<std::string>());
  EXPECT_TRUE(arguments["city"] == "Rome" || arguments["city"] == "Verona") << arguments;
  EXPECT_EQ(arguments["days"].dump().size(), 1u) << arguments;  // a number, without quotes
  const Reply stream = post(server_.port(), "/v1/chat/completions",
                            fmt::format(R"({{"messages": [{{"role": "user", "content": "Hi"}}], "seed": 1,
                                            "max_tokens": 300, "stream": true, {}}})",
                                        tools));
  std::string streamed;
  for (const Json& event : events_of(stream.body))
    if (!event.is_string() && event["choices"][0]["delta"].contains("tool_calls"))
      streamed += event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].get<std::string>();
  EXPECT_EQ(streamed, function["arguments"]);
  EXPECT_NE(stream.body.find(R"("finish_reason":"tool_calls")"), std::string::npos) << stream.body;

  const Json refused = ask(R"("tools": [{"type": "function", "function": {"name": "f", "strict": true,
      "parameters": {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}}}])",
                           400)["error"];
  EXPECT_EQ(refused["param"], "tools[0].function.parameters") << refused;
}

// And of one whose model writes them in a notation that is not JSON's, as LFM2.
class ServePythonTools : public ServeTools {
 protected:
  ServePythonTools()
      : ServeTools("<|im_start|>List of tools: {{ tools | tojson }}{{ messages[0].content }}:") {}
};

TEST_F(ServePythonTools, CallsComeInOpenAIsForm) {
  const std::string tools =
      R"("tools": [{"type": "function", "function": {"name": "weather", "strict": true, "parameters":
          {"type": "object", "properties": {"city": {"enum": ["Rome", "L'Aquila"]}, "days": {"type": "array",
          "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2}}, "required": ["city", "days"]}}}],
         "tool_choice": "required", "parallel_tool_calls": false)";
  const Json choice = ask(tools)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls") << choice;
  EXPECT_TRUE(choice["message"]["content"].is_null()) << choice;
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u);
  const Json function = choice["message"]["tool_calls"][0]["function"];
  EXPECT_EQ(function["name"], "weather");
  const Json arguments = Json::parse(function["arguments"].get<std::string>());
  EXPECT_TRUE(arguments["city"] == "Rome" || arguments["city"] == "L'Aquila") << arguments;
  const std::string day = arguments["days"][0].dump();
  EXPECT_TRUE(day == "true" || day == "false") << arguments;

  const Json refused = ask(R"("tools": [{"type": "function", "function": {"name": "f", "strict": true,
      "parameters": {"type": "object", "properties": {"a b": {"type": "string"}}}}}])",
                           400)["error"];
  EXPECT_EQ(refused["param"], "tools[0].function.parameters") << refused;
}

TEST_F(ServeTools, WithoutACallTheAnswerIsText) {
  const std::string tools = fmt::format(R"("tools": {}, )", kTools);
  const Json free = ask(tools + R"("tool_choice": "auto", "max_completion_tokens": 10)")["choices"][0];
  EXPECT_TRUE(free["message"]["content"].get<std::string>().size() > 3) << free;
  EXPECT_FALSE(free["message"].contains("tool_calls"));
  const Json none = ask(tools + R"("tool_choice": "none", "max_completion_tokens": 10)")["choices"];
  EXPECT_EQ(none, ask(R"("max_completion_tokens": 10)")["choices"]) << "the template does not hear of them";
  const Json cut = ask(tools + R"("tool_choice": "required", "max_completion_tokens": 10)")["choices"][0];
  EXPECT_EQ(cut["finish_reason"], "length");
  EXPECT_FALSE(cut["message"].contains("tool_calls")) << cut;
}

TEST_F(ServeTools, WrongToolsAreRefusedWithTheirPlace) {
  const std::pair<const char*, const char*> kBad[] = {
      {R"("tools": 5)", "tools"},
      {R"("tools": [{"type": "web_search"}])", "tools[0].type"},
      {R"("tools": [{"type": "function"}])", "tools[0].function"},
      {R"("tools": [{"type": "function", "function": {"name": "a b"}}])", "tools[0].function.name"},
      {R"("tools": [{"type": "function", "function": {"name": "a", "parameters": 5}}])",
       "tools[0].function.parameters"},
      {R"("tools": [{"type": "function", "function": {"name": "a", "strict": true, "parameters": {"not": {}}}}])",
       "tools[0].function.parameters"},
      {R"("tools": [{"type": "function", "function": {"name": "a"}}, {"type": "function", "function": {"name": "a"}}])",
       "tools[1].function.name"},
      {R"("tools": [{"type": "function", "function": {"name": "a"}}], "tool_choice": "any")", "tool_choice"},
      {R"("tools": [{"type": "function", "function": {"name": "a"}}],
          "tool_choice": {"type": "function", "function": {"name": "b"}})",
       "tool_choice.function.name"},
      {R"("tool_choice": "required")", "tool_choice"},
      {R"("functions": [{"name": "a"}])", "functions"},
  };
  for (const auto& [fields, param] : kBad) EXPECT_EQ(ask(fields, 400)["error"]["param"], param) << fields;
}

TEST_F(ServeTools, CallsComeInAnthropicsFormAndResultsGoBack) {
  const std::string tools = R"("tools": [{"name": "weather", "input_schema": {"type": "object", "properties":
      {"city": {"enum": ["Rome"]}}, "required": ["city"]}}], "tool_choice": {"type": "any",
      "disable_parallel_tool_use": true}, "seed": 1, "max_tokens": 300)";
  const std::string messages = R"("messages": [{"role": "user", "content": "Hi"}])";
  const Json answer =
      Json::parse(post(server_.port(), "/v1/messages", fmt::format("{{{}, {}}}", messages, tools)).body);
  EXPECT_EQ(answer["stop_reason"], "tool_use") << answer;
  ASSERT_EQ(answer["content"].size(), 1u) << answer;
  const Json block = answer["content"][0];
  EXPECT_EQ(block["type"], "tool_use");
  EXPECT_EQ(block["name"], "weather");
  EXPECT_EQ(block["input"]["city"], "Rome");

  const Reply stream =
      post(server_.port(), "/v1/messages", fmt::format("{{{}, {}, \"stream\": true}}", messages, tools));
  for (const char* part : {"\"type\":\"tool_use\"", "input_json_delta", "\"stop_reason\":\"tool_use\""})
    EXPECT_NE(stream.body.find(part), std::string::npos) << part << stream.body;

  const std::string back = fmt::format(
      R"({{"messages": [{{"role": "user", "content": "Hi"}}, {{"role": "assistant", "content": [{}]}},
          {{"role": "user", "content": [{{"type": "tool_result", "tool_use_id": "{}", "content": "rain"}},
                                        {{"type": "text", "text": "So?"}}]}}], "max_tokens": 5, {}}})",
      block.dump(), block["id"].get<std::string>(), tools.substr(0, tools.find(", \"tool_choice\"")));
  const Reply reply = post(server_.port(), "/v1/messages", back);
  EXPECT_EQ(reply.status, 200) << reply.body;
  const Reply shown =
      post(server_.port(), "/apply-template",
           R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null,
                               "tool_calls": [{"id": "abcdefghi", "type": "function", "function": {"name": "f",
                               "arguments": "{\"a\": 1}"}}]}, {"role": "tool", "content": "rain", "tool_call_id":
                               "abcdefghi"}]})");
  EXPECT_NE(shown.body.find(R"(<tool_call>{\"a\": 1}abcdefghitool: rain)"), std::string::npos) << shown.body;
}

}  // namespace
}  // namespace quern::test
