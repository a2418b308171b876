// One sequence and an engine of its own: what a command that talks to one user needs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/engine.h"

namespace quern {

// One thread at a time uses a session. Sessions that share a model may be used by different threads at once:
// their passes follow one another. Logits do not depend on how a sequence was cut into eval() calls, nor on
// micro_batch, threads or instruction set.
class Session {
 public:
  // Allocates the cache for model.context() positions.
  explicit Session(const Model& model, size_t micro_batch = Engine::kMicroBatch)
      : model_(model), engine_(model, micro_batch), sequence_(model) {}

  // Appends tokens at position() and evaluates them (Engine::run). on_logits is called, in order, for the
  // last n_logits tokens.
  bool eval(std::span<const int32_t> tokens, size_t n_logits, const LogitsFn& on_logits,
            const RunControl& control = {}) {
    const Work work{&sequence_, tokens, n_logits, on_logits};
    return engine_.run({&work, 1}, control);
  }
  // Convenience: logits of the last token, valid until the next call.
  std::span<const float> eval(std::span<const int32_t> tokens) {
    eval(tokens, 1, [this](size_t, std::span<const float> z) { logits_.assign(z.begin(), z.end()); });
    return logits_;
  }

  size_t position() const { return sequence_.position(); }
  const std::vector<int32_t>& tokens() const { return sequence_.tokens(); }
  void truncate(size_t n) { sequence_.truncate(n); }
  size_t reuse_prefix(std::span<const int32_t> tokens) { return sequence_.reuse_prefix(tokens); }

  Sequence& sequence() { return sequence_; }
  size_t rows_to_take_back() const { return sequence_.rows_to_take_back(); }

  uint64_t rows_dropped() const { return engine_.rows_dropped(); }  // Engine's

  const Model& model() const { return model_; }

 private:
  const Model& model_;
  Engine engine_;
  Sequence sequence_;
  std::vector<float> logits_;
};

}  // namespace quern
