#include "cli/serve/completion_reply.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "cli/generation_report.h"

namespace quern {
namespace {

// Who interrupts an answer here is who asked for it.
std::string_view reason_name(FinishReason reason) {
  return reason == FinishReason::kInterrupted ? "cancelled" : finish_reason(reason);
}

void field_or_null(JsonWriter& json, std::string_view name, std::string_view text) {
  if (text.empty())
    json.key(name).null();
  else
    json.field(name, text);
}

}  // namespace

std::string error_json(std::string_view type, std::string_view message, std::string_view param,
                       std::string_view code) {
  JsonWriter json;
  json.begin_object().key("error").begin_object().field("message", message).field("type", type);
  field_or_null(json, "param", param);
  field_or_null(json, "code", code);
  return json.end_object().end_object().text();
}

CompletionReply::CompletionReply(CompletionKind kind, const Tokenizer& tokenizer, std::string id,
                                 std::string model, const CompletionRequest& request)
    : kind_(kind),
      tokenizer_(tokenizer),
      id_(std::move(id)),
      model_(std::move(model)),
      created_(std::time(nullptr)),
      stream_(request.stream),
      include_usage_(request.include_usage),
      log_probs_(request.log_probs) {
  for (const auto& prompt : request.prompts) n_prompt_tokens_ += prompt.size();
  const uint64_t call_seed = request.call_seed();
  for (size_t i = 0; i < request.prompts.size() * request.n; ++i) {
    const std::vector<TokenId>& prompt = request.prompts[i / request.n];
    prompt_sizes_.push_back(prompt.size());
    echoes_.push_back(request.echo ? request.prompt_texts[i / request.n] : "");
    Choice& choice = choices_.emplace_back(Choice{AnswerSplitter(request, call_seed, i)});
    choice.said.text = echoes_[i];
    if (!request.echo || !log_probs_) continue;
    AnswerEvent first{};  // nothing comes before it, so it has no probability
    first.kind = AnswerEvent::Kind::kPromptToken;
    first.token = prompt.front();
    choice.tokens.push_back(first);
    choice.n_prompt_tokens = 1;
  }
}

std::string CompletionReply::push(size_t index, const AnswerEvent& event) {
  Choice& choice = choices_[index];
  switch (event.kind) {
    case AnswerEvent::Kind::kPrompt:
      choice.n_reused = event.n_reused;
      return stream_ ? sse_progress(event.n_prompt, prompt_sizes_[index]) : "";
    case AnswerEvent::Kind::kPromptToken:
      choice.tokens.push_back(event);
      ++choice.n_prompt_tokens;
      return {};
    case AnswerEvent::Kind::kToken: {
      std::string events = scored_echo(index);
      ++choice.n_tokens;
      if (log_probs_ && !stream_) choice.tokens.push_back(event);
      const Parts parts = add(index, event.text, false);
      if (!stream_ || (parts.empty() && !log_probs_)) return events;
      return events + chunk(index, parts, std::span(&event, log_probs_ ? 1 : 0), {}, false);
    }
    case AnswerEvent::Kind::kFinished: {
      std::string events = scored_echo(index);
      choice.reason = event.reason;
      const Parts parts = add(index, event.text, true);
      ++n_finished_;
      if (!stream_) return {};
      if (!parts.empty()) events += chunk(index, parts, {}, {}, false);
      return events + chunk(index, {}, {}, end_of(choice), false);
    }
    case AnswerEvent::Kind::kFailed:
      ++n_finished_;
      if (!failure_) failure_ = event;
      return stream_ ? sse_event(error_json("server_error", event.text)) : "";
  }
  return {};
}

std::string CompletionReply::scored_echo(size_t index) {
  Choice& choice = choices_[index];
  if (!stream_ || choice.n_prompt_tokens == 0) return {};
  choice.n_prompt_tokens = 0;
  const std::vector<AnswerEvent> tokens = std::exchange(choice.tokens, {});
  return chunk(index, {{}, echoes_[index]}, tokens, {}, true);
}

CompletionReply::Parts CompletionReply::add(size_t index, std::string_view text, bool last) {
  Choice& choice = choices_[index];
  Parts parts = choice.splitter.push(text);
  if (last) parts += choice.splitter.finish();
  choice.said += parts;
  return parts;
}

std::string_view CompletionReply::end_of(const Choice& choice) {
  return choice.reason == FinishReason::kEndOfText && !choice.said.calls.empty() ? "tool_calls"
                                                                                 : reason_name(choice.reason);
}

// first: the number of the first of them, in a chunk of a stream.
void CompletionReply::write_calls(JsonWriter& json, std::span<const ToolCall> calls,
                                  std::optional<size_t> first) {
  if (calls.empty()) return;
  json.key("tool_calls").begin_array();
  for (size_t i = 0; i < calls.size(); ++i) {
    json.begin_object();
    if (first) json.field("index", *first + i);
    json.field("id", calls[i].id).field("type", "function").key("function").begin_object();
    json.field("name", calls[i].name).field("arguments", calls[i].arguments).end_object().end_object();
  }
  json.end_array();
}

void CompletionReply::write_head(JsonWriter& json, bool is_chunk) const {
  const bool chat = kind_ == CompletionKind::kChat;
  json.field("id", id_)
      .field("object", !chat      ? "text_completion"
                       : is_chunk ? "chat.completion.chunk"
                                  : "chat.completion")
      .field("created", created_)
      .field("model", model_)
      .field("system_fingerprint", "quern-" QUERN_VERSION);
}

void CompletionReply::write_usage(JsonWriter& json) const {
  size_t n_tokens = 0, n_reused = 0;
  for (const Choice& choice : choices_) {
    n_tokens += choice.n_tokens;
    n_reused = std::max(n_reused, choice.n_reused);
  }
  json.key("usage")
      .begin_object()
      .field("prompt_tokens", n_prompt_tokens_)
      .field("completion_tokens", n_tokens)
      .field("total_tokens", n_prompt_tokens_ + n_tokens)
      .key("prompt_tokens_details")
      .begin_object()
      .field("cached_tokens", std::min(n_reused, n_prompt_tokens_))
      .end_object()
      .end_object();
}

std::string CompletionReply::spelling(TokenId id) const {
  const DecodedPiece& piece = tokenizer_.decoded(id);
  return piece.kind == DecodedPiece::Kind::kControl ? tokenizer_.piece(id) : piece.text;
}

void CompletionReply::write_chance(JsonWriter& json, TokenId id, double log_prob) const {
  const std::string text = spelling(id);
  json.field("token", text).field("logprob", log_prob).key("bytes").begin_array();
  for (const char c : text) json.value(static_cast<unsigned>(static_cast<unsigned char>(c)));
  json.end_array();
}

void CompletionReply::write_log_probs(JsonWriter& json, std::span<const AnswerEvent> tokens,
                                      size_t text_offset) const {
  json.key("logprobs");
  if (!log_probs_) {
    json.null();
    return;
  }
  json.begin_object();
  if (kind_ == CompletionKind::kChat) {
    json.key("content").begin_array();
    for (const AnswerEvent& token : tokens) {
      json.begin_object();
      write_chance(json, token.token, token.log_prob);
      json.key("top_logprobs").begin_array();
      for (const TokenChance& chance : token.top) {
        json.begin_object();
        write_chance(json, chance.id, chance.log_prob);
        json.end_object();
      }
      json.end_array().end_object();
    }
    json.end_array().key("refusal").null().end_object();
    return;
  }
  const auto has_none = [&](size_t i) {
    return tokens[i].log_prob == 0 && tokens[i].top.empty() && i == 0 &&
           tokens[i].kind == AnswerEvent::Kind::kPromptToken;
  };
  json.key("tokens").begin_array();
  for (const AnswerEvent& token : tokens) json.value(spelling(token.token));
  json.end_array().key("token_logprobs").begin_array();
  for (size_t i = 0; i < tokens.size(); ++i) has_none(i) ? json.null() : json.value(tokens[i].log_prob);
  json.end_array().key("top_logprobs").begin_array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (has_none(i)) {
      json.null();
      continue;
    }
    json.begin_object();
    std::vector<std::string> seen;  // two ids may be spelled alike: the likelier counts
    for (const TokenChance& chance : tokens[i].top) {
      const std::string text = spelling(chance.id);
      if (std::find(seen.begin(), seen.end(), text) != seen.end()) continue;
      seen.push_back(text);
      json.field(text, chance.log_prob);
    }
    json.end_object();
  }
  json.end_array().key("text_offset").begin_array();
  for (const AnswerEvent& token : tokens) {
    json.value(text_offset);
    const DecodedPiece& piece = tokenizer_.decoded(token.token);
    const bool loses_space = text_offset == 0 && piece.begins_with_prefix;
    text_offset += piece.text.size() - (loses_space ? 1 : 0);  // a control token has no text
  }
  json.end_array().end_object();
}

