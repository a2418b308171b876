// serve: OpenAI's responses, on a process of its own.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cli/serve_fixture.h"

namespace quern::test {
namespace {

class ServeResponses : public Serve {
 protected:
  static Reply respond(const std::string& fields) {
    return post(port(), "/v1/responses", "{" + fields + "}");
  }
  static Json answer_to(const std::string& fields) {
    const Reply reply = respond(fields);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return Json::parse(reply.body);
  }
};

// Types in their order, those that repeat once.
std::vector<std::string> types_of(const std::vector<Json>& events) {
  std::vector<std::string> types;
  for (const Json& event : events)
    if (const std::string type = event["type"]; types.empty() || types.back() != type) types.push_back(type);
  return types;
}

TEST_F(ServeResponses, AreTheConversationsAnswer) {
  const Json expected = chat(R"("max_tokens": 12, "seed": 5)");
  const Reply reply = respond(
      R"("model": "tiny", "input": "ROMEO:", "max_output_tokens": 12, "seed": 5, "store": false,
         "metadata": {"a": "b"}, "truncation": "auto", "top_p": 0.9)");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json answer = Json::parse(reply.body);
  EXPECT_EQ(answer["object"], "response");
  EXPECT_EQ(answer["id"], reply.header("X-Request-Id"));
  EXPECT_TRUE(answer["id"].get<std::string>().starts_with("resp_"));
  EXPECT_EQ(answer["model"], "tiny");
  EXPECT_EQ(answer["status"], "incomplete");
  EXPECT_EQ(answer["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_TRUE(answer["error"].is_null());
  EXPECT_EQ(answer["store"], false);
  EXPECT_EQ(answer["metadata"]["a"], "b");
  EXPECT_EQ(answer["max_output_tokens"], 12);
  EXPECT_EQ(answer["tools"].size(), 0u);
  EXPECT_EQ(answer["text"]["format"]["type"], "text");
  EXPECT_EQ(reply.header("X-Quern-Ignored"), "truncation");
  ASSERT_EQ(answer["output"].size(), 1u);
  const Json item = answer["output"][0];
  EXPECT_EQ(item["type"], "message");
  EXPECT_EQ(item["role"], "assistant");
  EXPECT_EQ(item["status"], "incomplete");
  ASSERT_EQ(item["content"].size(), 1u);
  EXPECT_EQ(item["content"][0]["type"], "output_text");
  EXPECT_EQ(item["content"][0]["annotations"].size(), 0u);
  EXPECT_EQ(answer["usage"]["input_tokens"], expected["usage"]["prompt_tokens"]);
  EXPECT_EQ(answer["usage"]["output_tokens"], 12);
  EXPECT_EQ(answer["usage"]["output_tokens_details"]["reasoning_tokens"], 0);
  const Json same = answer_to(R"("input": "ROMEO:", "max_output_tokens": 12, "seed": 5)");
  EXPECT_EQ(same["output"][0]["content"][0]["text"], expected["choices"][0]["message"]["content"]);
}

TEST_F(ServeResponses, TakeInputOfEveryShape) {
  const auto tokens = [](const std::string& fields) {
    return answer_to(fields + R"(, "max_output_tokens": 1, "seed": 1)")["usage"]["input_tokens"].get<int>();
  };
  const int plain = tokens(R"("input": "a\n\nb")");
  EXPECT_EQ(tokens(R"("input": [{"role": "user", "content": "a\n\nb"}])"), plain);
  EXPECT_EQ(tokens(R"("input": [{"type": "message", "role": "user", "id": "x", "content": [
                        {"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}])"),
            plain);
  const int told = tokens(R"("instructions": "S", "input": "a\n\nb")");
  EXPECT_GT(told, plain);
  EXPECT_EQ(
      tokens(R"("input": [{"role": "developer", "content": "S"}, {"role": "user", "content": "a\n\nb"}])"),
      told);
  // An answer comes back as it was given, with its thought, which the template passes over.
  EXPECT_EQ(
      tokens(R"("input": [{"role": "user", "content": "a"}, {"type": "reasoning", "id": "rs", "summary": [],
                        "content": [{"type": "reasoning_text", "text": "t"}]},
                        {"type": "message", "id": "m", "status": "completed", "role": "assistant", "content":
                        [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}]},
                        {"role": "user", "content": "c"}])"),
      tokens(R"("input": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                        {"role": "user", "content": "c"}])"));
}

TEST_F(ServeResponses, StreamEventsInTheOrderOfTheProtocol) {
  const std::string fields = R"("input": "ROMEO:", "max_output_tokens": 12, "seed": 3)";
  const Json whole = answer_to(fields);
  const Reply reply =
      respond(fields + R"(, "stream": true, "stream_options": {"include_obfuscation": false})");
  EXPECT_EQ(reply.header("Content-Type"), "text/event-stream");
  EXPECT_EQ(reply.body.find("[DONE]"), std::string::npos);
  const std::vector<Json> events = events_of(reply.body);
  EXPECT_EQ(types_of(events),
            (std::vector<std::string>{
                "response.created", "response.in_progress", "response.output_item.added",
                "response.content_part.added", "response.output_text.delta", "response.output_text.done",
                "response.content_part.done", "response.output_item.done", "response.incomplete"}));
  std::string text;
  for (size_t i = 0; i < events.size(); ++i) {
    const std::string type = events[i]["type"];
    EXPECT_EQ(events[i]["sequence_number"], i) << type;
    EXPECT_NE(reply.body.find("event: " + type + "\ndata: {"), std::string::npos) << type;
    if (type == "response.output_text.delta") text += events[i]["delta"].get<std::string>();
    if (type == "response.output_text.done") {
      EXPECT_EQ(events[i]["text"], text);
    }
  }
  EXPECT_EQ(events[0]["response"]["status"], "in_progress");
  EXPECT_EQ(events[0]["response"]["output"].size(), 0u);
  EXPECT_EQ(events[2]["item"]["content"].size(), 0u);
  EXPECT_EQ(text, whole["output"][0]["content"][0]["text"]);
  const Json last = events.back()["response"];
  EXPECT_EQ(last["output"][0]["content"], whole["output"][0]["content"]);
  EXPECT_EQ(last["output"][0]["id"], events[2]["item"]["id"]);
  EXPECT_EQ(last["id"], events[0]["response"]["id"]);
  EXPECT_EQ(last["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}

TEST_F(ServeResponses, AreHeldToTheFormatOfTheirText) {
  const std::string format =
      R"({"type": "json_schema", "name": "p", "strict": true, "schema": {"type": "object",
      "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"],
      "additionalProperties": false}})";
  const Json answer =
      answer_to(fmt::format(R"("input": "ROMEO:", "seed": 1, "text": {{"format": {}}})", format));
  EXPECT_EQ(answer["status"], "completed");
  EXPECT_EQ(answer["text"]["format"], Json::parse(format));
  const Json kept = Json::parse(answer["output"][0]["content"][0]["text"].get<std::string>());
  EXPECT_TRUE(kept["n"].get<int>() >= 0 && kept.size() == 1) << kept;
}

TEST_F(ServeResponses, RefuseByNameWhatTheyWouldHaveToKeepOrRun) {
  const std::pair<const char*, const char*> kBad[] = {
      {R"("model": "tiny")", "input"},
      {R"("input": [])", "input"},
      {R"("input": 5)", "input"},
      {R"("input": "a", "store": true)", "store"},
      {R"("input": "a", "previous_response_id": "resp_1")", "previous_response_id"},
      {R"("input": "a", "conversation": "c")", "conversation"},
      {R"("input": "a", "prompt": {"id": "p"})", "prompt"},
      {R"("input": "a", "background": true)", "background"},
      {R"("input": "a", "include": ["message.output_text.logprobs"])", "include"},
      {R"("input": "a", "max_output_tokens": 0)", "max_output_tokens"},
      {R"("input": "a", "stream_options": {})", "stream_options"},
      {R"("input": [{"type": "item_reference", "id": "x"}])", "input[0].type"},
      {R"("input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}])",
       "input[0].content[0].type"},
      {R"("input": [{"role": "king", "content": "a"}])", "input[0].role"},
      {R"("input": [{"type": "function_call", "call_id": "a", "name": "f"}])", "input[0].arguments"},
      {R"("input": [{"type": "function_call_output", "output": "f"}])", "input[0].call_id"},
      {R"("input": "a", "tools": [{"type": "web_search"}])", "tools[0].type"},
      {R"("input": "a", "tools": [{"type": "function", "name": "f"}])", "tools"},  // the template has none
      {R"("input": "a", "text": {"format": {"type": "xml"}})", "text.format.type"},
      {R"("input": "a", "text": {"format": {"type": "json_schema", "name": "p"}})", "text.format.schema"},
  };
  for (const auto& [fields, param] : kBad) {
    const Reply reply = respond(fields);
    EXPECT_EQ(reply.status, 400) << fields;
    EXPECT_EQ(Json::parse(reply.body)["error"]["param"], param) << reply.body;
  }
  EXPECT_EQ(respond(R"("input": "a", "model": "other")").status, 404);
  EXPECT_EQ(
      respond(R"("input": "a", "include": ["reasoning.encrypted_content"], "max_output_tokens": 1)").status,
      200);
}

