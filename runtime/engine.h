// Evaluates tokens of any number of sequences, some rows of each in one pass over the weights.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "runtime/model.h"

namespace quern {

// Tokens, and the cache of what they were evaluated to. Belongs to no engine: any engine of the same model
// may go on with it, one at a time.
class Sequence {
 public:
  // Positions from one snapshot of recurrent states to the next.
  static constexpr size_t kSnapshotDistance = 512;

  // Allocates the cache for model.context() positions.
  explicit Sequence(const Model& model);

  // Number of tokens.
  size_t position() const { return tokens_.size(); }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  // Of them, those that the next pass does not evaluate again.
  size_t n_cached() const;
  // Forgets everything from position n on (n <= position()). Where the cache has not kept what a sequence of
  // n tokens needs (windows, recurrent states), the next pass evaluates them again, from the nearest position
  // that it has kept: the same bits.
  void truncate(size_t n);
  // Of the next pass, so many rows at most can be taken back by truncate() without that anything has to be
  // evaluated again, and fit the context.
  size_t rows_to_take_back() const;
  // Number of first tokens that these and `tokens` have in common.
  size_t common_prefix(std::span<const int32_t> tokens) const;
  // Keeps the longest common prefix of `tokens` and these, truncates there, returns its length (at most
  // tokens.size() - 1, so that something is left to evaluate for logits).
  size_t reuse_prefix(std::span<const int32_t> tokens);

  // Blocks of a cache hold kBlock positions each (Device::save_kv); the first stands at position 0. A cache
  // of fewer positions has none.
  static constexpr size_t kBlock = kAttentionSegment;
  // Whole blocks of cached tokens.
  size_t n_blocks() const { return n_cached() / kBlock; }
  uint64_t block_bytes() const { return model_.kv_shape().block_bytes(); }
  // False, and nothing is written, where a ring has gone on or the states behind the block were not kept, and
  // where the device copies none.
  bool save_block(size_t index, std::span<uint8_t> block) const;
  // Makes these tokens and what blocks hold of them the sequence's own: blocks[i] has
  // tokens[i * kBlock, (i + 1) * kBlock), all of them. What the sequence already has of them is kept.
  void restore(std::span<const int32_t> tokens, std::span<const std::span<const uint8_t>> blocks);
  // Makes the first n tokens of another sequence of the model its own, without evaluating them. False, and
  // nothing is changed, where the other does not have all that n tokens need.
  bool copy(const Sequence& other, size_t n);

 private:
  friend class EngineRun;
  // A recurrent state, and the number of tokens that it has seen.
  struct Snapshot {
    size_t position, slot;
  };

  bool cache_reaches(size_t n) const;
  bool has_ring(size_t segment) const;
  std::optional<size_t> slot_of_state(size_t n) const;
  void become(std::span<const int32_t> tokens, size_t n_stored);
  bool has_states() const { return model_.kv_shape().state_bytes() != 0; }
  bool has_snapshots() const { return model_.kv_shape().state_slots > KvShape::kStateRows; }
  const Snapshot* last_snapshot(size_t n) const;  // up to position n; null: none
  void go_back_to_state(size_t n);
  size_t begin_pass(size_t n);
  void end_pass(size_t n, size_t snapshot_slot);

  const Model& model_;
  std::unique_ptr<DeviceKvCache> cache_;
  std::vector<int32_t> tokens_;
  size_t n_cached_ = 0;  // of them, from the first on
  // Where the state after n_cached_ tokens lies. Behind the first token of a pass of few rows, at
  // rows_begin_, the n_rows_ slots from 1 on hold what followed.
  size_t state_slot_ = 0, rows_begin_ = 0, n_rows_ = 0;
  std::vector<Snapshot> snapshots_;  // the oldest first
  bool torn_ = false;    // a pass did not come to its end: recurrent states are between two positions
  size_t n_stored_ = 0;  // positions that the cache has held at most since it was last begun anew
};

// logits: [vocab_size] of the token at index `index` of the tokens that were given, or what RowValues says in
// place of them; valid during the call. Called between passes, by the thread that called run(); what it
// throws comes out of there.
using LogitsFn = std::function<void(size_t index, std::span<const float> logits)>;

// A flag that ends an evaluation early. Whoever wants that sets it: any thread, or a signal handler. The
// engine reads it before each layer, and so calls nobody within a pass, where the device's threads wait and
// other passes too. Refers to the flag, which outlives it; without one nothing ends.
class StopFlag {
 public:
  StopFlag() = default;
  StopFlag(const std::atomic<bool>& flag) : flag_(&flag) {}
  StopFlag(const std::atomic<bool>&& flag) = delete;

  bool is_set() const { return flag_ != nullptr && flag_->load(std::memory_order_acquire); }

