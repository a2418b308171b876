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

std::string typed_event(std::string_view type, const JsonWriter& json) {
  return fmt::format("event: {}\ndata: {}\n\n", type, json.text());
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
      splits_thought_(request.splits_thought),
      call_seed_(request.call_seed()),
      splitter_(request.begins_in_thought),
      call_splitter_(request.tool_format) {}

std::string MessagesReply::push(size_t, const AnswerEvent& event) {
  switch (event.kind) {
    case AnswerEvent::Kind::kPrompt:
      return stream_ ? fmt::format(": prompt {}/{}\n\n", event.n_prompt, n_prompt_) : "";
    case AnswerEvent::Kind::kPromptToken:
      return {};
    case AnswerEvent::Kind::kToken:
      ++n_tokens_;
      return add(splits_thought_ ? splitter_.push(event.text) : ThoughtSplitter::Parts{{}, event.text});
    case AnswerEvent::Kind::kFinished:
      return end(event);
    case AnswerEvent::Kind::kFailed: {
      end_ = event;
      finished_ = failed_ = true;
      return stream_ ? fmt::format("event: error\ndata: {}\n\n", messages_error_json(500, event.text)) : "";
    }
  }
  return {};
}

std::string MessagesReply::add(const ThoughtSplitter::Parts& parts) {
  const ToolCallSplitter::Parts split = call_splitter_.push(parts.text);
  thought_ += parts.thought;
  text_ += split.text;
  std::string events;
  if (!parts.thought.empty()) events += add_to(Block::kThinking, parts.thought);
  if (!split.text.empty()) events += add_to(Block::kText, split.text);
  events += add_calls(split.calls);
  return stream_ ? events : "";
}

// Each is a block of its own.
std::string MessagesReply::add_calls(std::vector<ToolCall> calls) {
  std::string events;
  for (ToolCall& call : calls) {
    if (call.id.empty()) call.id = make_call_id(call_seed_, 0, calls_.size());
    events += end_block();
    JsonWriter start;
    start.begin_object().field("type", "content_block_start").field("index", n_blocks_);
    write_call(start.key("content_block"), call, "{}");
    events += typed_event("content_block_start", start.end_object());
    JsonWriter json;
    json.begin_object().field("type", "content_block_delta").field("index", n_blocks_).key("delta");
    json.begin_object().field("type", "input_json_delta").field("partial_json", call.arguments).end_object();
    events += typed_event("content_block_delta", json.end_object());
    events += stop_block();
    calls_.push_back(std::move(call));
  }
  return events;
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
    events += typed_event("content_block_start", start.end_object());
  }
  if (text.empty()) return events;
  JsonWriter json;
  json.begin_object().field("type", "content_block_delta").field("index", n_blocks_).key("delta");
  json.begin_object().field("type", is_thinking ? "thinking_delta" : "text_delta");
  json.field(is_thinking ? "thinking" : "text", text).end_object();
  return events + typed_event("content_block_delta", json.end_object());
}

std::string MessagesReply::end_block() {
  if (std::exchange(block_, Block::kNone) == Block::kNone) return {};
  return stop_block();
}

std::string MessagesReply::stop_block() {
  JsonWriter json;
  json.begin_object().field("type", "content_block_stop").field("index", n_blocks_++);
  return typed_event("content_block_stop", json.end_object());
}

std::string MessagesReply::end(const AnswerEvent& event) {
  end_ = event;
  finished_ = true;
  std::string events;
  if (splits_thought_) {
    events = add(splitter_.push(event.text));
    events += add(splitter_.finish());
  } else {
    events = add({{}, event.text});
  }
  const std::string rest = call_splitter_.finish().text;
  text_ += rest;
  if (!rest.empty()) events += add_to(Block::kText, rest);
  if (!stream_) return {};
  if (text_.empty() && thought_.empty() && calls_.empty()) events += add_to(Block::kText, "");
  events += end_block();
  JsonWriter json;
  json.begin_object().field("type", "message_delta").key("delta").begin_object();
  write_stop(json);
  json.end_object().key("usage").begin_object();
  json.field("input_tokens", n_prompt_).field("output_tokens", n_tokens_).end_object();
  events += typed_event("message_delta", json.end_object());
  JsonWriter stop;
  return events + typed_event("message_stop", stop.begin_object().field("type", "message_stop").end_object());
}

void MessagesReply::write_stop(JsonWriter& json) const {
  const bool calls = end_.reason == FinishReason::kEndOfText && !calls_.empty();
  json.field("stop_reason", calls ? "tool_use" : stop_reason(end_.reason)).key("stop_sequence");
  end_.stop_text.empty() ? json.null() : json.value(end_.stop_text);
}

std::string MessagesReply::stream_begin() const {
  JsonWriter json;
  json.begin_object().field("type", "message_start").key("message").begin_object();
  json.field("id", id_).field("type", "message").field("role", "assistant").field("model", model_);
  json.key("content").begin_array().end_array();
  json.key("stop_reason").null().key("stop_sequence").null().key("usage").begin_object();
  json.field("input_tokens", n_prompt_).field("output_tokens", 0).end_object().end_object();
  return typed_event("message_start", json.end_object()) + heartbeat();
}

std::string MessagesReply::heartbeat() const {
  JsonWriter json;
  return typed_event("ping", json.begin_object().field("type", "ping").end_object());
}

std::string MessagesReply::whole() const {
  JsonWriter json;
  json.begin_object().field("id", id_).field("type", "message").field("role", "assistant");
  json.field("model", model_).key("content").begin_array();
  if (!thought_.empty()) write_block(json, true, thought_);
  if (!text_.empty() || (thought_.empty() && calls_.empty())) write_block(json, false, text_);
  for (const ToolCall& call : calls_) write_call(json, call, call.arguments);
  json.end_array();
  write_stop(json);
  json.key("usage").begin_object();
  json.field("input_tokens", n_prompt_).field("output_tokens", n_tokens_).end_object();
  return json.end_object().text();
}

}  // namespace quern
