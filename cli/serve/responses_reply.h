// Answers of OpenAI's protocol for responses: whole, and as the typed events of a stream.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/serve/answer_splitter.h"
#include "cli/serve/completion_request.h"
#include "cli/serve/reply.h"
#include "quant/json/json_writer.h"

namespace quern {

class ResponsesReply : public Reply {
 public:
  static constexpr std::string_view kIdPrefix = "resp_";

  // id: kIdPrefix and what is the answer's own.
  ResponsesReply(std::string id, std::string model, const CompletionRequest& request);

  // A prompt's progress is a comment.
  std::string push(size_t index, const AnswerEvent& event) override;
  bool finished() const override { return end_.has_value(); }
  const AnswerEvent* failure() const override {
    return end_ && end_->kind == AnswerEvent::Kind::kFailed ? &*end_ : nullptr;
  }
  std::string stream_begin() const override;
  std::string stream_end() const override { return {}; }
  std::string heartbeat() const override { return std::string(kSseWaiting); }
  std::string whole() const override;

 private:
  // Of the output: a thought, a text or a call, in the order in which they were begun.
  struct Item {
    enum class Kind : uint8_t { kReasoning, kMessage, kCall };
    Kind kind;
    std::string id;
    std::string text;  // or the thought
    ToolCall call{};
  };

  std::string add(AnswerSplitter::Parts parts);
  std::string add_to(Item::Kind kind, std::string_view text);
  std::string add_call(ToolCall call);
  std::string end_item();
  std::string end(const AnswerEvent& event);
  // "completed" or "incomplete", once finished without a failure.
  std::string_view end_status() const;
  std::string item_id(std::string_view prefix) const;

  // Begins an event's object, with its type and number.
  JsonWriter begin_event(std::string_view type);
  // The same with the last item's id and place.
  JsonWriter begin_item_event(std::string_view type, bool in_content);
  std::string item_event(std::string_view type, std::string_view status);
  std::string part_event(std::string_view type, std::string_view text);
  std::string response_event(std::string_view type, std::string_view status, uint64_t number) const;
  static void write_item(JsonWriter& json, const Item& item, std::string_view status);
  void write_response(JsonWriter& json, std::string_view status) const;
  void write_usage(JsonWriter& json) const;

  const std::string id_, model_;
  const int64_t created_;
  const size_t n_prompt_;
  const bool stream_;
  const SamplerOptions sampler_;
  const std::vector<std::pair<std::string, std::string>> echoed_;
  AnswerSplitter splitter_;
  std::vector<Item> items_;
  bool open_ = false;      // the last item may go on
  uint64_t n_events_ = 2;  // those of stream_begin() come first
  size_t n_tokens_ = 0, n_thought_tokens_ = 0, n_reused_ = 0;
  std::optional<AnswerEvent> end_;  // the last event
};

}  // namespace quern
