#include "runtime/completion.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace quern {
namespace {

// The stop texts that are control tokens.
std::vector<TokenId> control_tokens(const Tokenizer* tokenizer, const std::vector<std::string>& stops) {
  std::vector<TokenId> ids;
  for (const std::string& stop : stops) {
    const std::optional<TokenId> id = tokenizer == nullptr ? std::nullopt : tokenizer->find(stop);
    if (id && tokenizer->is_control(*id)) ids.push_back(*id);
  }
  return ids;
}

constexpr float kMaxAdjustment = 1000;  // of a logit: sums stay finite

std::vector<TokenId> forbidden_tokens(const Tokenizer* tokenizer, bool ignore_eos) {
  std::vector<TokenId> ids;
  if (tokenizer == nullptr) return ids;
  ids.assign(tokenizer->unused_ids().begin(), tokenizer->unused_ids().end());
  if (ignore_eos) ids.insert(ids.end(), tokenizer->end_ids().begin(), tokenizer->end_ids().end());
  return ids;
}

void check_adjustments(const CompletionOptions& options) {
  for (const auto& [id, bias] : options.logit_bias)
    if (id < 0 || !std::isfinite(bias) || std::abs(bias) > kMaxAdjustment)
      fail(ErrorCode::kUsage, "logit bias of token {} is {} (expected an id and -{} to {})", id, bias,
           kMaxAdjustment, kMaxAdjustment);
  for (const float penalty : {options.presence_penalty, options.frequency_penalty})
    if (!std::isfinite(penalty) || std::abs(penalty) > kMaxAdjustment)
      fail(ErrorCode::kUsage, "a penalty is {} (expected -{} to {})", penalty, kMaxAdjustment,
           kMaxAdjustment);
}

bool contains(const std::vector<TokenId>& ids, TokenId id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

std::string StopFilter::push(std::string_view text) {
  held_ += text;
  size_t cut = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t at = stop.empty() ? std::string::npos : held_.find(stop);
    if (at >= cut) continue;
    cut = at;
    met_ = stop;
  }
  if (stopped()) {
    held_.resize(cut);
    return std::exchange(held_, {});
  }
  const size_t keep = longest_unfinished_stop();
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, shown.size());
  return shown;
}

// Length of the longest end of the held text that begins a stop text.
size_t StopFilter::longest_unfinished_stop() const {
  size_t longest = 0;
  for (const std::string& stop : stops_)
    for (size_t n = std::min(stop.size(), held_.size()); n > longest; --n)
      if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) longest = n;
  return longest;
}

Completion::Completion(const Tokenizer* tokenizer, bool with_text, std::span<const TokenId> prompt,
                       uint64_t context, const CompletionOptions& options)
    : tokenizer_(tokenizer),
      options_(options),
      context_(context),
      sequence_(prompt.begin(), prompt.end()),
      n_prompt_(prompt.size()),
      forbidden_(forbidden_tokens(tokenizer, options.ignore_eos)),
      stop_ids_(control_tokens(tokenizer, options.stop)),
      sampler_(options.sampler),
      filter_(options.stop) {
  check_adjustments(options);
  if (prompt.empty())
    fail(ErrorCode::kUsage, "the prompt has no tokens; nothing can follow nothing: give it a text");
  if (prompt.size() >= context)
    fail(ErrorCode::kResource,
         "the prompt has {} tokens and the context {}, of which the answer needs at least one; raise --ctx "
         "or shorten it",
         prompt.size(), context);
  QUERN_CHECK(tokenizer != nullptr || !with_text);
  if (with_text) decoder_.emplace(*tokenizer, options.new_text ? prompt.first(0) : prompt, options.new_text);
  if (options.constraint == nullptr) return;
  QUERN_CHECK(with_text);
  constraint_.emplace(options.constraint, decoder_->drops_next_space());
}

std::span<const TokenId> Completion::pending() const {
  const std::span<const TokenId> all = sequence_;
  switch (state_) {
    case State::kPrompt:
      return all;
    case State::kToken:
      return all.last(1);
    case State::kFinished:
      break;
  }
  return {};
}

uint64_t Completion::room() const {
  if (finished()) return 0;
  const uint64_t room = context_ + 1 - sequence_.size();  // the last one needs no position
  if (options_.max_tokens < 0) return room;
  return std::min(room, static_cast<uint64_t>(options_.max_tokens) - tokens().size());
}

