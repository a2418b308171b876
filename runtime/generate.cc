#include "runtime/generate.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kNoLimit = std::numeric_limits<double>::infinity();  // of a pass's time

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// Throws kMalformed where text is wanted of a model without a vocabulary.
const Tokenizer* tokenizer_of(const Model& model, bool with_text) {
  return with_text || model.has_tokenizer() ? &model.tokenizer() : nullptr;
}

// Drives one completion, pass by pass.
class Generation {
 public:
  Generation(Session& session, Completion& completion, const SamplerOptions& sampler,
             const std::function<void(std::string_view)>& on_text,
             const std::function<void(int32_t)>& on_token, const RunControl& control,
             const GenerateAids& aids)
      : session_(session),
        completion_(completion),
        sampler_(sampler),
        on_text_(on_text),
        on_token_(on_token),
        control_(control),
        speculation_(aids.speculation),
        cache_(aids.cache) {}

  void read_prompt(std::span<const TokenId> prompt, GenerateResult* result) {
    session_.reuse_prefix(prompt);
    const auto start = Clock::now();
    if (cache_ != nullptr) cache_->restore(session_.sequence(), {}, prompt);
    const size_t reused = session_.position();
    if (read_blocks(prompt)) evaluate(prompt.subspan(session_.position()), 0);
    result->prompt_tokens = session_.position() - reused;  // an interruption leaves whole micro-batches
    result->prompt_seconds = seconds(evaluated_ - start);
  }

  void decode(std::span<const TokenId> prompt, GenerateResult* result) {
    const auto start = evaluated_;
    if (speculation_ != nullptr && !completion_.finished()) {
      guesser_.emplace(speculation_->rates);
      guesser_->read(prompt);
      if (speculation_->draft != nullptr) {
        speculation_->draft->begin(sampler_);
        speculation_->draft->read(prompt);
      }
      for (const TokenId token : completion_.tokens()) learn(token);
    }
    while (!completion_.finished()) {
      const std::vector<TokenId> guesses = choose_guesses();
      const size_t n_guesses = guesses.size();
      std::vector<TokenId> rows(completion_.pending().begin(), completion_.pending().end());
      rows.insert(rows.end(), guesses.begin(), guesses.end());
      const auto pass_start = Clock::now();
      if (!evaluate_guarded(rows, n_guesses)) continue;
      if (speculation_ != nullptr) speculation_->costs.add(rows.size(), seconds(evaluated_ - pass_start));
      ++result->decode_passes;
      result->decode_tokens += n_used_;
      result->guesses += n_guesses;
      result->guesses_taken += n_used_ - 1;
      if (cache_ != nullptr) cache_->keep(session_.sequence(), {}, &chain_);
    }
    if (guesser_) speculation_->rates = guesser_->rates();
    result->decode_seconds = seconds(Clock::now() - start);
  }

 private:
  void show(const std::string& text) {
    if (!text.empty()) on_text_(text);
  }

  // Of a cache's blocks those that end before the prompt does, one by one: each is kept while rings and
  // states have it. False: interrupted.
  bool read_blocks(std::span<const TokenId> prompt) {
    constexpr size_t kBlock = Sequence::kBlock;
    if (cache_ == nullptr) return true;
    for (size_t end; (end = (session_.position() / kBlock + 1) * kBlock) < prompt.size();) {
      const size_t begin = session_.position();
      if (!session_.eval(prompt.subspan(begin, end - begin), 0, {}, control_)) {
        evaluated_ = Clock::now();
        show(completion_.interrupt());
        return false;
      }
      cache_->keep(session_.sequence(), {}, &chain_);
    }
    return true;
  }

  void learn(TokenId token) {
    guesser_->push(token);
    if (speculation_->draft != nullptr) speculation_->draft->push(token);
  }

