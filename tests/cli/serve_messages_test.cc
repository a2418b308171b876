// serve: Anthropic's messages, and thoughts apart from answers, on a process of its own.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cli/serve_fixture.h"

namespace quern::test {
namespace {

TEST_F(Serve, MessageIsTheConversationsAnswer) {
  const Json expected = chat(R"("max_tokens": 12, "seed": 5)");
  const Reply reply = message(R"("max_tokens": 12, "seed": 5, "metadata": {"user_id": "me"})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json answer = Json::parse(reply.body);
  EXPECT_EQ(answer["type"], "message");
  EXPECT_EQ(answer["role"], "assistant");
  EXPECT_EQ(answer["model"], "tiny");
  EXPECT_EQ(answer["id"], reply.header("request-id"));
  ASSERT_EQ(answer["content"].size(), 1u);
  EXPECT_EQ(answer["content"][0]["type"], "text");
  EXPECT_EQ(answer["content"][0]["text"], expected["choices"][0]["message"]["content"]);
  EXPECT_EQ(answer["stop_reason"], "max_tokens");
  EXPECT_TRUE(answer["stop_sequence"].is_null());
  EXPECT_EQ(answer["usage"]["input_tokens"], expected["usage"]["prompt_tokens"]);
  EXPECT_EQ(answer["usage"]["output_tokens"], 12);
  EXPECT_EQ(reply.header("X-Quern-Ignored"), "metadata");

  const Reply count = post(port(), "/v1/messages/count_tokens",
                           R"({"model": "tiny", "messages": [{"role": "user", "content": "ROMEO:"}]})");
  EXPECT_EQ(Json::parse(count.body)["input_tokens"], expected["usage"]["prompt_tokens"]);
}

TEST_F(Serve, MessageStreamsTypedEvents) {
  const std::string fields = R"("max_tokens": 12, "seed": 3)";
  const Json whole = Json::parse(message(fields).body);
  const Reply reply = message(fields + R"(, "stream": true)");
  EXPECT_EQ(reply.header("Content-Type"), "text/event-stream");
  const std::vector<Json> events = events_of(reply.body);
  std::vector<std::string> types;
  std::string text;
  for (const Json& event : events) {
    const std::string type = event["type"];
    EXPECT_NE(reply.body.find("event: " + type + "\ndata: {"), std::string::npos) << type;
    if (types.empty() || types.back() != type) types.push_back(type);
    if (type != "content_block_delta") continue;
    EXPECT_EQ(event["delta"]["type"], "text_delta");
    text += event["delta"]["text"].get<std::string>();
  }
  EXPECT_EQ(types,
            (std::vector<std::string>{"message_start", "ping", "content_block_start", "content_block_delta",
                                      "content_block_stop", "message_delta", "message_stop"}));
  EXPECT_EQ(text, whole["content"][0]["text"]);
  EXPECT_EQ(events[0]["message"]["content"].size(), 0u);
  EXPECT_EQ(events[0]["message"]["usage"]["input_tokens"], whole["usage"]["input_tokens"]);
  const Json& last = events[events.size() - 2];
  EXPECT_EQ(last["delta"]["stop_reason"], "max_tokens");
  EXPECT_EQ(last["usage"], whole["usage"]);
}

TEST_F(Serve, MessageSaysWhichStopSequenceEndedIt) {
  const std::string greedy = R"("max_tokens": 30, "temperature": 0)";
  const std::string text = Json::parse(message(greedy).body)["content"][0]["text"];
  ASSERT_GT(text.size(), 12u);
  const std::string stop = text.substr(8, 3);
  const Json answer = Json::parse(
      message(fmt::format(R"({}, "stop_sequences": ["never", {}])", greedy, Json(stop).dump())).body);
  EXPECT_EQ(answer["content"][0]["text"], text.substr(0, text.find(stop)));
  EXPECT_EQ(answer["stop_reason"], "stop_sequence");
  EXPECT_EQ(answer["stop_sequence"], stop);
}

TEST_F(Serve, MessagesOfEveryShapeAreTaken) {
  const auto count = [](const std::string& members) {
    const Reply reply = post(port(), "/v1/messages/count_tokens", "{" + members + "}");
    EXPECT_EQ(reply.status, 200) << reply.body;
    return Json::parse(reply.body)["input_tokens"].get<int>();
  };
  const int plain = count(R"("messages": [{"role": "user", "content": "a\n\nb"}])");
  EXPECT_EQ(count(R"("messages": [{"role": "user", "content": [{"type": "text", "text": "a"},
                     {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]}])"),
            plain);
  EXPECT_EQ(count(R"("messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])"),
            plain);
  const int system = count(R"("system": "S", "messages": [{"role": "user", "content": "a\n\nb"}])");
  EXPECT_GT(system, plain);
  EXPECT_EQ(count(R"("system": [{"type": "text", "text": "S"}],
                     "messages": [{"role": "user", "content": "a\n\nb"}])"),
            system);
  // An answer that has begun is gone on with: no end of text stands behind it.
  const std::string turns = R"("messages": [{"role": "user", "content": "a"},
                               {"role": "assistant", "content": [{"type": "thinking", "thinking": "t",
                                "signature": ""}, {"type": "text", "text": "b"}]})";
  EXPECT_LT(count(turns + "]"), count(turns + R"(, {"role": "user", "content": ""}])"));
}

