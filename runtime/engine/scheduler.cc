#include "runtime/engine/scheduler.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/math_f64.h"

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Natural logarithms of one row's probabilities.
class LogProbs {
 public:
  LogProbs(const KernelSet& kernels, std::span<const float> logits)
      : logits_(logits),
        z_max_(*std::max_element(logits.begin(), logits.end())),
        ln_sum_(ln(kernels.sum_exp(logits.data(), logits.size(), z_max_))) {}

  double of(TokenId id) const {
    return static_cast<double>(logits_[static_cast<size_t>(id)] - z_max_) - ln_sum_;
  }
  std::vector<TokenChance> best(size_t n) const {
    if (n == 0) return {};
    std::vector<TokenId> ids(logits_.size());
    std::iota(ids.begin(), ids.end(), 0);
    n = std::min(n, ids.size());
    const auto better = [this](TokenId a, TokenId b) {
      const float za = logits_[static_cast<size_t>(a)], zb = logits_[static_cast<size_t>(b)];
      return za > zb || (za == zb && a < b);
    };
    std::partial_sort(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(n), ids.end(), better);
    std::vector<TokenChance> chances;
    for (size_t i = 0; i < n; ++i) chances.push_back({ids[i], of(ids[i])});
    return chances;
  }

 private:
  std::span<const float> logits_;
  float z_max_;
  double ln_sum_;
};

// Something is wanted of every token of its prompt, those included that a cache has.
bool wants_whole_prompt(const AnswerRequest& request) {
  return request.prompt_log_probs || (request.embedding && request.embedding->pooling == Pooling::kMean);
}

AnswerEvent event_of(AnswerEvent::Kind kind) {
  AnswerEvent event{};
  event.kind = kind;
  return event;
}

AnswerEvent end_event(FinishReason reason, std::string text) {
  AnswerEvent event = event_of(AnswerEvent::Kind::kFinished);
  event.reason = reason;
  event.text = std::move(text);
  return event;
}

AnswerEvent failure(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  AnswerEvent event = event_of(AnswerEvent::Kind::kFailed);
  event.code = known != nullptr ? known->code() : ErrorCode::kResource;  // no memory
  event.text = error.what();
  return event;
}

}  // namespace

struct Scheduler::Slot {
  explicit Slot(const Model& model) : sequence(model) {}

  bool busy() const { return ticket != nullptr; }
  bool reading() const { return busy() && ticket->completion_->state() == Completion::State::kPrompt; }
  std::span<const TokenId> prompt() const { return ticket->request_.prompt; }
  // Tells the guesser of up to `most` tokens that it does not know yet. True: it knows all.
  bool follow(size_t most);

  Sequence sequence;
  TicketPtr ticket;           // null: free
  std::string owner;          // whose tokens the sequence has
  uint64_t last_start = 0;    // n_started_ at that time
  size_t n_prompt = 0;        // of the last request
  size_t n_reused = 0;        // likewise
  std::vector<TokenId> next;  // what a pass evaluates
  size_t n_used = 0;          // of a pass: rows whose logits the answer has taken
  bool right = false;         // the tokens of the pass up to the next logits are the answer's
  std::optional<Guesser> guesser;
  std::optional<Drafter::Text> draft;
  bool is_drafted = false;   // the next guesses are the small model's
  PrefixCache::Chain chain;  // of the sequence's blocks
  // The slot that is reading more of the same prompt first; null: none. Then: how much of it.
  const Slot* leader = nullptr;
  TicketPtr leads;
  size_t n_shared = 0;
};

bool Scheduler::Slot::follow(size_t most) {
  const std::span<const TokenId> answer = ticket->completion_->tokens();
  if (guesser->size() < n_prompt) {
    const std::span<const TokenId> left = prompt().subspan(guesser->size());
    const std::span<const TokenId> part = left.first(std::min(left.size(), most));
    guesser->read(part);
    if (draft) draft->read(part);
  }
  while (guesser->size() >= n_prompt && guesser->size() - n_prompt < answer.size() && most-- > 0) {
    const TokenId token = answer[guesser->size() - n_prompt];
    guesser->push(token);
    if (draft) draft->push(token);
  }
  return guesser->size() == n_prompt + answer.size();
}