  std::vector<TokenId> choose_guesses() {
    if (!guesser_) return {};
    const size_t most = std::min<uint64_t>(session_.rows_to_take_back(), completion_.room());
    if (most < 2) return {};
    Draft draft{guesser_->chances(most - 1)};
    const bool is_drafted = ask_small_model(draft.chances, most - 1);
    if (is_drafted) draft.chances = speculation_->draft->chances();
    choose_drafts({&draft, 1}, 1, most, kNoLimit, speculation_->costs);
    std::vector<TokenId> guesses;
    for (size_t i = 0; i < draft.n; ++i)
      guesses.push_back(is_drafted ? speculation_->draft->guess(i) : guesser_->guess(i));
    return guesses;
  }

  // True: it has guesses, likelier than those with these chances.
  bool ask_small_model(std::span<const double> chances, size_t most) {
    Drafter::Text* const text = speculation_->draft;
    if (text == nullptr || !text->drafter().may_be_likelier(chances)) return false;
    const Drafter::Job job{text, most};
    text->drafter().guess({&job, 1}, 1, kNoLimit, speculation_->costs, control_.stop);
    return !text->chances().empty();
  }

  // The last n_guesses tokens are guesses: what follows one that was wrong is forgotten. False: interrupted.
  bool evaluate(std::span<const TokenId> tokens, size_t n_guesses) {
    const size_t n_known = tokens.size() - n_guesses;
    n_used_ = 0;
    bool right = true;  // the tokens up to the one whose logits come
    const auto feed = [&](size_t index, std::span<const float> logits) {
      if (!right) return;
      if (n_used_++ == 0) evaluated_ = Clock::now();
      right = false;
      if (control_.stop.is_set()) return show(completion_.interrupt());
      const CompletionStep step = completion_.feed(logits);
      if (step.token) {
        if (guesser_) learn(*step.token);
        if (on_token_) on_token_(*step.token);
        right = !completion_.finished() && index + 1 < tokens.size() && tokens[index + 1] == *step.token;
      }
      show(step.text);
    };
    const size_t begin = session_.position();
    if (!session_.eval(tokens, 1 + n_guesses, feed, control_)) {
      evaluated_ = Clock::now();
      show(completion_.interrupt());
      return false;
    }
    if (n_used_ <= n_guesses) session_.truncate(begin + n_known - 1 + n_used_);
    return true;
  }

  // A guess may fail where nothing that the text comes to does.
  bool evaluate_guarded(std::span<const TokenId> tokens, size_t n_guesses) {
    try {
      return evaluate(tokens, n_guesses);
    } catch (const Error&) {
      if (n_guesses == 0 || n_used_ > 0) throw;
    }
    return evaluate(tokens.first(1), 0);
  }

  Session& session_;
  Completion& completion_;
  const SamplerOptions& sampler_;
  const std::function<void(std::string_view)>& on_text_;
  const std::function<void(int32_t)>& on_token_;
  const RunControl& control_;
  Speculation* const speculation_;
  PrefixCache* const cache_;
  PrefixCache::Chain chain_;
  std::optional<Guesser> guesser_;
  Clock::time_point evaluated_;  // the last pass's first logits were there
  size_t n_used_ = 0;            // logits of the last pass
};

}  // namespace

GenerateResult generate(Session& session, std::span<const int32_t> prompt, const CompletionOptions& options,
                        const std::function<void(std::string_view)>& on_text,
                        const std::function<void(int32_t)>& on_token, const RunControl& control,
                        const GenerateAids& aids) {
  const bool with_text = on_text != nullptr;
  const Model& model = session.model();
  Completion completion(tokenizer_of(model, with_text), with_text, prompt, model.context(), options);
  GenerateResult result;
  Generation generation(session, completion, options.sampler, on_text, on_token, control, aids);
  generation.read_prompt(prompt, &result);
  generation.decode(prompt, &result);
  result.reason = completion.reason();
  result.meets_constraint = completion.meets_constraint();
  result.tokens.assign(completion.tokens().begin(), completion.tokens().end());
  result.text = completion.text();
  return result;
}

}  // namespace quern
