// Answers of OpenAI's protocol for responses: whole, and as the typed events of a stream.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/serve/completion_request.h"
#include "cli/serve/reply.h"
#include "cli/thinking.h"
#include "cli/tool_calls.h"
#include "quant/json/json_writer.h"

namespace quern {

class ResponsesReply : public Reply {
 public:
  // id: "resp_..."
  ResponsesReply(std::string id, std::string model, const CompletionRequest& request);

  // A prompt's progress is a comment.
  std::string push(size_t index, const AnswerEvent& event) override;
  bool finished() const override { return finished_; }
  const AnswerEvent* failure() const override { return failed_ ? &end_ : nullptr; }
  std::string stream_begin() const override;
  std::string stream_end() const override { return {}; }
  std::string heartbeat() const override { return ": waiting\n\n"; }
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

  std::string add(const ThoughtSplitter::Parts& parts);
  std::string add_to(Item::Kind kind, std::string_view text);
  std::string add_call(ToolCall call);
  std::string end_item();
  std::string end(const AnswerEvent& event);
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
  const bool stream_, splits_thought_;
  const uint64_t call_seed_;
  const SamplerOptions sampler_;
  const std::vector<std::pair<std::string, std::string>> echoed_;
  ThoughtSplitter splitter_;
  ToolCallSplitter call_splitter_;
  std::vector<Item> items_;
  bool open_ = false;  // the last item may go on
  bool in_thought_ = false;
  uint64_t n_events_ = 2;  // those of stream_begin() come first
  size_t n_tokens_ = 0, n_thought_tokens_ = 0, n_reused_ = 0, n_calls_ = 0;
  bool finished_ = false, failed_ = false;
  AnswerEvent end_{};  // the last event
};

}  // namespace quern