Scheduler::Scheduler(const Model& model, const SchedulerOptions& options)
    : model_(model), options_(options), engine_(model), costs_(options.costs) {
  QUERN_CHECK(options.slots > 0 && options.slots <= kMaxSlots && options.prompt_budget > 0);
  if (options.cache.ram_bytes > 0 || !options.cache.folder.empty()) cache_.emplace(model, options.cache);
  if (options.draft != nullptr && options.speculation) drafter_.emplace(*options.draft, model);
  for (size_t i = 0; i < options.slots; ++i) {
    slots_.push_back(std::make_unique<Slot>(model));
    if (drafter_) slots_.back()->draft.emplace(*drafter_);
  }
  publish();
  thread_ = std::thread([this] { serve(); });
}

Scheduler::~Scheduler() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    judge_pass();
  }
  wake_.notify_all();
  thread_.join();
}

AnswerRequest Scheduler::checked(AnswerRequest request) const {
  const size_t vocab_size = model_.hparams().vocab_size;
  const auto check = [&](TokenId id, std::string_view what) {
    if (id < 0 || static_cast<size_t>(id) >= vocab_size)
      fail(ErrorCode::kUsage, "{} has the token id {}: expected 0 to {}", what, id, vocab_size - 1);
  };
  for (const TokenId id : request.prompt) check(id, "the prompt");
  for (const auto& [id, bias] : request.options.logit_bias) check(id, "the logit bias");
  return request;
}

Scheduler::Tickets Scheduler::submit(std::vector<AnswerRequest> requests, const GroupFn& listener) {
  Tickets tickets;
  const Tokenizer* tokenizer = model_.has_tokenizer() ? &model_.tokenizer() : nullptr;
  for (size_t i = 0; i < requests.size(); ++i) {
    auto ticket = std::make_shared<Ticket>();
    ticket->request_ = checked(std::move(requests[i]));
    const std::optional<EmbeddingOptions>& embedding = ticket->request_.embedding;
    if (embedding) ticket->pooler_.emplace(*embedding);
    // A vector needs no room for a token behind the prompt.
    ticket->completion_.emplace(tokenizer, tokenizer != nullptr, ticket->request_.prompt,
                                model_.context() + (embedding ? 1 : 0), ticket->request_.options);
    ticket->listener_ = [listener, i](const AnswerEvent& event) { listener(i, event); };
    ticket->submitted_ = Clock::now();
    tickets.push_back(std::move(ticket));
  }
  {
    const std::lock_guard lock(mutex_);
    // Who finds a free slot does not wait.
    const size_t room = options_.queue + slots_.size() - std::min(slots_.size(), n_admitted_);
    if (stopping_ || n_waiting_ + tickets.size() > room) {
      n_refused_ += tickets.size();
      return {};
    }
    for (const TicketPtr& ticket : tickets) {
      const std::string& owner = ticket->request_.owner;
      auto own = std::find_if(queues_.begin(), queues_.end(),
                              [&](const OwnerQueue& queue) { return queue.owner == owner; });
      if (own == queues_.end()) own = queues_.insert(queues_.end(), OwnerQueue{owner, {}});
      const size_t before = own->waiting.size();
      ticket->position_ = before;
      for (const OwnerQueue& queue : queues_)
        if (&queue != &*own) ticket->position_ += std::min(queue.waiting.size(), before + 1);
      own->waiting.push_back(ticket);
      ++n_waiting_;
    }
  }
  wake_.notify_all();
  return tickets;
}