TEST_F(Serve, WrongMessagesRequestsAreRefusedAsAnthropicDoes) {
  const std::pair<const char*, const char*> kBad[] = {
      {R"("messages": [{"role": "user", "content": "a"}])", "max_tokens is missing"},
      {R"("max_tokens": 1)", "messages is missing"},
      {R"("max_tokens": 0, "messages": [])", "max_tokens"},
      {R"("max_tokens": 1, "messages": [])", "messages"},
      {R"("max_tokens": 1, "messages": [{"role": "system", "content": "a"}])", "messages[0].role"},
      {R"("max_tokens": 1, "messages": [{"role": "user"}])", "messages[0].content"},
      {R"("max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}])",
       "messages[0].content[0].type"},
      {R"("max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "thinking", "thinking": ""}]}])",
       "messages[0].content[0].type"},
      {R"("max_tokens": 1, "system": 5, "messages": [{"role": "user", "content": "a"}])", "system"},
      {R"("max_tokens": 1, "stop_sequences": [""], "messages": [{"role": "user", "content": "a"}])",
       "stop_sequences"},
      {R"("max_tokens": 1, "tools": [{"name": "get_weather"}], "messages": [{"role": "user", "content": "a"}])",
       "tools: the model's chat template has none"},
      {R"("max_tokens": 1, "tool_choice": {"type": "any"}, "messages": [{"role": "user", "content": "a"}])",
       "tool_choice.type"},
      {R"("max_tokens": 1, "thinking": {"type": "deep"}, "messages": [{"role": "user", "content": "a"}])",
       "thinking.type"},
      {R"("max_tokens": 1, "output_config": {"format": {}}, "messages": [{"role": "user", "content": "a"}])",
       "output_config.format"},
  };
  for (const auto& [members, what] : kBad) {
    const Reply reply =
        post(port(), "/v1/messages", fmt::format("{{{}}}", members), {"anthropic-version: 2023-06-01"});
    EXPECT_EQ(reply.status, 400) << members;
    const Json answer = Json::parse(reply.body);
    EXPECT_EQ(answer["type"], "error");
    EXPECT_EQ(answer["error"]["type"], "invalid_request_error");
    EXPECT_NE(answer["error"]["message"].get<std::string>().find(what), std::string::npos) << reply.body;
  }
  const Reply other = post(port(), "/v1/messages", R"({"model": "claude", "max_tokens": 1,
                           "messages": [{"role": "user", "content": "a"}]})");
  EXPECT_EQ(other.status, 404);
  EXPECT_EQ(Json::parse(other.body)["error"]["type"], "not_found_error");
  EXPECT_EQ(message(R"("max_tokens": 1, "tools": [], "tool_choice": {"type": "auto"})").status, 200);
}

TEST_F(ServeAlone, ThoughtsStandApartFromTheAnswer) {
  const std::string thinks = folder_.write(
      "thinks",
      "{{ messages[0].content }}{% if enable_thinking is defined and not enable_thinking %}<think></think>"
      "{% else %}<think>{% endif %}");
  std::vector<std::string> arguments = {"serve", model_, "--port", "0", "--template", thinks};
  Process process(quern_command(arguments), with_test_environment());
  ASSERT_TRUE(process.wait_for_stderr("listening on http://127.0.0.1:")) << process.stderr_text();
  ASSERT_TRUE(process.wait_for_stderr("\n"));
  const std::string& log = process.stderr_text();
  const int port = std::atoi(log.c_str() + log.find("127.0.0.1:") + 10);
  const std::string begin =
      R"({"messages": [{"role": "user", "content": "ROMEO:"}], "max_tokens": 12, "seed": 2)";
  const auto ask = [&](const std::string& path, const std::string& more) {
    const Reply reply = post(port, path, begin + more + "}");
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.body;
  };
  // The template has opened a block, which this model does not close: all is thought.
  const Json chat = Json::parse(ask("/v1/chat/completions", ""))["choices"][0]["message"];
  EXPECT_EQ(chat["content"], "");
  const std::string thought = chat["reasoning_content"];
  ASSERT_FALSE(thought.empty());
  std::string streamed;
  for (const Json& event : events_of(ask("/v1/chat/completions", R"(, "stream": true)"))) {
    if (event.is_string() || !event["choices"][0]["delta"].contains("reasoning_content")) continue;
    EXPECT_FALSE(event["choices"][0]["delta"].contains("content"));
    streamed += event["choices"][0]["delta"]["reasoning_content"].get<std::string>();
  }
  EXPECT_EQ(streamed, thought);
  const Json as_it_is =
      Json::parse(ask("/v1/chat/completions", R"(, "reasoning_format": "none")"))["choices"][0]["message"];
  EXPECT_FALSE(as_it_is.contains("reasoning_content"));
  EXPECT_NE(as_it_is["content"].get<std::string>().find(thought), std::string::npos);

  const Json content = Json::parse(ask("/v1/messages", ""))["content"];
  ASSERT_EQ(content.size(), 1u);
  EXPECT_EQ(content[0]["type"], "thinking");
  EXPECT_EQ(content[0]["thinking"], thought);
  streamed.clear();
  for (const Json& event : events_of(ask("/v1/messages", R"(, "stream": true)"))) {
    if (event["type"] == "content_block_start") {
      EXPECT_EQ(event["content_block"]["type"], "thinking");
    }
    if (event["type"] == "content_block_delta") streamed += event["delta"]["thinking"].get<std::string>();
  }
  EXPECT_EQ(streamed, thought);

  // Asked not to think, the model has nothing but text.
  const Json silent = Json::parse(ask("/v1/messages", R"(, "thinking": {"type": "disabled"})"))["content"];
  ASSERT_EQ(silent.size(), 1u);
  EXPECT_EQ(silent[0]["type"], "text");
  EXPECT_EQ(
      silent[0]["text"],
      Json::parse(ask(
          "/v1/chat/completions",
          R"(, "chat_template_kwargs": {"enable_thinking": false})"))["choices"][0]["message"]["content"]);
}

}  // namespace
}  // namespace quern::test
