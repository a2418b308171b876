// serve: embeddings, on a process of its own.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <thread>

#include "tests/cli/serve_fixture.h"

namespace quern::test {
namespace {

constexpr size_t kDim = 256;  // of tiny-mistral

std::vector<float> floats_of(const Json& list) {
  std::vector<float> values;
  for (const Json& value : list) values.push_back(static_cast<float>(value.get<double>()));
  return values;
}

// Of base64 without padding in the middle.
std::vector<float> floats_of_base64(const std::string& text) {
  std::vector<uint8_t> bytes;
  uint32_t bits = 0;
  int n_bits = 0;
  for (const char c : text) {
    const size_t digit =
        std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/").find(c);
    if (digit == std::string_view::npos) break;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if ((n_bits += 6) < 8) continue;
    n_bits -= 8;
    bytes.push_back(static_cast<uint8_t>(bits >> n_bits));
  }
  std::vector<float> values;
  for (size_t i = 0; i + 4 <= bytes.size(); i += 4)
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(bytes[i]) | uint32_t{bytes[i + 1]} << 8 |
                                          uint32_t{bytes[i + 2]} << 16 | uint32_t{bytes[i + 3]} << 24));
  return values;
}

class ServeEmbeddings : public Serve {
 protected:
  static Json embed(const std::string& fields, int status = 200) {
    const Reply reply = post(port(), "/v1/embeddings", "{" + fields + "}");
    EXPECT_EQ(reply.status, status) << reply.head << reply.body;
    return Json::parse(reply.body);
  }
  static std::vector<float> vector_of(const std::string& fields) {
    return floats_of(embed(fields)["data"][0]["embedding"]);
  }
};

TEST_F(ServeEmbeddings, ComeAsOpenAisInTheInputsOrder) {
  const Json answer = embed(R"("model": "tiny", "input": ["To be", "or not", "To be"], "user": "me")");
  EXPECT_EQ(answer["object"], "list");
  EXPECT_EQ(answer["model"], "tiny");
  ASSERT_EQ(answer["data"].size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(answer["data"][i]["object"], "embedding");
    EXPECT_EQ(answer["data"][i]["index"], i);
    const std::vector<float> vector = floats_of(answer["data"][i]["embedding"]);
    ASSERT_EQ(vector.size(), kDim);
    double squares = 0;
    for (const float x : vector) squares += static_cast<double>(x) * static_cast<double>(x);
    EXPECT_NEAR(squares, 1, 1e-6);
  }
  EXPECT_EQ(answer["data"][0]["embedding"], answer["data"][2]["embedding"]);
  EXPECT_NE(answer["data"][0]["embedding"], answer["data"][1]["embedding"]);
  // Texts are as in /tokenize with the vocabulary's own ends; ids are taken as they stand.
  const Json tokens =
      Json::parse(post(port(), "/tokenize", R"({"content": "To be", "add_special": true})").body)["tokens"];
  EXPECT_EQ(vector_of(R"("input": "To be")"), floats_of(answer["data"][0]["embedding"]));
  EXPECT_EQ(vector_of(R"("input": )" + tokens.dump()), vector_of(R"("input": "To be")"));
  EXPECT_EQ(vector_of(R"("input": [)" + tokens.dump() + "]"), vector_of(R"("input": "To be")"));
  EXPECT_EQ(embed(R"("input": ["To be", "To be"])")["usage"]["prompt_tokens"], 2 * tokens.size());
  EXPECT_EQ(embed(R"("input": "To be")")["usage"]["total_tokens"], tokens.size());
}

TEST_F(ServeEmbeddings, HaveTheFormLengthAndPoolingAskedFor) {
  const std::string input = R"("input": "Now is the winter of our discontent")";
  const std::vector<float> mean = vector_of(input);
  EXPECT_EQ(vector_of(input + R"(, "pooling": "mean")"), mean);
  EXPECT_NE(vector_of(input + R"(, "pooling": "last")"), mean);
  EXPECT_EQ(vector_of(input + R"(, "encoding_format": "float", "dimensions": null)"), mean);
  const Json base64 = embed(input + R"(, "encoding_format": "base64")")["data"][0]["embedding"];
  ASSERT_TRUE(base64.is_string());
  EXPECT_EQ(floats_of_base64(base64.get<std::string>()), mean);
  const std::vector<float> few = vector_of(input + R"(, "dimensions": 7)");
  ASSERT_EQ(few.size(), 7u);
  for (size_t i = 0; i < 7; ++i) EXPECT_NEAR(few[i] / few[0], mean[i] / mean[0], 1e-5) << i;
}