std::string CompletionReply::chunk(size_t index, const Parts& parts, std::span<const AnswerEvent> tokens,
                                   std::string_view reason, bool first) const {
  JsonWriter json;
  json.begin_object();
  write_head(json, true);
  json.key("choices").begin_array().begin_object().field("index", index);
  if (kind_ == CompletionKind::kChat) {
    json.key("delta").begin_object();
    if (first) json.field("role", "assistant");
    if (!parts.thought.empty()) json.field("reasoning_content", parts.thought);
    const bool has_others = !parts.thought.empty() || !parts.calls.empty();
    if (first || (reason.empty() && (!has_others || !parts.text.empty()))) json.field("content", parts.text);
    write_calls(json, parts.calls, choices_[index].said.calls.size() - parts.calls.size());
    json.end_object();
  } else {
    json.field("text", parts.text);
  }
  write_log_probs(json, tokens, choices_[index].said.text.size() - parts.text.size());
  field_or_null(json, "finish_reason", reason);
  json.end_object().end_array();
  if (include_usage_) json.key("usage").null();
  return sse_event(json.end_object().text());
}

std::string CompletionReply::stream_begin() const {
  std::string events;
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (kind_ == CompletionKind::kChat)
      events += chunk(i, {}, {}, {}, true);
    else if (!echoes_[i].empty() && !log_probs_)
      events += chunk(i, {{}, echoes_[i]}, {}, {}, true);
  }
  return events;
}