void Scheduler::cancel(const std::shared_ptr<Ticket>& ticket) {
  {
    const std::lock_guard lock(mutex_);
    ticket->cancelled_ = true;
    judge_pass();
    for (auto queue = queues_.begin(); queue != queues_.end(); ++queue) {
      const auto place = std::find(queue->waiting.begin(), queue->waiting.end(), ticket);
      if (place == queue->waiting.end()) continue;
      queue->waiting.erase(place);
      --n_waiting_;
      gone_.push_back(ticket);
      if (queue->waiting.empty()) queues_.erase(queue);
      break;
    }
  }
  wake_.notify_all();
}

bool Scheduler::idle() const {
  const std::lock_guard lock(mutex_);
  return n_waiting_ == 0 && n_admitted_ == 0 && gone_.empty();
}

size_t Scheduler::spare_room() const {
  const std::lock_guard lock(mutex_);
  const size_t room = options_.queue / 2 + slots_.size() - std::min(slots_.size(), n_admitted_);
  return room - std::min(room, n_waiting_);
}

SchedulerStats Scheduler::stats() const {
  const std::lock_guard lock(mutex_);
  SchedulerStats stats = stats_;
  stats.waiting = n_waiting_;
  stats.refused = n_refused_;
  return stats;
}

void Scheduler::serve() {
  for (;;) {
    drop_cancelled();
    admit();
    stop_waiting();
    std::vector<Turn> turns = next_pass();
    if (options_.speculation) add_guesses(turns);
    publish();
    if (!turns.empty()) {
      evaluate(turns);
      continue;
    }
    std::unique_lock lock(mutex_);
    if (stopping_ && n_waiting_ == 0 && gone_.empty()) return;
    wake_.wait(lock, [this] { return stopping_ || n_waiting_ > 0 || !gone_.empty(); });
  }
}

void Scheduler::drop_cancelled() {
  std::vector<TicketPtr> gone;
  {
    const std::lock_guard lock(mutex_);
    gone = std::exchange(gone_, {});
    if (stopping_) {
      for (const OwnerQueue& queue : queues_)
        gone.insert(gone.end(), queue.waiting.begin(), queue.waiting.end());
      queues_.clear();
      n_waiting_ = 0;
    }
  }
  for (const TicketPtr& ticket : gone) {
    ++counts_.interrupted;
    ticket->listener_(end_event(FinishReason::kInterrupted, {}));
  }
  for (const auto& slot : slots_)
    if (slot->busy() && (stopping_ || slot->ticket->cancelled_))
      end(*slot, end_event(FinishReason::kInterrupted, slot->ticket->completion_->interrupt()));
}

// Owners in turn.
Scheduler::TicketPtr Scheduler::take_waiting() {
  const std::lock_guard lock(mutex_);
  if (queues_.empty()) return nullptr;
  OwnerQueue queue = std::move(queues_.front());
  queues_.pop_front();
  TicketPtr ticket = std::move(queue.waiting.front());
  queue.waiting.pop_front();
  if (!queue.waiting.empty()) queues_.push_back(std::move(queue));
  --n_waiting_;
  ++n_admitted_;
  return ticket;
}

void Scheduler::admit() {
  const auto is_free = [](const auto& slot) { return !slot->busy(); };
  while (std::any_of(slots_.begin(), slots_.end(), is_free)) {
    TicketPtr ticket = take_waiting();
    if (ticket == nullptr) return;
    Slot& slot = *slot_for(ticket->request_);
    start(slot, std::move(ticket));
  }
}

// Who may be served from a request's tokens.
std::string Scheduler::owner_of(const AnswerRequest& request) const {
  return options_.cache_shared ? std::string() : request.owner;
}

// The one rule of who may have what a slot's sequence holds.
bool Scheduler::may_use(const std::string& owner, const Slot& slot) { return slot.owner == owner; }

