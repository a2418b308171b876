#include "runtime/engine/drafter.h"

#include <algorithm>
#include <chrono>

#include "quant/error.h"

namespace quern {
namespace {

void require_same_ids(const Model& draft, const Model& target) {
  if (draft.has_tokenizer() != target.has_tokenizer())
    fail(ErrorCode::kUsage, "one of the two models has no vocabulary");
  if (!draft.has_tokenizer()) {
    if (draft.hparams().vocab_size != target.hparams().vocab_size)
      fail(ErrorCode::kUsage, "it has {} ids, the model {}", draft.hparams().vocab_size,
           target.hparams().vocab_size);
    return;
  }
  const Vocabulary &a = draft.tokenizer().vocabulary(), &b = target.tokenizer().vocabulary();
  const size_t n = std::min(a.size(), b.size());
  for (size_t i = 0; i < n; ++i)
    if (a.pieces[i] != b.pieces[i] || a.types[i] != b.types[i])
      fail(ErrorCode::kUsage, "its vocabulary is another: id {} is '{}' there, '{}' in the model", i,
           printable(a.pieces[i]), printable(b.pieces[i]));
  if (a.size() != b.size())
    fail(ErrorCode::kUsage, "its vocabulary is another: {} ids there, {} in the model", a.size(), b.size());
}

}  // namespace

size_t DraftRates::class_of(double probability) {
  return std::min(static_cast<size_t>(probability * kClasses), kClasses - 1);
}

double DraftRates::of(double probability) const {
  // Before anything is known: as likely as the small model says.
  constexpr double kPrior = 3;
  const Count& count = counts_[class_of(probability)];
  return (count.came_true + kPrior * probability) / (count.all + kPrior);
}

void DraftRates::add(double probability, bool came_true) {
  constexpr double kKept = 1 - 1.0 / 64;  // of earlier ones
  Count& count = counts_[class_of(probability)];
  count.came_true = count.came_true * kKept + (came_true ? 1 : 0);
  count.all = count.all * kKept + 1;
  came_true_ = came_true_ * kKept + (came_true ? 1 : 0);
  all_ = all_ * kKept + 1;
}

Drafter::Drafter(const Model& draft, const Model& target)
    : model_(draft), vocab_size_(target.hparams().vocab_size), engine_(draft) {
  require_same_ids(draft, target);
}

Drafter::Text::Text(const Drafter& drafter) : sequence_(drafter.model_) {}

void Drafter::Text::begin(const SamplerOptions& sampler, bool forgets) {
  if (forgets) sequence_.truncate(0);
  sampler_.emplace(sampler);
  tokens_.clear();
  n_resting_ = 0;
  forget_guesses();
}

void Drafter::Text::forget_guesses() {
  guesses_.clear();
  chances_.clear();
  probabilities_.clear();
}

void Drafter::Text::read(std::span<const TokenId> tokens) {
  forget_guesses();
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void Drafter::Text::push(TokenId token) {
  if (!guesses_.empty()) {
    const bool came_true = guesses_.front() == token;
    rates_->add(probabilities_.front(), came_true);
    if (came_true) {
      guesses_.erase(guesses_.begin());
      probabilities_.erase(probabilities_.begin());
      chances_.clear();
    } else {
      forget_guesses();
    }
  }
  tokens_.push_back(token);
}

// logits: behind the text and its guesses so far.
void Drafter::pick(Text& text, std::span<const float> logits) {
  logits = logits.first(std::min(logits.size(), vocab_size_));
  std::vector<TokenId> history = text.tokens_;
  history.insert(history.end(), text.guesses_.begin(), text.guesses_.end());
  const TokenId token = text.sampler_->pick(logits, history, history.size());
  const float z_max = *std::max_element(logits.begin(), logits.end());
  const KernelSet& kernels = model_.kernels();
  const float one[] = {logits[static_cast<size_t>(token)]};
  const double probability =
      kernels.sum_exp(one, 1, z_max) / kernels.sum_exp(logits.data(), logits.size(), z_max);
  const double before = text.chances_.empty() ? 1 : text.chances_.back();
  text.guesses_.push_back(token);
  text.probabilities_.push_back(probability);
  text.chances_.push_back(before * rates_.of(probability));
}

// One guess more behind each text.
bool Drafter::evaluate(std::span<Text* const> texts, const StopFn& stop) {
  std::vector<std::vector<TokenId>> rows;
  std::vector<Work> work;
  size_t n_rows = 0;
  for (Text* text : texts) {
    const size_t begin = text->sequence_.position(), n = text->tokens_.size();
    std::vector<TokenId>& own = rows.emplace_back(
        text->tokens_.begin() + static_cast<ptrdiff_t>(std::min(begin, n)), text->tokens_.end());
    own.insert(own.end(), text->guesses_.begin() + static_cast<ptrdiff_t>(std::max(begin, n) - n),
               text->guesses_.end());
    n_rows += own.size();
  }
  for (size_t i = 0; i < texts.size(); ++i)
    work.push_back({&texts[i]->sequence_, rows[i], 1,
                    [this, text = texts[i]](size_t, std::span<const float> z) { pick(*text, z); }});
  const auto begin = std::chrono::steady_clock::now();
  if (!engine_.run(work, stop)) return false;
  costs_.add(n_rows, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  return true;
}

bool Drafter::guess(std::span<const Job> jobs, size_t rows, size_t read, const PassCosts& costs,
                    const StopFn& stop) {
  constexpr size_t kRest = 32;  // times without guesses before it is tried again
  std::vector<Text*> going;
  const double without = costs.of(rows);
  double tokens = static_cast<double>(rows), seconds = without;
  size_t n = 0;  // guesses
  // Whether one more guess is worth it that comes true so likely.
  const auto worth_it = [&](double chance, size_t n_texts) {
    const double own = costs_.of(n_texts) / static_cast<double>(n_texts);
    const double row = std::max(costs.of(rows + n + 1) - costs.of(rows + n), 0.0);
    return chance / (own + row) > tokens / seconds;
  };
  for (const Job& job : jobs) {
    Text& text = *job.text;
    text.rates_ = &rates_;
    text.forget_guesses();
    const size_t limit =
        std::min<uint64_t>(model_.context() - std::min<uint64_t>(model_.context(), text.size()),
                           std::min(job.most, Guesser::kMostGuesses));
    if (limit == 0 || text.size() == 0 || without <= 0) continue;
    text.sequence_.reuse_prefix(text.tokens_);
    const size_t known = text.sequence_.position();
    if (text.size() - known > read) {
      const Work work{&text.sequence_, std::span<const TokenId>(text.tokens_).subspan(known, read), 0, {}};
      if (!engine_.run({&work, 1}, stop)) return false;
      continue;
    }
    if (costs_.of(1) > 0 && !worth_it(rates_.mean(), jobs.size()) && ++text.n_resting_ < kRest) continue;
    text.n_resting_ = 0;
    text.most_ = limit;
    going.push_back(&text);
  }
  while (!going.empty()) {
    if (!evaluate(going, stop)) return false;
    seconds += costs_.of(going.size());
    for (Text* text : going) tokens += text->chances_.back();
    n += going.size();
    seconds += std::max(costs.of(rows + n) - costs.of(rows + n - going.size()), 0.0);
    const size_t n_texts = going.size();
    std::erase_if(going, [&](Text* text) {
      return text->guesses_.size() >= text->most_ ||
             !worth_it(text->chances_.back() * rates_.mean(), n_texts);
    });
  }
  return true;
}

}  // namespace quern