// In f32, in this order: bias, frequency, presence; then what is out of bounds.
std::span<const float> Completion::adjusted(std::span<const float> logits) {
  const bool penalised = !counts_.empty();
  if (forbidden_.empty() && options_.logit_bias.empty() && !penalised) return logits;
  adjusted_.assign(logits.begin(), logits.end());
  for (const auto& [id, bias] : options_.logit_bias) {
    QUERN_CHECK(static_cast<size_t>(id) < logits.size());
    adjusted_[static_cast<size_t>(id)] += bias;
  }
  for (const auto& [id, count] : counts_) {
    float& logit = adjusted_[static_cast<size_t>(id)];
    logit -= options_.frequency_penalty * static_cast<float>(count);
    logit -= options_.presence_penalty;
  }
  for (const TokenId id : forbidden_)
    adjusted_[static_cast<size_t>(id)] = -1e30f;  // out of reach of every rule of the sampler, yet finite
  return adjusted_;
}

std::span<const uint64_t> Completion::allowed() {
  if (!constraint_) return {};
  constraint_->next_tokens(&allowed_);
  for (const TokenId id : forbidden_) clear_bit(allowed_, id);
  if (constraint_->may_end()) {
    if (!options_.ignore_eos)
      for (const TokenId id : tokenizer_->end_ids()) set_bit(allowed_, id);
    for (const TokenId id : stop_ids_) set_bit(allowed_, id);
  }
  if (std::all_of(allowed_.begin(), allowed_.end(), [](uint64_t word) { return word == 0; }))
    fail(ErrorCode::kMalformed, "no token of the vocabulary goes on as the grammar asks after '{}'",
         printable(std::string_view(text_).substr(text_.size() - std::min<size_t>(text_.size(), 40))));
  return allowed_;
}

CompletionStep Completion::feed(std::span<const float> logits) {
  QUERN_CHECK(!finished());
  const auto is_full = [&] {
    return options_.max_tokens >= 0 && tokens().size() >= static_cast<uint64_t>(options_.max_tokens);
  };
  if (is_full()) return {std::nullopt, finish(FinishReason::kMaxTokens)};  // none are wanted
  if (constraint_ && constraint_->must_end()) return {std::nullopt, finish(FinishReason::kEndOfText)};
  const TokenId id = sampler_.pick(adjusted(logits), sequence_, sequence_.size(), allowed());
  if (tokenizer_ != nullptr && tokenizer_->ends_text(id))
    return {std::nullopt, finish(FinishReason::kEndOfText)};
  if (contains(stop_ids_, id)) {
    stop_text_ = tokenizer_->piece(id);
    return {std::nullopt, finish(FinishReason::kStopText)};
  }

  state_ = State::kToken;
  sequence_.push_back(id);
  if (options_.presence_penalty != 0 || options_.frequency_penalty != 0) ++counts_[id];
  if (constraint_) QUERN_CHECK(constraint_->push(id));
  CompletionStep step{id, decoder_ ? keep(filter_.push(decode(id))) : std::string()};
  if (filter_.stopped()) {
    stop_text_ = filter_.met();
    step.text += finish(FinishReason::kStopText);
  } else if (constraint_ && constraint_->must_end()) {
    step.text += finish(FinishReason::kEndOfText);
  } else if (sequence_.size() > context_) {  // the token that was picked has no place any more
    step.text += finish(FinishReason::kContextFull);
  } else if (is_full()) {
    step.text += finish(FinishReason::kMaxTokens);
  }
  return step;
}

std::string Completion::decode(TokenId id) {
  return contains(options_.spelled, id) ? decoder_->push_text(tokenizer_->piece(id)) : decoder_->push(id);
}

std::string Completion::interrupt() {
  return finished() ? std::string() : finish(FinishReason::kInterrupted);
}

// What was held back may end in a stop text that is now complete.
std::string Completion::finish(FinishReason reason) {
  state_ = State::kFinished;
  reason_ = reason;
  if (!decoder_ || filter_.stopped()) return {};
  std::string rest = filter_.push(decoder_->finish());
  return keep(rest + filter_.finish());
}

std::string Completion::keep(std::string text) {
  text_ += text;
  return text;
}

}  // namespace quern
