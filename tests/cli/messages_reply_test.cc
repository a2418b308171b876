// Messages: blocks of thought and text, whole and as a stream.
#include "cli/serve/messages_reply.h"

#include <gtest/gtest.h>

#include "quant/json/json.h"

namespace quern {
namespace {

CompletionRequest request(bool stream) {
  CompletionRequest request;
  request.prompts = {{1, 2, 3}};
  request.stream = stream;
  request.splits_thought = true;
  return request;
}

// What the answer's pieces become; the last ends at the stop text "END".
std::string push_all(MessagesReply& reply, const std::vector<std::string>& pieces) {
  std::string events;
  for (const std::string& piece : pieces) {
    AnswerEvent event{};
    event.kind = AnswerEvent::Kind::kToken;
    event.text = piece;
    events += reply.push(0, event);
  }
  AnswerEvent event{};
  event.kind = AnswerEvent::Kind::kFinished;
  event.reason = FinishReason::kStopText;
  event.stop_text = "END";
  return events + reply.push(0, event);
}

// "start(thinking) delta(a) stop ..." of a stream.
std::string outline(const std::string& events) {
  std::string line;
  for (size_t at = 0; (at = events.find("data: ", at)) != events.npos; ++at) {
    const std::string text = events.substr(at + 6, events.find('\n', at) - at - 6);
    const Json event = parse_json(text, "event");
    const std::string type = *event.find("type")->as_string();
    const auto index = [&] { return std::to_string(*event.find("index")->as_int()); };
    if (type == "content_block_start")
      line += index() + "(" + *event.find("content_block")->find("type")->as_string() + " ";
    if (type == "content_block_delta") {
      const Json& delta = *event.find("delta");
      const bool is_text = *delta.find("type")->as_string() == "text_delta";
      line += "'" + *delta.find(is_text ? "text" : "thinking")->as_string() + "' ";
    }
    if (type == "content_block_stop") line += index() + ") ";
    if (type == "message_delta") line += *event.find("delta")->find("stop_sequence")->as_string();
  }
  return line;
}

TEST(MessagesReply, ThoughtAndTextAreBlocks) {
  const std::vector<std::string> pieces = {"<think>", "\n", "a", " b\n</th", "ink>\n\n", "c", "d"};
  MessagesReply stream("id", "model", request(true));
  EXPECT_EQ(outline(push_all(stream, pieces)), "0(thinking 'a' ' b' 0) 1(text 'c' 'd' 1) END");
  EXPECT_TRUE(stream.finished());

  MessagesReply whole("id", "model", request(false));
  EXPECT_EQ(push_all(whole, pieces), "");
  EXPECT_EQ(
      whole.whole(),
      R"({"id":"id","type":"message","role":"assistant","model":"model","content":)"
      R"([{"type":"thinking","thinking":"a b","signature":""},{"type":"text","text":"cd"}],)"
      R"("stop_reason":"stop_sequence","stop_sequence":"END","usage":{"input_tokens":3,"output_tokens":7}})");
}

TEST(MessagesReply, AnswerOfNothingIsAnEmptyText) {
  MessagesReply stream("id", "model", request(true));
  EXPECT_EQ(outline(push_all(stream, {"<think>", "</think>\n"})), "0(text 0) END");
}

TEST(MessagesReply, WhatIsHeldBackComesAtTheEnd) {
  MessagesReply stream("id", "model", request(true));
  EXPECT_EQ(outline(push_all(stream, {"<thi"})), "0(text '<thi' 0) END");
}

TEST(MessagesReply, FailureIsAnErrorEvent) {
  MessagesReply stream("id", "model", request(true));
  AnswerEvent event{};
  event.kind = AnswerEvent::Kind::kFailed;
  event.text = "why";
  EXPECT_EQ(
      stream.push(0, event),
      "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"why\"}}\n\n");
  EXPECT_TRUE(stream.finished());
  ASSERT_NE(stream.failure(), nullptr);
}

}  // namespace
}  // namespace quern
