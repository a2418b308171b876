// Answers of Anthropic's protocol for messages: whole, and as the typed events of a stream.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "cli/serve/answer_splitter.h"
#include "cli/serve/completion_request.h"
#include "cli/serve/reply.h"
#include "quant/json/json_writer.h"

namespace quern {

class MessagesReply : public Reply {
 public:
  MessagesReply(std::string id, std::string model, const CompletionRequest& request);

  // A prompt's progress is a comment.
  std::string push(size_t index, const AnswerEvent& event) override;
  bool finished() const override { return end_.has_value(); }
  const AnswerEvent* failure() const override {
    return end_ && end_->kind == AnswerEvent::Kind::kFailed ? &*end_ : nullptr;
  }
  std::string stream_begin() const override;
  std::string stream_end() const override { return {}; }
  std::string heartbeat() const override;
  std::string whole() const override;

 private:
  enum class Block : uint8_t { kNone, kThinking, kText };

  std::string add(const AnswerSplitter::Parts& parts);
  std::string add_call(const ToolCall& call);
  std::string add_to(Block block, std::string_view text);
  std::string end_block();
  std::string stop_block();
  std::string end(const AnswerEvent& event);
  void write_stop(JsonWriter& json) const;

  const std::string id_, model_;
  const size_t n_prompt_;
  const bool stream_;
  AnswerSplitter splitter_;
  AnswerSplitter::Parts said_;  // so far
  size_t n_tokens_ = 0;
  Block block_ = Block::kNone;      // of the stream, that has not ended
  size_t n_blocks_ = 0;             // that have
  std::optional<AnswerEvent> end_;  // the last event
};

// {"type": "error", "error": {"type", "message"}}; the type is the status' own.
std::string messages_error_json(int status, std::string_view message);
// {"input_tokens": n}
std::string token_count_json(size_t n);

}  // namespace quern
