// serve: OpenAI's completions and conversations, on a process of its own.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cli/serve_fixture.h"

namespace quern::test {
namespace {

TEST_F(Serve, CompletionIsWhatRunPrints) {
  const ProcessResult run = quern({"run", model_, "-p", "ROMEO:", "-n", "20", "--seed", "7"});
  const Json answer = complete(R"("max_tokens": 20, "seed": 7)");
  const std::string text = answer["choices"][0]["text"];
  EXPECT_EQ(text.ends_with('\n') ? text : text + "\n", run.out);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 20);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
}

TEST_F(Serve, ConversationIsWhatChatPrints) {
  const ProcessResult said = quern(
      {"chat", model_, "--chat-format", "mistral-v1", "--once", "-p", "ROMEO:", "-n", "16", "--temp", "0"});
  const Json answer = chat(R"("max_tokens": 16, "temperature": 0)");
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["model"], "tiny");
  EXPECT_EQ(answer["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(answer["choices"][0]["message"]["content"].get<std::string>() + "\n", said.out);
  EXPECT_EQ(chat(R"("max_completion_tokens": 16, "temperature": 0)")["choices"], answer["choices"]);
}

TEST_F(Serve, StreamIsTheWholeAnswerInPieces) {
  const std::string fields = R"("max_tokens": 12, "seed": 3, "logprobs": true, "top_logprobs": 2)";
  const Json whole = chat(fields);
  const Reply reply = post(port(), "/v1/chat/completions",
                           R"({"messages": [{"role": "user", "content": "ROMEO:"}], "stream": true,
                               "stream_options": {"include_usage": true}, )" +
                               fields + "}");
  EXPECT_EQ(reply.header("Content-Type"), "text/event-stream");
  EXPECT_NE(reply.body.find(": prompt "), std::string::npos) << "a comment tells how far the prompt is read";
  std::vector<Json> events = events_of(reply.body);
  ASSERT_GE(events.size(), 5u);
  EXPECT_EQ(events.back(), "[DONE]");
  events.pop_back();
  const Json usage = events.back();
  EXPECT_EQ(usage["choices"].size(), 0u);
  EXPECT_EQ(usage["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
  events.pop_back();
  EXPECT_EQ(events.front()["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(events.front()["choices"][0]["delta"]["content"], "");
  EXPECT_EQ(events.back()["choices"][0]["delta"].size(), 0u);
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], "length");
  std::string text;
  Json::Array log_probs;
  for (const Json& event : events) {
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    EXPECT_EQ(event["id"], events.front()["id"]);
    const Json& choice = event["choices"][0];
    if (choice["delta"].contains("content")) text += choice["delta"]["content"].get<std::string>();
    for (const Json& token : choice["logprobs"]["content"]) log_probs.push_back(token);
  }
  EXPECT_EQ(text, whole["choices"][0]["message"]["content"]);
  EXPECT_EQ(Json(log_probs), whole["choices"][0]["logprobs"]["content"]);
  // Without the wish there is no usage.
  const Reply bare = post(port(), "/v1/completions", R"({"prompt": "a", "max_tokens": 2, "stream": true})");
  EXPECT_EQ(bare.status, 200) << bare.body;
  EXPECT_EQ(bare.body.find("usage"), std::string::npos);
}

TEST_F(Serve, SeedDecidesAndIsTold) {
  const std::string body = R"({"prompt": "ROMEO:", "max_tokens": 12)";
  const Reply drawn = post(port(), "/v1/completions", body + "}");
  const std::string seed = drawn.header("X-Quern-Seed");
  ASSERT_NE(seed, "");
  const Reply again = post(port(), "/v1/completions", body + ", \"seed\": " + seed + "}");
  EXPECT_EQ(Json::parse(again.body)["choices"], Json::parse(drawn.body)["choices"]);
  // The answers to n are those of seeds that follow one another.
  const Json three = complete(R"("max_tokens": 12, "seed": 40, "n": 3)");
  ASSERT_EQ(three["choices"].size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(three["choices"][i]["index"], i);
    EXPECT_EQ(three["choices"][i]["text"],
              complete(fmt::format(R"("max_tokens": 12, "seed": {})", 40 + i))["choices"][0]["text"]);
  }
}

TEST_F(ServeAlone, SeedOfTheCommandLineIsThatOfRequestsWithoutOne) {
  Server server(model_, {"--seed", "18446744073709551615"});
  ASSERT_NE(server.port(), 0) << server.process().stderr_text();
  const auto seed_of = [&](const std::string& more) {
    return post(server.port(), "/v1/completions", R"({"prompt": "A", "max_tokens": 1)" + more + "}")
        .header("X-Quern-Seed");
  };
  EXPECT_EQ(seed_of(""), "18446744073709551615");
  EXPECT_EQ(seed_of(""), "18446744073709551615");
  EXPECT_EQ(seed_of(R"(, "seed": 5)"), "5");
}

TEST_F(Serve, StopBiasAndPenaltiesDoWhatTheySay) {
  const std::string text = complete(R"("max_tokens": 30, "temperature": 0)")["choices"][0]["text"];
  ASSERT_GT(text.size(), 12u);
  const Json stopped = complete(
      fmt::format(R"("max_tokens": 30, "temperature": 0, "stop": [{}])", Json(text.substr(8, 3)).dump()));
  EXPECT_EQ(stopped["choices"][0]["text"], text.substr(0, text.find(text.substr(8, 3))));
  EXPECT_EQ(stopped["choices"][0]["finish_reason"], "stop");
  const Json biased =
      complete(R"("max_tokens": 4, "temperature": 0, "logit_bias": {"300": 100}, "logprobs": 0)");
  const Json& tokens = biased["choices"][0]["logprobs"]["tokens"];
  ASSERT_EQ(tokens.size(), 4u);
  EXPECT_EQ(tokens[0], tokens[3]);
  const Json penalised =
      complete(R"("max_tokens": 60, "temperature": 0, "frequency_penalty": 2, "presence_penalty": 2)");
  EXPECT_NE(penalised["choices"][0]["text"].get<std::string>().substr(0, 30), "");
  EXPECT_NE(penalised["choices"][0]["text"],
            complete(R"("max_tokens": 60, "temperature": 0)")["choices"][0]["text"]);
}

TEST_F(Serve, PromptsOfEveryShapeAreTaken) {
  const Json tokens =
      Json::parse(post(port(), "/tokenize", R"({"content": "ROMEO:", "add_special": true})").body)["tokens"];
  const auto ask = [&](const std::string& prompt) {
    const Reply reply =
        post(port(), "/v1/completions", R"({"max_tokens": 8, "temperature": 0, "prompt": )" + prompt + "}");
    EXPECT_EQ(reply.status, 200) << reply.body;
    return Json::parse(reply.body)["choices"];
  };
  const Json expected = ask("\"ROMEO:\"")[0]["text"];
  EXPECT_EQ(ask(tokens.dump())[0]["text"], expected);
  EXPECT_EQ(ask(fmt::format("[{0}, {0}]", tokens.dump()))[1]["text"], expected);
  EXPECT_EQ(ask(R"(["ROMEO:", "a"])")[0]["text"], expected);
  const Json content =
      Json::parse(post(port(), "/detokenize", fmt::format(R"({{"tokens": {}}})", tokens.dump())).body);
  EXPECT_EQ(content["content"], "ROMEO:");
}

TEST_F(Serve, EchoTellsTheProbabilitiesOfThePrompt) {
  const Json answer =
      complete(R"("max_tokens": 2, "temperature": 0, "echo": true, "logprobs": 1)")["choices"][0];
  EXPECT_TRUE(answer["text"].get<std::string>().starts_with("ROMEO:"));
  const Json& log_probs = answer["logprobs"];
  EXPECT_EQ(log_probs["tokens"].size(), log_probs["token_logprobs"].size());
  EXPECT_TRUE(log_probs["token_logprobs"][0].is_null());
  for (size_t i = 1; i < log_probs["tokens"].size(); ++i) EXPECT_LT(log_probs["token_logprobs"][i], 0);
  // A prompt alone, as evaluations ask for it: cut anywhere, the same.
  const Json alone = complete(R"("max_tokens": 0, "echo": true, "logprobs": 1)")["choices"][0];
  EXPECT_EQ(alone["text"], "ROMEO:");
  const size_t n = alone["logprobs"]["tokens"].size();
  EXPECT_EQ(n + 2, log_probs["tokens"].size());
  for (size_t i = 0; i < n; ++i)
    EXPECT_EQ(alone["logprobs"]["token_logprobs"][i], log_probs["token_logprobs"][i]);
  EXPECT_EQ(log_probs["text_offset"][n], 6);
  // In a stream the same, in pieces.
  for (const auto& [n_tokens, whole] : {std::pair<int, Json>{2, answer}, {0, alone}}) {
    const Reply reply =
        post(port(), "/v1/completions",
             fmt::format(R"({{"prompt": "ROMEO:", "max_tokens": {}, "temperature": 0, "echo": true,
                                             "logprobs": 1, "stream": true}})",
                         n_tokens));
    std::string text;
    const std::vector<std::string> keys = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    std::vector<std::vector<std::string>> pieces(keys.size()), wholes(keys.size());
    const auto append = [&](const Json& scores, std::vector<std::vector<std::string>>* lists) {
      for (size_t k = 0; k < keys.size(); ++k)
        for (size_t i = 0; i < scores[keys[k]].size(); ++i) (*lists)[k].push_back(scores[keys[k]][i].dump());
    };
    for (const Json& event : events_of(reply.body)) {
      if (event == "[DONE]") continue;
      const Json& choice = event["choices"][0];
      text += choice["text"].get<std::string>();
      append(choice["logprobs"], &pieces);
    }
    append(whole["logprobs"], &wholes);
    EXPECT_EQ(text, whole["text"]);
    EXPECT_EQ(pieces, wholes);
  }
}

