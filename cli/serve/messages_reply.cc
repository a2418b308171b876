#include "cli/serve/messages_reply.h"

#include <fmt/format.h>

#include <utility>

#include "quant/json/json_writer.h"

namespace quern {
namespace {

std::string_view stop_reason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEndOfText:
      return "end_turn";
    case FinishReason::kStopText:
      return "stop_sequence";
    case FinishReason::kMaxTokens:
      return "max_tokens";
    case FinishReason::kContextFull:
      return "model_context_window_exceeded";
    case FinishReason::kInterrupted:
      break;
  }
  return "cancelled";
}

std::string_view error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status < 500 ? kInvalidRequest : "api_error";
  }
}

void write_block(JsonWriter& json, bool is_thinking, std::string_view text) {
  json.begin_object();
  if (is_thinking)
    json.field("type", "thinking").field("thinking", text).field("signature", "");
  else
    json.field("type", "text").field("text", text);
  json.end_object();
}

// input: JSON.
void write_call(JsonWriter& json, const ToolCall& call, std::string_view input) {
  json.begin_object().field("type", "tool_use").field("id", call.id).field("name", call.name);
  json.key("input").literal(input).end_object();
}

}  // namespace

std::string messages_error_json(int status, std::string_view message) {
  JsonWriter json;
  json.begin_object().field("type", "error").key("error").begin_object();
  json.field("type", error_type(status)).field("message", message).end_object();
  return json.end_object().text();
}

std::string token_count_json(size_t n) {
  JsonWriter json;
  return json.begin_object().field("input_tokens", n).end_object().text();
}

MessagesReply::MessagesReply(std::string id, std::string model, const CompletionRequest& request)
    : id_(std::move(id)),
      model_(std::move(model)),
      n_prompt_(request.prompts.front().size()),
      stream_(request.stream),
      splitter_(request, request.call_seed(), 0) {}

std::string MessagesReply::push(size_t, const AnswerEvent& event) {
  switch (event.kind) {
    case AnswerEvent::Kind::kPrompt:
      return stream_ ? sse_progress(event.n_prompt, n_prompt_) : "";
    case AnswerEvent::Kind::kPromptToken:
      return {};
    case AnswerEvent::Kind::kToken:
      ++n_tokens_;
      return add(splitter_.push(event.text));
    case AnswerEvent::Kind::kFinished:
      return end(event);
    case AnswerEvent::Kind::kFailed:
      end_ = event;
      return stream_ ? sse_event("error", messages_error_json(500, event.text)) : "";
  }
  return {};
}

std::string MessagesReply::add(const AnswerSplitter::Parts& parts) {
  said_ += parts;
  if (!stream_) return {};
  std::string events;
  if (!parts.thought.empty()) events += add_to(Block::kThinking, parts.thought);
  if (!parts.text.empty()) events += add_to(Block::kText, parts.text);
  for (const ToolCall& call : parts.calls) events += add_call(call);
  return events;
}

// Each is a block of its own.
std::string MessagesReply::add_call(const ToolCall& call) {
  std::string events = end_block();
  JsonWriter start;
  start.begin_object().field("type", "content_block_start").field("index", n_blocks_);
  write_call(start.key("content_block"), call, "{}");
  events += sse_event("content_block_start", start.end_object().text());
  JsonWriter json;
  json.begin_object().field("type", "content_block_delta").field("index", n_blocks_).key("delta");
  json.begin_object().field("type", "input_json_delta").field("partial_json", call.arguments).end_object();
  events += sse_event("content_block_delta", json.end_object().text());
  return events + stop_block();
}

std::string MessagesReply::add_to(Block block, std::string_view text) {
  const bool is_thinking = block == Block::kThinking;
  std::string events;
  if (block_ != block) {
    events = end_block();
    block_ = block;
    JsonWriter start;
    start.begin_object().field("type", "content_block_start").field("index", n_blocks_);
    write_block(start.key("content_block"), is_thinking, "");
    events += sse_event("content_block_start", start.end_object().text());
  }
  if (text.empty()) return events;
  JsonWriter json;
  json.begin_object().field("type", "content_block_delta").field("index", n_blocks_).key("delta");
  json.begin_object().field("type", is_thinking ? "thinking_delta" : "text_delta");
  json.field(is_thinking ? "thinking" : "text", text).end_object();
  return events + sse_event("content_block_delta", json.end_object().text());
}

std::string MessagesReply::end_block() {
  if (std::exchange(block_, Block::kNone) == Block::kNone) return {};
  return stop_block();
}

std::string MessagesReply::stop_block() {
  JsonWriter json;
  json.begin_object().field("type", "content_block_stop").field("index", n_blocks_++);
  return sse_event("content_block_stop", json.end_object().text());
}

std::string MessagesReply::end(const AnswerEvent& event) {
  end_ = event;
  std::string events = add(splitter_.push(event.text));
  events += add(splitter_.finish());
  if (!stream_) return {};
  if (said_.empty()) events += add_to(Block::kText, "");
  events += end_block();
  JsonWriter json;
  json.begin_object().field("type", "message_delta").key("delta").begin_object();
  write_stop(json);
  json.end_object().key("usage").begin_object();
  json.field("input_tokens", n_prompt_).field("output_tokens", n_tokens_).end_object();
  events += sse_event("message_delta", json.end_object().text());
  JsonWriter stop;
  return events +
         sse_event("message_stop", stop.begin_object().field("type", "message_stop").end_object().text());
}

void MessagesReply::write_stop(JsonWriter& json) const {
  const bool calls = end_->reason == FinishReason::kEndOfText && !said_.calls.empty();
  json.field("stop_reason", calls ? "tool_use" : stop_reason(end_->reason)).key("stop_sequence");
  end_->stop_text.empty() ? json.null() : json.value(end_->stop_text);
}

std::string MessagesReply::stream_begin() const {
  JsonWriter json;
  json.begin_object().field("type", "message_start").key("message").begin_object();
  json.field("id", id_).field("type", "message").field("role", "assistant").field("model", model_);
  json.key("content").begin_array().end_array();
  json.key("stop_reason").null().key("stop_sequence").null().key("usage").begin_object();
  json.field("input_tokens", n_prompt_).field("output_tokens", 0).end_object().end_object();
  return sse_event("message_start", json.end_object().text()) + heartbeat();
}

std::string MessagesReply::heartbeat() const {
  JsonWriter json;
  return sse_event("ping", json.begin_object().field("type", "ping").end_object().text());
}

std::string MessagesReply::whole() const {
  JsonWriter json;
  json.begin_object().field("id", id_).field("type", "message").field("role", "assistant");
  json.field("model", model_).key("content").begin_array();
  if (!said_.thought.empty()) write_block(json, true, said_.thought);
  if (!said_.text.empty() || said_.empty()) write_block(json, false, said_.text);
  for (const ToolCall& call : said_.calls) write_call(json, call, call.arguments);
  json.end_array();
  write_stop(json);
  json.key("usage").begin_object();
  json.field("input_tokens", n_prompt_).field("output_tokens", n_tokens_).end_object();
  return json.end_object().text();
}

}  // namespace quern