std::string CompletionReply::stream_end() const {
  std::string events;
  if (include_usage_ && !failure_) {
    JsonWriter json;
    json.begin_object();
    write_head(json, true);
    json.key("choices").begin_array().end_array();
    write_usage(json);
    events = sse_event(json.end_object().text());
  }
  return events + "data: [DONE]\n\n";
}

std::string CompletionReply::whole() const {
  JsonWriter json;
  json.begin_object();
  write_head(json, false);
  json.key("choices").begin_array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    json.begin_object().field("index", i);
    if (kind_ == CompletionKind::kChat) {
      json.key("message").begin_object().field("role", "assistant");
      const Parts& said = choice.said;
      if (said.text.empty() && !said.calls.empty())
        json.key("content").null();
      else
        json.field("content", said.text);
      if (!said.thought.empty()) json.field("reasoning_content", said.thought);
      write_calls(json, said.calls, std::nullopt);
      json.key("refusal").null().end_object();
    } else {
      json.field("text", choice.said.text);
    }
    write_log_probs(json, choice.tokens, choice.n_prompt_tokens > 0 ? 0 : echoes_[i].size());
    json.field("finish_reason", end_of(choice)).end_object();
  }
  json.end_array();
  write_usage(json);
  return json.end_object().text();
}

}  // namespace quern