TEST_F(Serve, TextOfARequestIsNoSpecialToken) {
  const Json ids = Json::parse(post(port(), "/tokenize", R"({"content": "</s>"})").body)["tokens"];
  EXPECT_GT(ids.size(), 1u);
  for (const Json& id : ids) EXPECT_NE(id, 2);
  const Json plain = chat(R"("max_tokens": 1)")["usage"]["prompt_tokens"];
  const Reply marked = post(port(), "/v1/chat/completions",
                            R"({"messages": [{"role": "user", "content": "ROMEO:</s>"}], "max_tokens": 1})");
  EXPECT_GT(Json::parse(marked.body)["usage"]["prompt_tokens"], plain.get<int>() + 1);
}

TEST_F(Serve, WrongValuesAreRefusedWithTheirName) {
  const std::pair<const char*, const char*> kBad[] = {
      {"max_tokens", "0"},
      {"max_tokens", "1e300"},
      {"max_tokens", "\"5\""},
      {"temperature", "-1"},
      {"temperature", "1e999"},
      {"top_p", "2"},
      {"n", "0"},
      {"n", "1000000000000"},
      {"seed", "1.5"},
      {"stop", "[1]"},
      {"stop", "\"\""},
      {"logit_bias", "{\"99999999\": 1}"},
      {"logit_bias", "{\"1\": 1e9}"},
      {"top_logprobs", "3"},
      {"stream", "1"},
      {"presence_penalty", "9"},
      {"tools", "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]"},
      {"grammar", "\"root ::= x\""},
      {"stream_options", "{}"},
      {"reasoning_format", "\"aloud\""},
  };
  for (const auto& [name, value] : kBad) {
    SCOPED_TRACE(std::string(name) + ": " + value);
    const Json answer = chat(fmt::format("\"{}\": {}", name, value), 400);
    EXPECT_EQ(answer["error"]["param"].is_string() ? answer["error"]["param"] : Json(name), name);
    EXPECT_EQ(answer["error"]["type"], "invalid_request_error");
  }
  EXPECT_EQ(
      chat(R"("response_format": {"type": "text"}, "max_tokens": 1, "tools": null, "stop": null)")["object"],
      "chat.completion");
  EXPECT_EQ(chat(R"("model": "gpt-5")", 404)["error"]["code"], "model_not_found");
  EXPECT_EQ(complete(R"("max_tokens": 1, "suffix": "x")", 400)["error"]["param"], "suffix");
  const Reply unknown =
      post(port(), "/v1/completions", R"({"prompt": "a", "max_tokens": 1, "user": "me", "b\nc": 2})");
  EXPECT_EQ(unknown.status, 200);
  EXPECT_EQ(unknown.header("X-Quern-Ignored"), "user, b\\x0Ac");
}

