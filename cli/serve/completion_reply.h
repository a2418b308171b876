// Answers of OpenAI's protocol for completions: whole, and as the events of a stream.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/serve/answer_splitter.h"
#include "cli/serve/completion_request.h"
#include "cli/serve/reply.h"
#include "quant/json/json_writer.h"

namespace quern {

class CompletionReply : public Reply {
 public:
  // kind: kChat or kText.
  CompletionReply(CompletionKind kind, const Tokenizer& tokenizer, std::string id, std::string model,
                  const CompletionRequest& request);

  // A prompt's progress is a comment.
  std::string push(size_t index, const AnswerEvent& event) override;
  bool finished() const override { return n_finished_ == choices_.size(); }
  const AnswerEvent* failure() const override { return failure_ ? &*failure_ : nullptr; }
  std::string stream_begin() const override;
  std::string stream_end() const override;
  std::string heartbeat() const override { return std::string(kSseWaiting); }
  std::string whole() const override;

 private:
  using Parts = AnswerSplitter::Parts;
  struct Choice {
    AnswerSplitter splitter;
    Parts said{};                       // so far
    std::vector<AnswerEvent> tokens{};  // with probabilities, where wanted; of a stream the prompt's
    size_t n_prompt_tokens = 0;         // at the start of `tokens`
    size_t n_tokens = 0, n_reused = 0;
    FinishReason reason = FinishReason::kInterrupted;
  };
  // OpenAI's word for why a choice has ended.
  static std::string_view end_of(const Choice& choice);

  // Of a stream, once the prompt is read: its text with the probabilities of its tokens, where they are
  // wanted.
  std::string scored_echo(size_t index);
  // Notes what more of the answer there is.
  Parts add(size_t index, std::string_view text, bool last);
  // parts: noted already. reason: why the answer has ended; empty: it goes on.
  std::string chunk(size_t index, const Parts& parts, std::span<const AnswerEvent> tokens,
                    std::string_view reason, bool first) const;
  void write_head(JsonWriter& json, bool is_chunk) const;
  void write_usage(JsonWriter& json) const;
  static void write_calls(JsonWriter& json, std::span<const ToolCall> calls, std::optional<size_t> first);
  void write_log_probs(JsonWriter& json, std::span<const AnswerEvent> tokens, size_t text_offset) const;
  void write_chance(JsonWriter& json, TokenId id, double log_prob) const;
  std::string spelling(TokenId id) const;

  const CompletionKind kind_;
  const Tokenizer& tokenizer_;
  const std::string id_, model_;
  const int64_t created_;
  const bool stream_, include_usage_, log_probs_;
  size_t n_prompt_tokens_ = 0;  // of all prompts
  std::vector<size_t> prompt_sizes_;
  std::vector<Choice> choices_;
  std::vector<std::string> echoes_;  // by choice: the prompt's text; empty: no echo
  size_t n_finished_ = 0;
  std::optional<AnswerEvent> failure_;  // the first
};

// {"error": {...}}
std::string error_json(std::string_view type, std::string_view message, std::string_view param = {},
                       std::string_view code = {});

}  // namespace quern
