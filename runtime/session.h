// One sequence being evaluated: position, KV cache, scratch.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "runtime/model.h"

namespace quern {

// Not thread-safe; many sessions may share one model, one at a time. Logits do not depend on how a sequence
// was cut into eval() calls, nor on micro_batch, threads or instruction set.
class Session {
 public:
  static constexpr size_t kMicroBatch = 512;  // tokens evaluated together at most, unless told otherwise

  // Allocates the cache for model.context() positions.
  explicit Session(const Model& model, size_t micro_batch = kMicroBatch);
  ~Session();

  // logits: [vocab_size] of the token at index `index` of the eval() call; valid during the call.
  using LogitsFn = std::function<void(size_t index, std::span<const float> logits)>;
  // Polled before each layer; true stops eval() early.
  using StopFn = std::function<bool()>;

  // Appends tokens at position() and evaluates them. on_logits is called, in order, for the last n_logits
  // tokens. Throws kResource when they do not fit the context (nothing is evaluated then), kIntegrity for a
  // NaN in K or V (layer and position named), kUsage for an id out of range. Returns false when `stop` ended
  // it; the tokens of finished micro-batches remain.
  bool eval(std::span<const int32_t> tokens, size_t n_logits, const LogitsFn& on_logits,
            const StopFn& stop = {});
  // Convenience: logits of the last token, valid until the next call.
  std::span<const float> eval(std::span<const int32_t> tokens);

  // Number of tokens evaluated.
  size_t position() const { return tokens_.size(); }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  // Forgets everything from position n on (n <= position()).
  void truncate(size_t n);
  // Keeps the longest common prefix of `tokens` and what was evaluated, truncates there, returns its length
  // (at most tokens.size() - 1, so that something is left to evaluate for logits).
  size_t reuse_prefix(std::span<const int32_t> tokens);

  const Model& model() const { return model_; }

  // Bytes that a session takes beside its cache, whose shape kv_shape() gives.
  static uint64_t scratch_memory(const HParams& hparams, uint64_t context, size_t micro_batch, int n_threads);
  static KvShape kv_shape(const HParams& hparams, uint64_t context, KvType kv);

 private:
  struct Scratch;

  // One micro-batch at position(), without logits; false when stopped.
  bool forward(std::span<const int32_t> tokens, const StopFn& stop);
  void fill_rope_table(size_t position, size_t n);
  // Calls on_logits for rows [row_begin, n) of the micro-batch just evaluated, whose first token has index
  // `first`.
  void emit_logits(size_t row_begin, size_t n, size_t first, const LogitsFn& on_logits);

  const Model& model_;
  size_t micro_batch_;
  std::vector<int32_t> tokens_;
  std::vector<double> rope_frequencies_;
  std::vector<float> cos_sin_;
  std::unique_ptr<DeviceKvCache> cache_;
  std::unique_ptr<Scratch> scratch_;
  std::vector<float> logits_;
};

}  // namespace quern