// Longer than the queue and the slots together, and beside other clients: the same vectors.
TEST_F(ServeEmbeddings, OfALongListAreThoseOfEachTextAlone) {
  std::string list;
  for (int i = 0; i < 150; ++i)
    list += fmt::format("{}\"Scene {}.{}\"", i == 0 ? "" : ", ", i,
                        std::string(static_cast<size_t>(i % 40), 'x'));
  std::vector<Json> answers(3);
  std::vector<std::thread> clients;
  for (size_t i = 0; i < answers.size(); ++i)
    clients.emplace_back([&, i] {
      answers[i] = i == 0 ? chat(R"("max_tokens": 40, "seed": 1)") : embed("\"input\": [" + list + "]");
    });
  for (std::thread& client : clients) client.join();
  ASSERT_EQ(answers[1]["data"].size(), 150u);
  EXPECT_EQ(answers[1], answers[2]);
  for (const size_t i : {0, 77, 149})
    EXPECT_EQ(vector_of(fmt::format(R"("input": "Scene {}.{}")", i, std::string(i % 40, 'x'))),
              floats_of(answers[1]["data"][i]["embedding"]));
  EXPECT_EQ(answers[0]["choices"], chat(R"("max_tokens": 40, "seed": 1)")["choices"]);
}

TEST_F(ServeEmbeddings, RefuseWithTheFieldWhatTheyCannotGive) {
  std::string long_text;
  for (int i = 0; i < 5000; ++i) long_text += "a ";
  const struct {
    std::string fields, param;
  } kBad[] = {
      {R"("model": "tiny")", "input"},
      {R"("input": "")", "input"},
      {R"("input": [])", "input"},
      {R"("input": [""])", "input[0]"},
      {R"("input": ["a", ""])", "input[1]"},
      {R"("input": ["a", 5])", "input[1]"},
      {R"("input": [[]])", "input[0]"},
      {R"("input": [3, 1000000])", "input"},
      {R"("input": {"text": "a"})", "input"},
      {R"("input": "a", "encoding_format": "int8")", "encoding_format"},
      {R"("input": "a", "dimensions": 0)", "dimensions"},
      {fmt::format(R"("input": "a", "dimensions": {})", kDim + 1), "dimensions"},
      {R"("input": "a", "pooling": "cls")", "pooling"},
      {fmt::format(R"("input": "{}")", long_text), "input"},
  };
  for (const auto& [fields, param] : kBad)
    EXPECT_EQ(embed(fields, 400)["error"]["param"], param) << fields.substr(0, 80);
  EXPECT_EQ(embed(fmt::format(R"("input": "{}")", long_text), 400)["error"]["code"],
            "context_length_exceeded");
  EXPECT_EQ(embed(R"("input": "a", "model": "other")", 404)["error"]["code"], "model_not_found");
  std::string many = "[\"a\"";
  for (int i = 0; i < 2048; ++i) many += ",\"a\"";
  EXPECT_EQ(embed("\"input\": " + many + "]", 400)["error"]["param"], "input");
  EXPECT_EQ(request(port(), "GET", "/v1/embeddings").status, 405);
}

TEST_F(ServeAlone, PoolingIsTheOptionsWhereTheRequestDoesNotSay) {
  Server last(model_, {"--pooling", "last"});
  ASSERT_NE(last.port(), 0);
  const auto vector_of = [&](const std::string& more) {
    return Json::parse(post(last.port(), "/v1/embeddings", R"({"input": "To be")" + more + "}").body)["data"];
  };
  EXPECT_EQ(vector_of(""), vector_of(R"(, "pooling": "last")"));
  EXPECT_NE(vector_of(""), vector_of(R"(, "pooling": "mean")"));
  EXPECT_EQ(Json::parse(request(last.port(), "GET", "/props").body)["pooling"], "last");
  const ProcessResult bad = quern({"serve", model_, "--pooling", "cls"});
  EXPECT_EQ(bad.exit_code, 1) << describe(bad);
}

}  // namespace
}  // namespace quern::test