class ServeResponsesTools : public ServeAlone {
 protected:
  ServeResponsesTools()
      : server_(
            model_,
            {"--template",
             folder_.write(
                 "tools.jinja",
                 R"({% if tools %}{{ tools | tojson }} <tool_call>{"name": ...}{% endif %})"
                 R"({% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %})"
                 R"(<tool_call>{{ c.function.arguments | tojson }}{{ c.id }}{% endfor %}{% endfor %})"),
             "--slots", "2"}) {}
  Reply respond(const std::string& fields) {
    return post(server_.port(), "/v1/responses", "{" + fields + "}");
  }
  Server server_;
};

// Whatever the model draws: calls that are made here have few arguments to choose from, so that they end long
// before max_output_tokens, and texts do not end before it.
TEST_F(ServeResponsesTools, CallFunctionsAndTakeTheirOutputs) {
  const std::string tools = R"("tools": [{"type": "function", "name": "weather", "strict": true, "parameters":
      {"type": "object", "properties": {"city": {"enum": ["Rome", "Verona"]}}, "required": ["city"],
      "additionalProperties": false}}, {"type": "function", "name": "any"},
      {"type": "function", "name": "now", "strict": true, "parameters": {"type": "object", "properties":
      {"zone": {"const": "UTC"}}, "required": ["zone"], "additionalProperties": false}}],
      "parallel_tool_calls": false, "seed": 1)";
  const std::string calls = tools + R"(, "input": "Hi", "max_output_tokens": 300)";
  const std::string required = calls + R"(, "tool_choice": {"type": "function", "name": "weather"})";
  const Reply reply = respond(required);
  const Json answer = Json::parse(reply.body);
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(answer["status"], "completed");
  EXPECT_EQ(answer["tools"].size(), 3u);
  ASSERT_EQ(answer["output"].size(), 1u) << answer;
  const Json call = answer["output"][0];
  EXPECT_EQ(call["type"], "function_call");
  EXPECT_EQ(call["name"], "weather");
  EXPECT_EQ(call["call_id"].get<std::string>().size(), 9u);
  const Json arguments = Json::parse(call["arguments"].get<std::string>());
  EXPECT_TRUE(arguments["city"] == "Rome" || arguments["city"] == "Verona") << arguments;

  const std::vector<Json> events = events_of(respond(required + R"(, "stream": true)").body);
  EXPECT_EQ(types_of(events),
            (std::vector<std::string>{"response.created", "response.in_progress",
                                      "response.output_item.added", "response.function_call_arguments.delta",
                                      "response.function_call_arguments.done", "response.output_item.done",
                                      "response.completed"}));
  EXPECT_EQ(events[2]["item"]["arguments"], "");
  EXPECT_EQ(events[4]["arguments"], call["arguments"]);
  EXPECT_EQ(events[5]["item"]["call_id"], call["call_id"]);

  // The same conversation as it stands in chat completions.
  const Reply back = respond(fmt::format(R"({}, "input": [{{"role": "user", "content": "Hi"}}, {},
      {{"type": "function_call_output", "call_id": "{}", "output": [{{"type": "input_text", "text": "rain"}}]}}],
      "tool_choice": "none", "ignore_eos": true, "max_output_tokens": 12)",
                                         tools, call.dump(), call["call_id"].get<std::string>()));
  ASSERT_EQ(back.status, 200) << back.body;
  const Reply chat = post(server_.port(), "/v1/chat/completions",
                          fmt::format(R"({{"seed": 1, "ignore_eos": true, "max_tokens": 12,
      "messages": [{{"role": "user", "content": "Hi"}}, {{"role": "assistant", "content": "", "tool_calls":
      [{{"id": "{0}", "type": "function", "function": {{"name": "weather", "arguments": {1}}}}}]}},
      {{"role": "tool", "content": "rain", "tool_call_id": "{0}"}}]}})",
                                      call["call_id"].get<std::string>(), call["arguments"].dump()));
  ASSERT_EQ(chat.status, 200) << chat.body;
  const Json text = Json::parse(back.body)["output"][0]["content"][0]["text"];
  EXPECT_EQ(text, Json::parse(chat.body)["choices"][0]["message"]["content"]);
  EXPECT_GT(text.get<std::string>().size(), 0u);
  EXPECT_EQ(Json::parse(back.body)["usage"]["input_tokens"],
            Json::parse(chat.body)["usage"]["prompt_tokens"]);

  const Reply other = respond(calls + R"(, "tool_choice": {"type": "allowed_tools", "mode": "required",
                                           "tools": [{"type": "function", "name": "now"}]})");
  EXPECT_EQ(Json::parse(other.body)["output"][0]["name"], "now") << other.body;
}