// The free slot whose tokens the prompt begins with, unless most of them would be lost for little; else the
// one that was used longest ago.
Scheduler::Slot* Scheduler::slot_for(const AnswerRequest& request) {
  Slot *best = nullptr, *oldest = nullptr;
  size_t best_prefix = 0;
  for (const auto& slot : slots_) {
    if (slot->busy()) continue;
    if (oldest == nullptr || slot->last_start < oldest->last_start) oldest = slot.get();
    const Sequence& sequence = slot->sequence;
    const size_t prefix = may_use(owner_of(request), *slot) ? sequence.common_prefix(request.prompt) : 0;
    const bool worth_it = 2 * prefix >= std::min(sequence.position(), request.prompt.size());
    if (worth_it && prefix > best_prefix) {
      best = slot.get();
      best_prefix = prefix;
    }
  }
  return best != nullptr ? best : oldest;
}

void Scheduler::start(Slot& slot, TicketPtr ticket) {
  const AnswerRequest& request = ticket->request_;
  Sequence& sequence = slot.sequence;
  const bool is_others = !may_use(owner_of(request), slot);
  if (is_others || wants_whole_prompt(request)) sequence.truncate(0);
  sequence.reuse_prefix(request.prompt);
  // What a window or a state has lost is read again, in pieces like a new prompt.
  sequence.truncate(std::min(sequence.position(), sequence.n_cached()));
  slot.owner = owner_of(request);
  slot.chain.clear();
  if (cache_ && !wants_whole_prompt(request)) cache_->restore(sequence, slot.owner, request.prompt);
  slot.last_start = ++n_started_;
  slot.n_prompt = request.prompt.size();
  slot.n_reused = sequence.position();
  counts_.reused_tokens += slot.n_reused;
  slot.ticket = std::move(ticket);
  if (options_.speculation && !slot.ticket->pooler_) slot.guesser.emplace();
  if (slot.draft) slot.draft->begin(slot.ticket->request_.options.sampler, is_others);
  if (!wants_whole_prompt(slot.ticket->request_)) share(slot);
  AnswerEvent event = event_of(AnswerEvent::Kind::kPrompt);
  event.n_prompt = event.n_reused = slot.n_reused;
  event.waited = seconds_since(slot.ticket->submitted_);
  slot.ticket->listener_(event);
}

// Looks for another slot that has, or will have, more of the prompt than this one: as the first of several
// answers to it has.
void Scheduler::share(Slot& slot) {
  constexpr size_t kLeast = 32;  // tokens that are worth copying a cache for
  const std::span<const TokenId> prompt = slot.prompt();
  size_t best = slot.sequence.position() + kLeast - 1;
  for (const auto& other : slots_) {
    if (other.get() == &slot || !may_use(slot.owner, *other)) continue;
    const std::span<const TokenId> tokens =
        other->reading() ? other->prompt() : std::span<const TokenId>(other->sequence.tokens());
    const auto [end, unused] = std::ranges::mismatch(tokens, prompt);
    const size_t n = std::min(static_cast<size_t>(end - tokens.begin()), prompt.size() - 1);
    if (n <= best) continue;
    best = slot.n_shared = n;
    slot.leader = other.get();
    slot.leads = other->ticket;
  }
}

void Scheduler::stop_waiting() {
  for (const auto& slot : slots_) {
    if (slot->leader == nullptr) continue;
    const Slot& leader = *slot->leader;
    const bool goes_on = leader.reading() && leader.ticket == slot->leads;
    if (slot->busy() && goes_on && leader.sequence.position() < slot->n_shared) continue;
    if (slot->busy()) take_over(*slot);
    slot->leader = nullptr;
    slot->leads = nullptr;
  }
}

// Copies what the leader has come to.
void Scheduler::take_over(Slot& slot) {
  if (!may_use(slot.owner, *slot.leader)) return;
  const size_t before = slot.sequence.position();
  const size_t n = std::min(slot.leader->sequence.common_prefix(slot.prompt()), slot.n_shared);
  if (n <= before || !slot.sequence.copy(slot.leader->sequence, n)) return;
  counts_.reused_tokens += n - before;
}

