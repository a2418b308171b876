// Many completions of one model at a time. Prompts wait in a bounded queue for a slot; every pass evaluates
// one token of each running answer together with pieces of the prompts that are being read (continuous
// batching: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI
// 2022, section 3.1; pieces: Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with
// Sarathi-Serve", OSDI 2024, section 4), and guesses at what answers go on with (speculation.h).
//
// An answer depends on its request alone: neither on the others, on the slot and what the slot's cache still
// held, on the order of requests, nor on the options below.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "runtime/completion.h"
#include "runtime/engine.h"
#include "runtime/engine/drafter.h"
#include "runtime/engine/embedding.h"
#include "runtime/engine/prefix_cache.h"
#include "runtime/engine/speculation.h"

namespace quern {

struct TokenChance {
  TokenId id;
  double log_prob;  // natural logarithm, of the model's own distribution: before biases and temperature
};

struct AnswerRequest {
  std::vector<TokenId> prompt;
  CompletionOptions options;
  bool log_probs = false;  // of picked tokens
  size_t n_top = 0;        // with them: so many likeliest tokens, best first, lowest id on ties
  bool prompt_log_probs =
      false;  // of the prompt's tokens too, all but the first; nothing cached is used then
  // The prompt's vector in place of an answer; the prompt may fill the context then. Where the mean is asked
  // for, nothing cached is used.
  std::optional<EmbeddingOptions> embedding{};
  // Owners take turns in the queue, and none is served from what another's prompt has left in a cache, unless
  // the scheduler shares that.
  std::string owner;
};

struct AnswerEvent {
  enum class Kind : uint8_t {
    kPrompt,       // n_prompt positions are evaluated; the first such event: the answer has a slot
    kPromptToken,  // token (of the prompt), log_prob, top
    kToken,        // token, text and, on request, log_prob and top
    kFinished,     // text: what was held back; reason, stop_text; or the embedding. The last event
    kFailed,       // code, text: a message. The last event
  };
  Kind kind;
  size_t n_prompt = 0;
  size_t n_reused = 0;  // of them, those that the slot's cache held
  double waited = 0;    // kPrompt: seconds in the queue
  TokenId token = kNoToken;
  std::string text;
  double log_prob = 0;
  std::vector<TokenChance> top;
  FinishReason reason = FinishReason::kInterrupted;
  std::string stop_text;  // that was met; empty: none
  std::vector<float> embedding{};
  ErrorCode code = ErrorCode::kUsage;
};

// Called by the scheduler's thread, between passes, in order: quick, and throws nothing.
using AnswerFn = std::function<void(const AnswerEvent& event)>;

struct SchedulerOptions {
  size_t slots = 1;  // sequences at a time, at most kMaxSlots; each has a cache of the whole context
  // Tokens of prompts in a pass where answers are running; else a micro-batch. With more a pass takes longer,
  // and running answers wait: beside a prompt of 1,500 tokens, SmolLM2-135M on two threads had a time between
  // tokens of 2.3 times its usual with 8, 3.9 with 16, 8.3 with 32, 13.5 with 64, and the prompt took 22, 15,
  // 14, 18 seconds.
  size_t prompt_budget = 8;
  size_t queue = 64;  // requests that wait at most
  // Passes evaluate guesses too where that is likely to bring more tokens a second; one that serves several
  // requests takes at most kMostDelay times as long for them.
  bool speculation = true;
  PassCosts costs = {};  // that are known at the start
  // A small model of the same vocabulary that guesses too (drafter.h), with a cache a slot; null: none. It
  // outlives the scheduler.
  const Model* draft = nullptr;
  // For blocks of what prompts and answers came to, beside the slots' own memory.
  PrefixCacheOptions cache = {};
  bool cache_shared = false;  // owners are served from what others have left, too
  static constexpr double kMostDelay = 1.5;
};

struct SchedulerStats {
  size_t waiting = 0, reading = 0, running = 0;  // requests
  // Since the start.
  uint64_t passes = 0, rows = 0;
  uint64_t prompt_tokens = 0, reused_tokens = 0, answer_tokens = 0;
  uint64_t finished = 0, interrupted = 0, failed = 0, refused = 0;
  uint64_t guesses = 0, guesses_taken = 0;  // that passes evaluated; those of them that came true
  double busy_seconds = 0;                  // in passes
  PrefixCacheStats cache;
  struct Slot {
    bool busy = false;
    size_t position = 0;  // tokens that its sequence has
    size_t prompt = 0;    // of the request that it has, or had last
  };
  std::vector<Slot> slots;
};

// Thread-safe. Its own thread runs the passes.
class Scheduler {
 public:
  static constexpr size_t kMaxSlots = 256;

