#include "runtime/generate.h"

#include <chrono>

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// Throws kMalformed where text is wanted of a model without a vocabulary.
const Tokenizer* tokenizer_of(const Model& model, bool with_text) {
  return with_text || model.has_tokenizer() ? &model.tokenizer() : nullptr;
}

}  // namespace

GenerateResult generate(Session& session, std::span<const int32_t> prompt, const CompletionOptions& options,
                        const std::function<void(std::string_view)>& on_text,
                        const std::function<void(int32_t)>& on_token, const StopFn& stop) {
  const bool with_text = on_text != nullptr;
  const Model& model = session.model();
  Completion completion(tokenizer_of(model, with_text), with_text, prompt, model.context(), options);
  const auto show = [&](const std::string& text) {
    if (!text.empty()) on_text(text);
  };
  Clock::time_point evaluated;
  const auto feed = [&](size_t, std::span<const float> logits) {
    evaluated = Clock::now();
    if (stop && stop()) return show(completion.interrupt());
    const CompletionStep step = completion.feed(logits);
    if (step.token && on_token) on_token(*step.token);
    show(step.text);
  };

  GenerateResult result;
  const size_t reused = session.reuse_prefix(prompt);
  const auto start = Clock::now();
  if (!session.eval(prompt.subspan(reused), 1, feed, stop)) {
    evaluated = Clock::now();
    show(completion.interrupt());
  }
  const auto prompt_end = evaluated;
  result.prompt_tokens = session.position() - reused;  // an interruption leaves whole micro-batches
  while (!completion.finished()) {
    const std::vector<TokenId> next(completion.pending().begin(), completion.pending().end());
    if (session.eval(next, 1, feed, stop)) {
      ++result.decode_tokens;
    } else {
      show(completion.interrupt());
    }
  }
  result.prompt_seconds = seconds(prompt_end - start);
  result.decode_seconds = seconds(Clock::now() - prompt_end);
  result.reason = completion.reason();
  result.meets_constraint = completion.meets_constraint();
  result.tokens.assign(completion.tokens().begin(), completion.tokens().end());
  result.text = completion.text();
  return result;
}

}  // namespace quern
