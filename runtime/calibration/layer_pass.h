// Takes rows through a model's layers one by one, and says what its matrices are multiplied with.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "runtime/engine.h"

namespace quern {

// Rows are those of one text from its first position on, at most max_rows(). Uses the model's matrices as
// they are at each call. Of a model on the CPU alone. Not thread-safe.
class LayerPass {
 public:
  explicit LayerPass(const Model& model);
  ~LayerPass();

  size_t max_rows() const { return engine_.micro_batch(); }
  size_t dim() const { return model_.hparams().dim; }

  // x: [ids.size(), dim].
  void embed(std::span<const int32_t> ids, std::span<float> x);
  // Takes x through all of a layer. Throws kIntegrity for a NaN in its keys or values.
  void run(size_t layer, std::span<float> x);
  // What `matrix`, of that layer, is multiplied with; input: [rows, matrix.columns()]. Nothing behind that
  // product is computed.
  void input_of(const DeviceMatrix& matrix, size_t layer, std::span<const float> x, std::span<float> input);
  // Logits of each row of x, the last layer's output, in order: [vocab_size], valid during the call.
  void logits(std::span<const float> x,
              const std::function<void(size_t row, std::span<const float> logits)>& on_row);

 private:
  void run_rows(size_t n, const std::function<void(Pass& pass)>& body);
  BufferId stream() const;

  const Model& model_;
  Engine engine_;
  std::unique_ptr<DeviceKvCache> cache_;
  const BufferId x_;
};

}  // namespace quern