  // A request on its way.
  class Ticket {
   public:
    // Requests that were to have a slot before it when it came, at most.
    size_t position() const { return position_; }

   private:
    friend class Scheduler;
    AnswerRequest request_;
    std::optional<Completion> completion_;
    std::optional<Pooler> pooler_;  // where it is the prompt's vector that is wanted
    AnswerFn listener_;
    size_t position_ = 0;
    std::chrono::steady_clock::time_point submitted_;
    std::atomic<bool> cancelled_ = false;
  };
  using Tickets = std::vector<std::shared_ptr<Ticket>>;

  // Allocates the caches of all slots. The model outlives the scheduler.
  Scheduler(const Model& model, const SchedulerOptions& options);
  // Interrupts what is left: each gets its kFinished.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // All of them, or none where the queue has no room: nothing is returned then. Throws what Completion's
  // constructor throws, kUsage for an id that the model does not have. `listener` is told an answer's index
  // in `requests`.
  using GroupFn = std::function<void(size_t index, const AnswerEvent& event)>;
  Tickets submit(std::vector<AnswerRequest> requests, const GroupFn& listener);
  // Ends an answer before the next pass; a pass whose answers are all cancelled ends before its next layer.
  // The answer gets a kFinished, unless it has ended already.
  void cancel(const std::shared_ptr<Ticket>& ticket);

  // Nothing waits and nothing runs.
  bool idle() const;
  // Places for requests that can wait: half of the queue stays for those that cannot.
  size_t spare_room() const;
  SchedulerStats stats() const;

 private:
  using TicketPtr = std::shared_ptr<Ticket>;
  struct Slot;
  struct Turn {  // what a slot has of a pass
    Slot* slot;
    size_t n;              // tokens of the prompt; 0: the answer's last token
    size_t n_guesses = 0;  // behind that
  };

  AnswerRequest checked(AnswerRequest request) const;
  void serve();  // the thread
  void drop_cancelled();
  void admit();
  TicketPtr take_waiting();
  std::string owner_of(const AnswerRequest& request) const;
  static bool may_use(const std::string& owner, const Slot& slot);
  Slot* slot_for(const AnswerRequest& request);
  void start(Slot& slot, TicketPtr ticket);
  void share(Slot& slot);
  void take_over(Slot& slot);
  void stop_waiting();
  std::vector<Turn> next_pass() const;
  void add_guesses(std::span<Turn> turns);
  void ask_small_model(std::span<const Turn> turns, std::span<const size_t> most, size_t n_rows,
                       double slowest, std::span<Draft> drafts);
  void evaluate(std::span<const Turn> turns);
  void judge_pass();
  Work work_of(const Turn& turn);
  void take_logits(Slot& slot, size_t position, std::span<const float> logits);
  void take_state(Slot& slot, size_t position, std::span<const float> state);
  void take_back_guesses(const Turn& turn, size_t begin);
  void end(Slot& slot, const AnswerEvent& event);
  void publish();

  const Model& model_;
  const SchedulerOptions options_;
  // The thread's own, once it runs.
  Engine engine_;
  std::optional<Drafter> drafter_;
  std::vector<std::unique_ptr<Slot>> slots_;
  uint64_t n_started_ = 0;
  SchedulerStats counts_;
  PassCosts costs_;
  std::optional<PrefixCache> cache_;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  struct OwnerQueue {
    std::string owner;
    std::deque<std::shared_ptr<Ticket>> waiting;
  };
  std::deque<OwnerQueue> queues_;  // none is empty; the first is the next to be served
  size_t n_waiting_ = 0;
  size_t n_admitted_ = 0;        // have a slot, or are about to
  std::vector<TicketPtr> gone_;  // were cancelled while they waited
  uint64_t n_refused_ = 0;
  SchedulerStats stats_;
  std::vector<TicketPtr> in_pass_;  // wait for what the pass brings
  // Written under the mutex, read without.
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> pass_is_vain_ = false;  // all of in_pass_ are cancelled: the engine ends it
  std::thread thread_;                      // last: it sees all of the above
};

}  // namespace quern
