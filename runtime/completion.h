// One completion as a state machine: a prompt goes in, logits are fed, tokens and text come out.
//
//   kPrompt --feed--> kToken --feed--> kToken ... --feed--> kFinished
//   any state --interrupt--> kFinished
//
// It evaluates nothing and waits for nothing: pending() says which tokens it wants evaluated, whoever drives
// it does that, alone (generate.h) or together with other completions in one pass (Engine::run), and feeds
// the logits of the last one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/engine/constraint.h"
#include "runtime/sampler.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {

struct CompletionOptions {
  SamplerOptions sampler;
  int64_t max_tokens = 128;  // -1: until the end of text or of the context
  bool ignore_eos = false;   // the end token is never picked
  // Added to the logits of these ids, which the vocabulary has, before everything else; ids differ.
  std::vector<std::pair<TokenId, float>> logit_bias;
  // Subtracted from the logits of tokens that the answer has: once, and once for each time.
  float presence_penalty = 0, frequency_penalty = 0;
  // The text is a message of its own (chat), not the prompt's continuation: its first piece loses the leading
  // space.
  bool new_text = false;
  // What the text is held to; null: nothing. Its trie is of the model's vocabulary. The text then ends where
  // it is whole, at its end token or where nothing may follow; what cuts it short (max_tokens, a stop text,
  // the end of the context) leaves the beginning of such a text.
  std::shared_ptr<const Constraint> constraint{};
  // Control tokens that are spelled in the text, in place of none at all.
  std::vector<TokenId> spelled{};
  // Texts that end a completion; not part of its text. One that is spelled exactly as a control token ends it
  // at that token as well, which has no text.
  std::vector<std::string> stop;
};

enum class FinishReason { kEndOfText, kMaxTokens, kContextFull, kStopText, kInterrupted };

// Lets text through up to the first of some stop texts; holds back what could still become one.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Appends text; returns what may be shown now.
  std::string push(std::string_view text);
  std::string finish() { return std::exchange(held_, {}); }
  // A stop text was met; push() is not called any more.
  bool stopped() const { return !met_.empty(); }
  // The one that was met; empty: none.
  const std::string& met() const { return met_; }

 private:
  size_t longest_unfinished_stop() const;

  std::vector<std::string> stops_;
  std::string held_, met_;
};

// What logits have led to.
struct CompletionStep {
  std::optional<TokenId> token;  // the one that was picked; none where the text ended before it
  std::string text;              // whole characters that became certain, well-formed UTF-8; often empty
};

// Not thread-safe.
class Completion {
 public:
  enum class State : uint8_t {
    kPrompt,  // wants the logits of the prompt's last token
    kToken,   // wants those of the token that was picked last
    kFinished,
  };

  // tokenizer: null where the model has none, and then with_text is false; must outlive the completion.
  // with_text: tokens become text, in which stop texts are looked for. context: positions of the sequence.
  // Throws kUsage for an empty prompt, an option out of range or a bias of an id that is none, kResource
  // (with both numbers) for a prompt that leaves no room for an answer.
  Completion(const Tokenizer* tokenizer, bool with_text, std::span<const TokenId> prompt, uint64_t context,
             const CompletionOptions& options);

  State state() const { return state_; }
  bool finished() const { return state_ == State::kFinished; }
  FinishReason reason() const { return reason_; }  // once finished
  // The stop text that ended it; empty: something else did.
  const std::string& stop_text() const { return stop_text_; }

  // Tokens to evaluate: all of the prompt (of which a cache may hold the beginning), or one. Empty once
  // finished. Valid until the next call that is not const: an evaluation that feeds on its way needs a copy.
  std::span<const TokenId> pending() const;
  // Tokens that it can pick yet, at most.
  uint64_t room() const;
  // logits: [vocab_size] of the last pending token. Throws kIntegrity for logits that are not finite,
  // kMalformed where no token of the vocabulary goes on as the constraint asks, or it goes on in too many
  // ways. Not once finished.
  CompletionStep feed(std::span<const float> logits);
  // Ends it where it is; returns the text that was held back. Once finished it does nothing.
  std::string interrupt();

  // Picked so far; the end token is none of them.
  std::span<const TokenId> tokens() const { return std::span(sequence_).subspan(n_prompt_); }
  // What steps and interrupt() have returned, joined.
  const std::string& text() const { return text_; }
  // The text is whole as the constraint has it; true where there is none.
  bool meets_constraint() const { return !constraint_ || constraint_->may_end(); }

 private:
  // The tokens that may come next; empty: all.
  std::span<const uint64_t> allowed();
  std::span<const float> adjusted(std::span<const float> logits);
  std::string decode(TokenId id);
  std::string finish(FinishReason reason);
  std::string keep(std::string text);

  const Tokenizer* tokenizer_;
  const CompletionOptions options_;
  const uint64_t context_;
  State state_ = State::kPrompt;
  FinishReason reason_ = FinishReason::kInterrupted;
  std::vector<TokenId> sequence_;  // the prompt, then what was picked
  size_t n_prompt_;
  std::vector<TokenId> forbidden_, stop_ids_;
  Sampler sampler_;
  std::optional<StreamDecoder> decoder_;  // none: without text
  std::optional<ConstraintState> constraint_;
  TokenMask allowed_;
  StopFilter filter_;
  std::string text_, stop_text_;
  std::vector<float> adjusted_;                   // logits as the sampler sees them
  std::unordered_map<TokenId, uint32_t> counts_;  // of the answer's tokens, where a penalty asks for them
};

}  // namespace quern
