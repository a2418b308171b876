#include "cli/serve/responses_reply.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace quern {
namespace {

// Why it has ended early; empty: it has not.
std::string_view incomplete_reason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEndOfText:
    case FinishReason::kStopText:
      return {};
    case FinishReason::kMaxTokens:
    case FinishReason::kContextFull:
      return "max_output_tokens";
    case FinishReason::kInterrupted:
      break;
  }
  return "cancelled";
}

void write_part(JsonWriter& json, bool is_thought, std::string_view text) {
  json.begin_object().field("type", is_thought ? "reasoning_text" : "output_text").field("text", text);
  if (!is_thought)
    json.key("annotations").begin_array().end_array().key("logprobs").begin_array().end_array();
  json.end_object();
}

}  // namespace

ResponsesReply::ResponsesReply(std::string id, std::string model, const CompletionRequest& request)
    : id_(std::move(id)),
      model_(std::move(model)),
      created_(std::time(nullptr)),
      n_prompt_(request.prompts.front().size()),
      stream_(request.stream),
      sampler_(request.options.sampler),
      echoed_(request.echoed),
      splitter_(request, request.call_seed(), 0) {}

std::string ResponsesReply::push(size_t, const AnswerEvent& event) {
  switch (event.kind) {
    case AnswerEvent::Kind::kPrompt:
      n_reused_ = event.n_reused;
      return stream_ ? sse_progress(event.n_prompt, n_prompt_) : "";
    case AnswerEvent::Kind::kPromptToken:
      return {};
    case AnswerEvent::Kind::kToken: {
      ++n_tokens_;
      std::string events = add(splitter_.push(event.text));
      if (!items_.empty() && items_.back().kind == Item::Kind::kReasoning) n_thought_tokens_ = n_tokens_;
      return events;
    }
    case AnswerEvent::Kind::kFinished:
      return end(event);
    case AnswerEvent::Kind::kFailed:
      end_ = event;
      return stream_ ? response_event("response.failed", "failed", n_events_++) : "";
  }
  return {};
}

std::string ResponsesReply::add(AnswerSplitter::Parts parts) {
  std::string events;
  if (!parts.thought.empty()) events += add_to(Item::Kind::kReasoning, parts.thought);
  if (!parts.text.empty()) events += add_to(Item::Kind::kMessage, parts.text);
  for (ToolCall& call : parts.calls) events += add_call(std::move(call));
  return stream_ ? events : "";
}

std::string ResponsesReply::add_to(Item::Kind kind, std::string_view text) {
  const bool is_thought = kind == Item::Kind::kReasoning;
  std::string events;
  if (!open_ || items_.back().kind != kind) {
    events = end_item();
    items_.push_back({kind, item_id(is_thought ? "rs" : "msg"), {}});
    open_ = true;
    events += item_event("response.output_item.added", "in_progress");
    events += part_event("response.content_part.added", "");
  }
  items_.back().text += text;
  if (text.empty()) return events;
  const std::string_view type = is_thought ? "response.reasoning_text.delta" : "response.output_text.delta";
  JsonWriter json = begin_item_event(type, true);
  json.field("delta", text);
  if (!is_thought) json.key("logprobs").begin_array().end_array();
  return events + sse_event(type, json.end_object().text());
}

// Each is an item of its own, and whole.
std::string ResponsesReply::add_call(ToolCall call) {
  std::string events = end_item();
  const std::string arguments = std::exchange(call.arguments, {});
  items_.push_back({Item::Kind::kCall, item_id("fc"), {}, std::move(call)});
  events += item_event("response.output_item.added", "in_progress");
  items_.back().call.arguments = arguments;
  JsonWriter delta = begin_item_event("response.function_call_arguments.delta", false);
  delta.field("delta", arguments);
  events += sse_event("response.function_call_arguments.delta", delta.end_object().text());
  JsonWriter done = begin_item_event("response.function_call_arguments.done", false);
  done.field("name", items_.back().call.name).field("arguments", arguments);
  events += sse_event("response.function_call_arguments.done", done.end_object().text());
  return events + item_event("response.output_item.done", "completed");
}

std::string ResponsesReply::end_item() {
  if (!std::exchange(open_, false)) return {};
  const Item& item = items_.back();
  const bool is_thought = item.kind == Item::Kind::kReasoning;
  const std::string_view type = is_thought ? "response.reasoning_text.done" : "response.output_text.done";
  JsonWriter json = begin_item_event(type, true);
  json.field("text", item.text);
  if (!is_thought) json.key("logprobs").begin_array().end_array();
  std::string events = sse_event(type, json.end_object().text());
  events += part_event("response.content_part.done", item.text);
  const bool cut = end_ && !incomplete_reason(end_->reason).empty();
  return events + item_event("response.output_item.done", cut ? "incomplete" : "completed");
}