// One token of every running answer; what is left of the budget for prompts in equal parts, so that a short
// one does not wait for a long one's end.
std::vector<Scheduler::Turn> Scheduler::next_pass() const {
  std::vector<Turn> turns;
  std::vector<Slot*> reading;
  for (const auto& slot : slots_) {
    if (slot->reading() && slot->leader == nullptr)
      reading.push_back(slot.get());
    else if (slot->busy() && !slot->reading())
      turns.push_back({slot.get(), 0});
  }
  const size_t most = engine_.micro_batch() - std::min(engine_.micro_batch() - 1, turns.size());
  size_t budget = turns.empty() ? most : std::min(most, options_.prompt_budget);
  std::stable_sort(reading.begin(), reading.end(), [](const Slot* a, const Slot* b) {
    const size_t left_a = a->n_prompt - a->sequence.position(), left_b = b->n_prompt - b->sequence.position();
    return left_a != left_b ? left_a < left_b : a->last_start < b->last_start;
  });
  for (size_t i = 0; i < reading.size() && budget > 0; ++i) {
    const size_t position = reading[i]->sequence.position();
    size_t left = reading[i]->n_prompt - position;
    // Up to where others go on from: there its states are theirs.
    for (const auto& slot : slots_)
      if (slot->leader == reading[i] && slot->n_shared > position)
        left = std::min(left, slot->n_shared - position);
    const size_t part = std::max<size_t>(budget / (reading.size() - i), 1);
    turns.push_back({reading[i], std::min(left, part)});
    budget -= turns.back().n;
  }
  return turns;
}

void Scheduler::add_guesses(std::span<Turn> turns) {
  constexpr size_t kFollowed = 4096;  // tokens of a slot between two passes: less than a millisecond
  std::vector<Draft> drafts(turns.size());
  std::vector<size_t> mosts(turns.size());
  size_t n_rows = 0;
  for (size_t i = 0; i < turns.size(); ++i) {
    Slot& slot = *turns[i].slot;
    n_rows += std::max<size_t>(turns[i].n, 1);
    if (!slot.guesser || !slot.follow(kFollowed) || turns[i].n > 0) continue;
    const size_t most =
        std::min<uint64_t>(slot.sequence.rows_to_take_back(), slot.ticket->completion_->room());
    if (most < 2) continue;
    mosts[i] = most - 1;
    drafts[i].chances = slot.guesser->chances(most - 1);
  }
  const double slowest =
      turns.size() > 1 ? SchedulerOptions::kMostDelay : std::numeric_limits<double>::infinity();
  if (drafter_) ask_small_model(turns, mosts, n_rows, slowest, drafts);
  choose_drafts(drafts, n_rows, engine_.micro_batch(), slowest, costs_);
  for (size_t i = 0; i < turns.size(); ++i) turns[i].n_guesses = drafts[i].n;
}

// most: guesses of each turn; 0: none. drafts: what the text itself suggests, where that is not likelier.
void Scheduler::ask_small_model(std::span<const Turn> turns, std::span<const size_t> most, size_t n_rows,
                                double slowest, std::span<Draft> drafts) {
  std::vector<Drafter::Job> jobs;
  for (size_t i = 0; i < turns.size(); ++i) {
    Slot& slot = *turns[i].slot;
    slot.is_drafted = most[i] > 0 && drafter_->may_be_likelier(drafts[i].chances);
    if (slot.is_drafted) jobs.push_back({&*slot.draft, most[i]});
  }
  drafter_->guess(jobs, n_rows, slowest, costs_, stopping_);
  for (size_t i = 0; i < turns.size(); ++i) {
    Slot& slot = *turns[i].slot;
    slot.is_drafted = slot.is_drafted && !slot.draft->chances().empty();
    if (slot.is_drafted) drafts[i].chances = slot.draft->chances();
  }
}