 private:
  const std::atomic<bool>* flag_ = nullptr;
};

// How an evaluation is ended early, and followed.
struct RunControl {
  StopFlag stop{};
  // Called before the first micro-batch and after each, before its logits are handed out: between passes, by
  // the thread that called run(); what it throws comes out of there. May be null.
  std::function<void()> on_micro_batch{};
};

// What a pass gives for a token.
enum class RowValues : uint8_t {
  kLogits,
  kStates,  // [dim]: the output of the last layer behind the final norm, of which logits are the products
};

// Tokens to append to a sequence.
struct Work {
  Sequence* sequence;
  std::span<const int32_t> tokens;
  size_t n_logits = 0;  // of so many last tokens, in order
  LogitsFn on_logits;   // must not run this engine
  RowValues values = RowValues::kLogits;
};

// Owns the buffers of passes. Engines and sequences are not thread-safe; several of one model may be used
// from several threads, whose passes the device runs one after the other.
class Engine {
 public:
  static constexpr size_t kMicroBatch = 512;  // rows evaluated together at most, unless told otherwise

  explicit Engine(const Model& model, size_t micro_batch = kMicroBatch);
  ~Engine();

  // Evaluates all `work`, micro-batch by micro-batch: rows of the first first, as many as there is room for.
  // A token's logits depend on nothing but its sequence: neither on the others, nor on micro_batch, threads
  // or instruction set. Sequences differ. Throws kResource when tokens do not fit a context, kUsage for an id
  // out of range (nothing is evaluated then), kIntegrity for a NaN in K or V (layer and position named).
  // Returns false when control.stop ended it; the tokens of finished micro-batches remain.
  bool run(std::span<const Work> work, const RunControl& control = {});

  // Calls body in the device's run_pass(), with a pass of these rows, at most micro_batch() of them: for who
  // takes rows through single layers. Their positions are uploaded; all else is up to the body, which looks
  // for a NaN in K or V afterwards.
  void with_pass(std::span<const SequenceRows> sequences, const std::function<void(Pass& pass)>& body);

  size_t micro_batch() const { return micro_batch_; }
  // Takes all rows through all of the last layer, also those whose logits nobody wants: for who listens to
  // products.
  void finish_all_rows() { finishes_all_rows_ = true; }
  // Rows so far that the feed-forward network of the last layer was spared.
  uint64_t rows_dropped() const { return rows_dropped_; }

  // Bytes that an engine takes for sequences of up to `context` positions, beside their caches.
  static uint64_t scratch_bytes(const Device& device, const Network& network, const Declarations& parts,
                                uint64_t context, size_t micro_batch);

 private:
  friend class EngineRun;

  // What the rows' positions make: rotations, factors of queries.
  void upload_positions(const Pass& pass);
  bool forward(Pass& pass, std::span<const int32_t> ids, StopFlag stop);
  void fail_on_nan(std::span<const SequenceRows> sequences);
  Pass pass_of(std::span<const SequenceRows> sequences, size_t n) const;

  const Model& model_;
  size_t micro_batch_;
  std::vector<Rope> ropes_;
  std::vector<std::unique_ptr<DeviceBuffer>> buffers_, rope_tables_;
  std::vector<std::unique_ptr<DeviceRouting>> routings_;
  std::unique_ptr<DeviceBuffer> query_scales_;  // null: the model has none
  std::vector<float> table_, logits_, states_;  // on the host
  bool finishes_all_rows_ = false;
  uint64_t rows_dropped_ = 0;
};

// What Engine::run() does, in the caller's steps: for who wants the logits of two models side by side without
// keeping more than a few rows of either. `work` and the engine outlive it; nothing else uses the engine
// meanwhile.
class EngineRun {
 public:
  // Throws as run() does.
  EngineRun(Engine& engine, std::span<const Work> work);
  ~EngineRun();

  // All tokens are evaluated; no further step then.
  bool finished() const { return finished_; }
  // Evaluates the next micro-batch, its logits apart. False: `stop` ended it. Belongs inside the device's
  // run_pass(), as compute_logits() does.
  bool step(StopFlag stop);

  // Of the last step: rows whose logits are wanted, in run()'s order.
  size_t n_logits() const { return wanted_.size(); }
  // Computes those of [begin, begin + n), n <= Network::kLogitRows; the earlier ones are gone.
  void compute_logits(size_t begin, size_t n);
  // [vocab_size] of row i, one of the last compute_logits(), or [dim] where its work wants states; valid
  // until the engine's next row.
  std::span<const float> logits(size_t i);
  // What row i belongs to.
  const Work& work_of(size_t i) const { return *wanted_[i].work; }
  size_t index_of(size_t i) const { return wanted_[i].index; }

 private:
  struct Rows;  // of one work in a micro-batch
  struct Wanted {
    const Work* work;
    size_t index, row;
  };

  void check() const;
  void take_rows();

  Engine& engine_;
  std::span<const Work> work_;
  std::vector<size_t> done_;  // of each one's tokens
  std::vector<SequenceRows> sequences_;
  std::vector<Rows> rows_;
  std::vector<int32_t> ids_;
  std::vector<Wanted> wanted_;
  std::vector<uint32_t> needed_;  // their rows
  size_t computed_begin_ = 0;
  bool finished_ = false;
};

}  // namespace quern