std::string ResponsesReply::end(const AnswerEvent& event) {
  end_ = event;
  std::string events = add(splitter_.push(event.text));
  events += add(splitter_.finish());
  if (items_.empty()) events += add_to(Item::Kind::kMessage, "");
  events += end_item();
  if (!stream_) return {};
  return events + response_event(fmt::format("response.{}", end_status()), end_status(), n_events_++);
}

std::string_view ResponsesReply::end_status() const {
  return incomplete_reason(end_->reason).empty() ? "completed" : "incomplete";
}

std::string ResponsesReply::item_id(std::string_view prefix) const {
  return fmt::format("{}_{}{:04x}", prefix, std::string_view(id_).substr(kIdPrefix.size()), items_.size());
}

JsonWriter ResponsesReply::begin_event(std::string_view type) {
  JsonWriter json;
  json.begin_object().field("type", type).field("sequence_number", n_events_++);
  return json;
}

JsonWriter ResponsesReply::begin_item_event(std::string_view type, bool in_content) {
  JsonWriter json = begin_event(type);
  json.field("item_id", items_.back().id).field("output_index", items_.size() - 1);
  if (in_content) json.field("content_index", 0);
  return json;
}

std::string ResponsesReply::part_event(std::string_view type, std::string_view text) {
  JsonWriter json = begin_item_event(type, true);
  write_part(json.key("part"), items_.back().kind == Item::Kind::kReasoning, text);
  return sse_event(type, json.end_object().text());
}

std::string ResponsesReply::item_event(std::string_view type, std::string_view status) {
  JsonWriter json = begin_event(type);
  json.field("output_index", items_.size() - 1);
  write_item(json.key("item"), items_.back(), status);
  return sse_event(type, json.end_object().text());
}

// status: an item that has just begun has no content yet.
void ResponsesReply::write_item(JsonWriter& json, const Item& item, std::string_view status) {
  const bool begun = status == "in_progress";
  json.begin_object().field("id", item.id);
  switch (item.kind) {
    case Item::Kind::kReasoning:
      json.field("type", "reasoning").key("summary").begin_array().end_array();
      json.key("content").begin_array();
      if (!begun) write_part(json, true, item.text);
      json.end_array();
      break;
    case Item::Kind::kMessage:
      json.field("type", "message").field("role", "assistant").key("content").begin_array();
      if (!begun) write_part(json, false, item.text);
      json.end_array();
      break;
    case Item::Kind::kCall:
      json.field("type", "function_call").field("call_id", item.call.id).field("name", item.call.name);
      json.field("arguments", item.call.arguments);
      break;
  }
  json.field("status", status).end_object();
}

std::string ResponsesReply::response_event(std::string_view type, std::string_view status,
                                           uint64_t number) const {
  JsonWriter json;
  json.begin_object().field("type", type).field("sequence_number", number);
  write_response(json.key("response"), status);
  return sse_event(type, json.end_object().text());
}

void ResponsesReply::write_usage(JsonWriter& json) const {
  json.begin_object().field("input_tokens", n_prompt_).key("input_tokens_details").begin_object();
  json.field("cached_tokens", std::min(n_reused_, n_prompt_)).end_object();
  json.field("output_tokens", n_tokens_).key("output_tokens_details").begin_object();
  json.field("reasoning_tokens", n_thought_tokens_).end_object();
  json.field("total_tokens", n_prompt_ + n_tokens_).end_object();
}

void ResponsesReply::write_response(JsonWriter& json, std::string_view status) const {
  json.begin_object().field("id", id_).field("object", "response").field("created_at", created_);
  json.field("status", status).field("model", model_).key("error");
  if (failure() != nullptr)
    json.begin_object().field("code", "server_error").field("message", failure()->text).end_object();
  else
    json.null();
  json.key("incomplete_details");
  if (status == "incomplete")
    json.begin_object().field("reason", incomplete_reason(end_->reason)).end_object();
  else
    json.null();
  json.key("output").begin_array();
  const bool is_over = status != "in_progress";
  for (const Item& item : items_) {
    const bool cut = (status == "incomplete" || (failure() != nullptr && open_)) && &item == &items_.back() &&
                     item.kind != Item::Kind::kCall;
    if (is_over) write_item(json, item, cut ? "incomplete" : "completed");
  }
  json.end_array();
  for (const auto& [name, value] : echoed_) json.key(name).literal(value);
  json.field("temperature", sampler_.temperature).field("top_p", sampler_.top_p);
  json.field("store", false).field("background", false).field("truncation", "disabled");
  json.key("previous_response_id").null().key("usage");
  if (is_over && failure() == nullptr)
    write_usage(json);
  else
    json.null();
  json.end_object();
}

std::string ResponsesReply::stream_begin() const {
  return response_event("response.created", "in_progress", 0) +
         response_event("response.in_progress", "in_progress", 1);
}

std::string ResponsesReply::whole() const {
  JsonWriter json;
  write_response(json, end_status());
  return json.text();
}

}  // namespace quern