Work Scheduler::work_of(const Turn& turn) {
  Slot& slot = *turn.slot;
  const size_t begin = slot.sequence.position();
  size_t n_logits = 1;
  slot.n_used = 0;
  slot.right = true;
  if (turn.n == 0) {
    const std::span<const TokenId> pending = slot.ticket->completion_->pending();
    slot.next.assign(pending.begin(), pending.end());
    for (size_t i = 0; i < turn.n_guesses; ++i)
      slot.next.push_back(slot.is_drafted ? slot.draft->guess(i) : slot.guesser->guess(i));
    n_logits += turn.n_guesses;
  } else {
    const std::span<const TokenId> piece = slot.prompt().subspan(begin, turn.n);
    slot.next.assign(piece.begin(), piece.end());
    if (wants_whole_prompt(slot.ticket->request_))
      n_logits = turn.n;
    else if (begin + turn.n < slot.n_prompt)
      n_logits = 0;
  }
  if (slot.ticket->pooler_)
    return {&slot.sequence, slot.next, n_logits,
            [this, &slot, begin](size_t index, std::span<const float> state) {
              take_state(slot, begin + index, state);
            },
            RowValues::kStates};
  return {&slot.sequence, slot.next, n_logits,
          [this, &slot, begin](size_t index, std::span<const float> logits) {
            take_logits(slot, begin + index, logits);
          }};
}

// Under the mutex, whenever what it says may have changed.
void Scheduler::judge_pass() {
  pass_is_vain_ = stopping_ || std::all_of(in_pass_.begin(), in_pass_.end(),
                                           [](const TicketPtr& ticket) { return ticket->cancelled_.load(); });
}

void Scheduler::evaluate(std::span<const Turn> turns) {
  {
    const std::lock_guard lock(mutex_);
    in_pass_.clear();
    for (const Turn& turn : turns) in_pass_.push_back(turn.slot->ticket);
    judge_pass();
  }
  std::vector<Work> work;
  std::vector<size_t> begins;
  size_t n_rows = 0;
  for (const Turn& turn : turns) {
    begins.push_back(turn.slot->sequence.position());
    work.push_back(work_of(turn));
    n_rows += turn.slot->next.size();
  }
  const auto begin = Clock::now();
  bool finished = false;
  try {
    finished = engine_.run(work, {.stop = pass_is_vain_});
  } catch (const std::exception& error) {
    for (size_t i = 0; i < turns.size(); ++i) take_back_guesses(turns[i], begins[i]);
    if (turns.size() > 1 || turns[0].n_guesses > 0) {
      // One of them is the cause, or a guess that would not have come true, and the others shall not suffer:
      // each alone, from where it is.
      for (size_t i = 0; i < turns.size(); ++i) {
        Slot& slot = *turns[i].slot;
        const size_t done = slot.sequence.position() - begins[i];
        const size_t wanted = std::max<size_t>(turns[i].n, 1);
        if (!slot.busy() || done >= wanted) continue;
        const Turn rest{&slot, turns[i].n == 0 ? 0 : turns[i].n - done};
        evaluate({&rest, 1});
      }
      return;
    }
    if (turns[0].slot->busy()) end(*turns[0].slot, failure(error));
    return;
  }
  const double pass_seconds = seconds_since(begin);
  counts_.busy_seconds += pass_seconds;
  ++counts_.passes;
  counts_.rows += n_rows;
  if (finished) costs_.add(n_rows, pass_seconds);
  for (size_t i = 0; i < turns.size(); ++i) {
    Slot& slot = *turns[i].slot;
    take_back_guesses(turns[i], begins[i]);
    if (cache_) cache_->keep(slot.sequence, slot.owner, &slot.chain);
    if (turns[i].n > 0) counts_.prompt_tokens += slot.sequence.position() - begins[i];
    if (!slot.reading()) continue;
    AnswerEvent event = event_of(AnswerEvent::Kind::kPrompt);
    event.n_prompt = slot.sequence.position();
    event.n_reused = slot.n_reused;
    slot.ticket->listener_(event);
  }
}

