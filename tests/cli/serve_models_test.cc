// serve: models that go and come, on a process of its own.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cli/serve_fixture.h"

namespace quern::test {
namespace {

const char* const kAsk = R"({"prompt": "ROMEO:", "max_tokens": 12, "seed": 4})";

std::string text_of(const Reply& reply) {
  EXPECT_EQ(reply.status, 200) << reply.head << reply.body;
  return Json::parse(reply.body)["choices"][0]["text"].get<std::string>();
}

TEST_F(ServeAlone, MemoryIsGivenBackWhenNobodyAsksAndTheAnswerStaysTheSame) {
  const std::string keys = folder_.write("keys", "secret\n");
  const std::vector<std::string> key = {"Authorization: Bearer secret"};
  Server server(model_, {"--idle-unload", "1", "--api-key-file", keys});
  const int port = server.port();
  ASSERT_NE(port, 0);
  const auto loaded = [&] {
    const std::string text = request(port, "GET", "/metrics", "", key).body;
    return text.find("\nquern_model_loaded 1\n") != text.npos;
  };
  const std::string text = text_of(post(port, "/v1/completions", kAsk, key));
  EXPECT_TRUE(becomes_true([&] { return !loaded(); })) << "who only looks does not keep it there";
  EXPECT_EQ(request(port, "GET", "/health").status, 200);
  EXPECT_EQ(request(port, "GET", "/").status, 200);
  EXPECT_EQ(request(port, "GET", "/slots", "", key).status, 503);
  EXPECT_EQ(request(port, "GET", "/metrics").status, 401);
  EXPECT_EQ(post(port, "/v1/completions", kAsk).status, 401);
  EXPECT_EQ(
      post(port, "/v1/completions", kAsk, {"Authorization: Bearer secret", "Origin: http://evil"}).status,
      403);
  EXPECT_EQ(request(port, "OPTIONS", "/v1/completions").status, 204);
  EXPECT_EQ(post(port, "/nonsense", kAsk, key).status, 404);
  EXPECT_EQ(post(port, "/props", kAsk, key).status, 405);
  EXPECT_EQ(request(port, "DELETE", "/health").status, 405);
  EXPECT_EQ(request(port, "GET", "/nonsense", "", key).status, 404);
  EXPECT_FALSE(loaded()) << "who may not ask loads nothing, nor does what is not there";
  EXPECT_EQ(text_of(post(port, "/v1/completions", kAsk, key)), text);
}

TEST_F(ServeAlone, ModelIsExchangedForAnotherOfThoseThatWereNamed) {
  const std::string other = converted(folder_, "stories260k", "q4_0");
  Server server(model_, {"--other-model", "stories=" + other, "--admin-key-file",
                         folder_.write("keys", "# of the house\nadmin\n"), "--slots", "2"});
  const int port = server.port();
  ASSERT_NE(port, 0);
  const auto load = [&](const std::string& name, const std::string& key) {
    return post(port, "/models/load", fmt::format(R"({{"model": "{}"}})", name),
                {"Authorization: Bearer " + key});
  };
  const auto current = [&] {
    return Json::parse(request(port, "GET", "/v1/models").body)["data"][0]["id"].get<std::string>();
  };
  const std::string text = text_of(post(port, "/v1/completions", kAsk));
  EXPECT_EQ(load("stories", "guess").status, 401);
  EXPECT_EQ(load("../etc/passwd", "admin").status, 404);
  EXPECT_EQ(request(port, "GET", "/models/load").status, 405);
  EXPECT_EQ(request(port, "OPTIONS", "/models/load").status, 204);
  EXPECT_EQ(post(port, "/models/load", R"({"model": "stories"})",
                 {"Authorization: Bearer admin", "Origin: http://evil"})
                .status,
            403);
  EXPECT_EQ(post(port, "/models/load", "{}", {"Authorization: Bearer admin"}).status, 400);
  EXPECT_EQ(current(), "tiny");
  EXPECT_EQ(metric(port, "model_loaded"), "1");

  // An answer that has begun ends on the model that it began with.
  const std::string longer =
      R"({"prompt": "ROMEO:", "max_tokens": 900, "seed": 4, "ignore_eos": true, "stream": true})";
  std::string expected, found;
  for (const Json& event : events_of(post(port, "/v1/completions", longer).body))
    if (!event.is_string()) expected += event["choices"][0]["text"].get<std::string>();
  Connection running(port);
  running.send(completion_request(longer, "Connection: close\r\n"));
  running.read_until("\"text\"");
  EXPECT_EQ(load("stories", "admin").status, 200);
  EXPECT_EQ(current(), "stories");
  for (const Json& event : events_of(running.read_reply().body))
    if (!event.is_string()) found += event["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(found, expected);

  EXPECT_NE(text_of(post(port, "/v1/completions", kAsk)), text);
  const Reply gone = post(port, "/v1/completions", R"({"prompt": "a", "model": "tiny"})");
  EXPECT_EQ(gone.status, 404);
  EXPECT_EQ(load("stories", "admin").status, 200) << "it is there already";
  EXPECT_EQ(load("tiny", "admin").status, 200);
  EXPECT_EQ(text_of(post(port, "/v1/completions", kAsk)), text);
}

TEST_F(ServeAlone, OtherModelsAreCheckedAtTheStart) {
  const std::string keys = folder_.write("keys", "admin\n");
  EXPECT_EQ(quern({"serve", model_, "--other-model", "a=" + model_}).exit_code, 1) << "nobody could load it";
  for (const std::string& bad :
       {std::string("a"), "=" + model_, std::string("a="), "tiny=" + model_, "small=" + model_})
    EXPECT_EQ(quern({"serve", model_, "--alias", "tiny", "--alias", "small", "--admin-key-file", keys,
                     "--other-model", bad})
                  .exit_code,
              1)
        << bad;
  EXPECT_EQ(quern({"serve", model_, "--admin-key-file", keys, "--other-model",
                   "a=" + folder_.write("bad.gguf", "GGUF")})
                .exit_code,
            2);
  Server server(model_);
  EXPECT_EQ(post(server.port(), "/models/load", R"({"model": "tiny"})").status, 403) << "without a key file";
}

}  // namespace
}  // namespace quern::test