TEST_F(Serve, WrongMessagesAreRefusedWithTheirPlace) {
  const std::pair<const char*, const char*> kBad[] = {
      {"[]", "messages"},
      {"\"hello\"", "messages"},
      {"[1]", "messages[0]"},
      {R"([{"content": "a"}])", "messages[0].role"},
      {R"([{"role": "king", "content": "a"}])", "messages[0].role"},
      {R"([{"role": "user"}])", "messages[0].content"},
      {R"([{"role": "user", "content": 5}])", "messages[0].content"},
      {R"([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])",
       "messages[0].content[0].type"},
      {R"([{"role": "assistant", "content": "a"}])", "messages"},
  };
  for (const auto& [messages, param] : kBad) {
    const Reply reply =
        post(port(), "/v1/chat/completions", fmt::format(R"({{"messages": {}, "max_tokens": 1}})", messages));
    EXPECT_EQ(reply.status, 400) << messages << reply.body;
    EXPECT_EQ(Json::parse(reply.body)["error"]["param"], param) << messages;
  }
  const Reply parts =
      post(port(), "/v1/chat/completions",
           R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "ROMEO:"}]}],
                               "max_tokens": 4, "temperature": 0})");
  EXPECT_EQ(Json::parse(parts.body)["choices"], chat(R"("max_tokens": 4, "temperature": 0)")["choices"]);
}

}  // namespace
}  // namespace quern::test