// logits: of the token at `position`.
void Scheduler::take_logits(Slot& slot, size_t position, std::span<const float> logits) {
  if (!slot.busy()) return;  // failed with the logits before
  if (!slot.right) return;   // behind a guess that was wrong
  ++slot.n_used;
  Ticket& ticket = *slot.ticket;
  const AnswerRequest& request = ticket.request_;
  try {
    std::optional<LogProbs> log_probs;
    const auto tell = [&](AnswerEvent::Kind kind, TokenId token, std::string text) {
      AnswerEvent event = event_of(kind);
      event.token = token;
      event.text = std::move(text);
      if (log_probs) {
        event.log_prob = log_probs->of(token);
        event.top = log_probs->best(request.n_top);
      }
      ticket.listener_(event);
    };
    Completion& completion = *ticket.completion_;
    const bool in_prompt = position + 1 < slot.n_prompt;
    if (in_prompt) {
      log_probs.emplace(model_.kernels(), logits);
      return tell(AnswerEvent::Kind::kPromptToken, request.prompt[position + 1], {});
    }
    const CompletionStep step = completion.feed(logits);
    const size_t next = slot.n_used;  // of the pass, where the answer's last token or a guess came before
    slot.right = step.token && next < slot.next.size() && slot.next[next] == *step.token;
    if (step.token) {
      if (request.log_probs) log_probs.emplace(model_.kernels(), logits);
      ++counts_.answer_tokens;
      tell(AnswerEvent::Kind::kToken, *step.token, step.text);
    }
    if (!completion.finished()) return;
    AnswerEvent event = end_event(completion.reason(), step.token ? "" : step.text);
    event.stop_text = completion.stop_text();
    end(slot, event);
  } catch (const std::exception& error) {
    if (slot.busy()) end(slot, failure(error));
  }
}

// state: of the token at `position`.
void Scheduler::take_state(Slot& slot, size_t position, std::span<const float> state) {
  if (!slot.busy()) return;
  try {
    slot.ticket->pooler_->add(state);
    if (position + 1 < slot.n_prompt) return;
    AnswerEvent event = end_event(FinishReason::kEndOfText, {});
    event.embedding = slot.ticket->pooler_->finish();
    end(slot, event);
  } catch (const std::exception& error) {
    if (slot.busy()) end(slot, failure(error));
  }
}

// begin: the sequence's tokens before the pass.
void Scheduler::take_back_guesses(const Turn& turn, size_t begin) {
  Slot& slot = *turn.slot;
  if (turn.n_guesses == 0 || slot.sequence.position() == begin) return;
  const size_t n_used = std::max<size_t>(slot.n_used, 1);
  counts_.guesses += turn.n_guesses;
  counts_.guesses_taken += n_used - 1;
  if (n_used <= turn.n_guesses) slot.sequence.truncate(begin + n_used);
}

void Scheduler::end(Slot& slot, const AnswerEvent& event) {
  const TicketPtr ticket = std::exchange(slot.ticket, nullptr);
  slot.guesser.reset();
  slot.leader = nullptr;
  slot.leads = nullptr;
  if (event.kind == AnswerEvent::Kind::kFailed)
    ++counts_.failed;
  else if (event.reason == FinishReason::kInterrupted)
    ++counts_.interrupted;
  else
    ++counts_.finished;
  {
    const std::lock_guard lock(mutex_);
    --n_admitted_;
    std::erase(in_pass_, ticket);
    judge_pass();
  }
  publish();
  ticket->listener_(event);
}

void Scheduler::publish() {
  SchedulerStats stats = counts_;
  if (cache_) stats.cache = cache_->stats();
  for (const auto& slot : slots_) {
    if (slot->busy()) ++(slot->reading() ? stats.reading : stats.running);
    stats.slots.push_back({slot->busy(), slot->sequence.position(), slot->n_prompt});
  }
  const std::lock_guard lock(mutex_);
  stats_ = std::move(stats);
}

}  // namespace quern
