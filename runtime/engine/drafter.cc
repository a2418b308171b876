#include "runtime/engine/drafter.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

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

Drafter::Text::Text(Drafter& drafter) : drafter_(drafter), sequence_(drafter.model_) {}

void Drafter::Text::begin(const SamplerOptions& sampler, bool forgets) {
  if (forgets) sequence_.truncate(0);
  sampler_.emplace(sampler);
  forget_guesses();
  tokens_.clear();
  n_resting_ = 0;
}

void Drafter::Text::forget_guesses() {
  tokens_.resize(size());
  probabilities_.clear();
  chances_.clear();
}

void Drafter::Text::read(std::span<const TokenId> tokens) {
  forget_guesses();
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void Drafter::Text::push(TokenId token) {
  if (!probabilities_.empty()) {
    const bool came_true = guess(0) == token;
    drafter_.rates_.add(probabilities_.front(), came_true);
    if (came_true) {  // it stands there already
      probabilities_.erase(probabilities_.begin());
      chances_.clear();
      return;
    }
    forget_guesses();
  }
  tokens_.push_back(token);
}

// logits: behind the text and its guesses so far.
Drafter::Guess Drafter::pick(Text& text, std::span<const float> logits) const {
  logits = logits.first(std::min(logits.size(), vocab_size_));
  const TokenId token = text.sampler_->pick(logits, text.tokens_, text.tokens_.size());
  const float z_max = *std::max_element(logits.begin(), logits.end());
  const KernelSet& kernels = model_.kernels();
  return {token, kernels.sum_exp(&logits[static_cast<size_t>(token)], 1, z_max) /
                     kernels.sum_exp(logits.data(), logits.size(), z_max)};
}

// One guess more behind each text.
bool Drafter::evaluate(std::span<const Job> jobs, StopFlag stop) {
  std::vector<Guess> guesses(jobs.size());
  std::vector<Work> work;
  size_t n_rows = 0;
  for (size_t i = 0; i < jobs.size(); ++i) {
    Text& text = *jobs[i].text;
    const auto rows = std::span<const TokenId>(text.tokens_).subspan(text.sequence_.position());
    n_rows += rows.size();
    work.push_back({&text.sequence_, rows, 1, [this, &text, guess = &guesses[i]](size_t, auto logits) {
                      *guess = pick(text, logits);
                    }});
  }
  const auto begin = std::chrono::steady_clock::now();
  if (!engine_.run(work, {.stop = stop})) return false;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  // The first one brings weights and buffers in.
  if (std::exchange(is_warm_, true)) costs_.add(n_rows, seconds.count());
  for (size_t i = 0; i < jobs.size(); ++i) {
    Text& text = *jobs[i].text;
    const double before = text.chances_.empty() ? 1 : text.chances_.back();
    text.tokens_.push_back(guesses[i].token);
    text.probabilities_.push_back(guesses[i].probability);
    text.chances_.push_back(before * rates_.of(guesses[i].probability));
  }
  return true;
}

void Drafter::guess(std::span<const Job> jobs, size_t rows, double slowest, const PassCosts& costs,
                    StopFlag stop) {
  for (const Job& job : jobs) job.text->forget_guesses();
  try {
    read_and_guess(jobs, rows, slowest, costs, stop);
  } catch (const std::exception&) {  // no text depends on what the small model makes of it
    for (const Job& job : jobs) job.text->forget_guesses();
  }
}

void Drafter::read_and_guess(std::span<const Job> jobs, size_t rows, double slowest, const PassCosts& costs,
                             StopFlag stop) {
  constexpr size_t kRest = 32;  // times without guesses before it is tried again
  constexpr size_t kRead = 64;  // tokens that are read at a time while others wait
  const size_t piece = std::isinf(slowest) ? engine_.micro_batch() : kRead;
  // Where states are, what one pass has added to them the next one cannot take back.
  const size_t most_guesses = model_.kv_shape().state_bytes() != 0 ? 1 : Guesser::kMostGuesses;
  if (rows >= PassCosts::kMaxRows) return;  // that pass takes none (choose_drafts())
  const double without = costs.of(rows);
  if (without <= 0) return;
  double tokens = static_cast<double>(rows), seconds = without;
  size_t n = 0;  // guesses
  // Whether one more guess is worth it that comes true so likely.
  const auto worth_it = [&](double chance, size_t n_texts) {
    const double own = costs_.of(n_texts) / static_cast<double>(n_texts);
    const double row = std::max(costs.of(rows + n + 1) - costs.of(rows + n), 0.0);
    return chance / (own + row) > tokens / seconds;
  };
  std::vector<Job> going;
  bool has_read = false;
  for (const Job& job : jobs) {
    Text& text = *job.text;
    const size_t limit =
        std::min<uint64_t>(model_.context() - std::min<uint64_t>(model_.context(), text.size()),
                           std::min(job.most, most_guesses));
    if (limit == 0 || text.size() == 0) continue;
    if (costs_.of(1) > 0 && !worth_it(rates_.mean(), jobs.size()) && ++text.n_resting_ < kRest) continue;
    text.sequence_.reuse_prefix(text.tokens_);
    const auto unread = std::span<const TokenId>(text.tokens_).subspan(text.sequence_.position());
    if (unread.size() > piece) {  // of one text at a time
      const Work work{&text.sequence_, unread.first(piece), 0, {}};
      if (!has_read && !engine_.run({&work, 1}, {.stop = stop})) return;
      has_read = true;
      continue;
    }
    text.n_resting_ = 0;
    going.push_back({&text, limit});
  }
  while (!going.empty() && seconds + costs_.of(going.size()) <= slowest * without) {
    if (!evaluate(going, stop)) return;
    seconds += costs_.of(going.size());
    for (const Job& job : going) tokens += job.text->chances_.back();
    n += going.size();
    seconds += std::max(costs.of(rows + n) - costs.of(rows + n - going.size()), 0.0);
    const size_t n_texts = going.size();
    std::erase_if(going, [&](const Job& job) {
      const std::vector<double>& chances = job.text->chances_;
      return chances.size() >= job.most || !worth_it(chances.back() * rates_.mean(), n_texts);
    });
  }
}

}  // namespace quern
