#include "runtime/generate.h"

#include <algorithm>
#include <chrono>
#include <optional>

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Lets text through up to the first stop text; holds back what could still become one.
class StopFilter {
 public:
  explicit StopFilter(const std::vector<std::string>& stops) : stops_(stops) {}

  // Appends text; returns what may be shown now. stopped() tells whether a stop text was met.
  std::string push(std::string_view text) {
    held_ += text;
    size_t cut = std::string::npos;
    for (const std::string& stop : stops_)
      if (!stop.empty()) cut = std::min(cut, held_.find(stop));
    if (cut != std::string::npos) {
      stopped_ = true;
      held_.resize(cut);
      return std::exchange(held_, {});
    }
    const size_t keep = longest_unfinished_stop();
    std::string shown = held_.substr(0, held_.size() - keep);
    held_.erase(0, shown.size());
    return shown;
  }
  std::string finish() { return std::exchange(held_, {}); }
  bool stopped() const { return stopped_; }

 private:
  // Length of the longest end of the held text that begins a stop text.
  size_t longest_unfinished_stop() const {
    size_t longest = 0;
    for (const std::string& stop : stops_)
      for (size_t n = std::min(stop.size(), held_.size()); n > longest; --n)
        if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) longest = n;
    return longest;
  }

  const std::vector<std::string>& stops_;
  std::string held_;
  bool stopped_ = false;
};

void require_room(const Session& session, size_t prompt_tokens) {
  const uint64_t context = session.model().context();
  if (prompt_tokens >= context)
    fail(ErrorCode::kResource,
         "the prompt has {} tokens and the context {}, of which the answer needs at least one; raise --ctx "
         "or shorten it",
         prompt_tokens, context);
}

}  // namespace

GenerateResult generate(Session& session, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text,
                        const std::function<void(int32_t)>& on_token, const Session::StopFn& stop) {
  if (prompt.empty()) fail(ErrorCode::kUsage, "the prompt has no tokens; nothing can follow nothing");
  require_room(session, prompt.size());

  GenerateResult result;
  std::optional<StreamDecoder> decoder;
  int32_t end_of_text = kNoToken;
  if (on_text) decoder.emplace(session.model().tokenizer(), options.new_text ? prompt.first(0) : prompt);
  if (session.model().has_tokenizer()) end_of_text = session.model().tokenizer().vocabulary().eos;
  StopFilter filter(options.stop);
  const auto emit = [&](const std::string& text) {
    if (text.empty()) return;
    result.text += text;
    on_text(text);
  };

  std::vector<float> logits(session.model().hparams().vocab_size);
  const auto keep_logits = [&](size_t, std::span<const float> z) {
    std::copy(z.begin(), z.end(), logits.begin());
  };

  std::vector<int32_t> history(prompt.begin(), prompt.end());
  const size_t reused = session.reuse_prefix(prompt);
  auto start = Clock::now();
  bool running = session.eval(prompt.subspan(reused), 1, keep_logits, stop);
  result.prompt_seconds = seconds_since(start);
  result.prompt_tokens = session.position() - reused;  // an interruption leaves whole micro-batches
  if (!running) result.reason = FinishReason::kInterrupted;

  Sampler sampler(options.sampler);
  start = Clock::now();
  while (running) {
    if (options.max_tokens >= 0 && result.tokens.size() >= static_cast<uint64_t>(options.max_tokens)) {
      result.reason = FinishReason::kMaxTokens;
      break;
    }
    if (stop && stop()) {
      result.reason = FinishReason::kInterrupted;
      break;
    }
    // Out of reach of every rule of the sampler, yet finite.
    if (options.ignore_eos && end_of_text != kNoToken) logits[static_cast<size_t>(end_of_text)] = -1e30f;
    const int32_t id = sampler.pick(logits, history, history.size());
    if (id == end_of_text) {
      result.reason = FinishReason::kEndOfText;
      break;
    }
    result.tokens.push_back(id);
    history.push_back(id);
    if (on_token) on_token(id);
    if (decoder) {
      emit(filter.push(decoder->push(id)));
      if (filter.stopped()) {
        result.reason = FinishReason::kStopText;
        break;
      }
    }
    if (session.position() >= session.model().context()) {
      result.reason = FinishReason::kContextFull;
      break;
    }
    if (options.max_tokens >= 0 && result.tokens.size() >= static_cast<uint64_t>(options.max_tokens))
      continue;
    if (!session.eval({&id, 1}, 1, keep_logits, stop)) {
      result.reason = FinishReason::kInterrupted;
      break;
    }
    ++result.decode_tokens;
  }
  result.decode_seconds = seconds_since(start);
  if (decoder && result.reason != FinishReason::kStopText) {
    emit(filter.push(decoder->finish()));
    emit(filter.finish());
  }
  return result;
}

}  // namespace quern