TEST_F(ServeAlone, ThoughtsOfResponsesAreItemsOfTheirOwn) {
  Server server(model_,
                {"--template", folder_.write("thinks",
                                             "{{ messages[0].content }}"
                                             "{% if enable_thinking is not defined or enable_thinking %}"
                                             "<think>{% else %}<think></think>{% endif %}")});
  const auto respond = [&](const std::string& fields) {
    return post(server.port(), "/v1/responses", "{" + fields + "}");
  };
  const std::string fields =
      R"("input": "ROMEO:", "max_output_tokens": 9, "seed": 2, "reasoning": {"effort": "low"})";
  const Json answer = Json::parse(respond(fields).body);
  ASSERT_EQ(answer["output"].size(), 1u) << answer;
  EXPECT_EQ(answer["output"][0]["type"], "reasoning");
  EXPECT_EQ(answer["usage"]["output_tokens_details"]["reasoning_tokens"], 9);
  const std::string thought = answer["output"][0]["content"][0]["text"];
  const std::vector<Json> events = events_of(respond(fields + R"(, "stream": true)").body);
  EXPECT_EQ(types_of(events), (std::vector<std::string>{
                                  "response.created", "response.in_progress", "response.output_item.added",
                                  "response.content_part.added", "response.reasoning_text.delta",
                                  "response.reasoning_text.done", "response.content_part.done",
                                  "response.output_item.done", "response.incomplete"}));
  EXPECT_EQ(events[events.size() - 4]["text"], thought);
  const Json silent = Json::parse(
      respond(R"("input": "ROMEO:", "max_output_tokens": 9, "seed": 2, "reasoning": {"effort": "none"})")
          .body);
  EXPECT_EQ(silent["output"][0]["type"], "message") << silent;
}

}  // namespace
}  // namespace quern::test
