#include "runtime/calibration/calibration_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>

#include "quant/calibrated/calibrated_encoder.h"
#include "runtime/calibration/linear_algebra.h"

namespace quern {
namespace {

// Every so many pieces one is held out.
constexpr size_t kHeldOutEvery = 10;

std::vector<const TensorDeclaration*> matrices_of_first_layer(const Model& model) {
  std::vector<const TensorDeclaration*> matrices;
  for (const TensorDeclaration& tensor : model.parts().tensors())
    if (tensor.layer == 0 && tensor.is_matrix()) matrices.push_back(&tensor);
  return matrices;
}

uint64_t n_weights(const TensorDeclaration& matrix) { return matrix.shape.front() * matrix.shape.back(); }

// While layers are encoded, beside the streams.
uint64_t bytes_of_layers(const CalibrationTask& task) {
  uint64_t widest = 0, largest = 0, layer_weights = 0;
  for (const TensorDeclaration* const matrix : matrices_of_first_layer(task.model)) {
    widest = std::max(widest, matrix->shape.back());
    largest = std::max(largest, n_weights(*matrix));
    layer_weights += n_weights(*matrix);
  }
  uint64_t bytes = 3 * widest * widest * sizeof(double);  // Gram matrices and a factor
  bytes += ErrorFeedback::bytes(widest);
  bytes += 2 * task.text.n_held_out() * widest * sizeof(float);  // inputs
  bytes += 4 * largest * sizeof(float);                          // weights, targets, decoded results
  bytes += 2 * largest;                                          // encoded, both ways
  bytes += 3 * layer_weights;                                    // quantized: bytes, and as loaded
  return bytes;
}

// While an embedding or the output matrix is in the model as the file will have it, beside the streams.
uint64_t bytes_of_ends(const CalibrationTask& task) {
  uint64_t largest = 0;
  for (const TensorDeclaration& tensor : task.model.parts().tensors()) {
    if (tensor.layer >= 0 || !tensor.is_matrix()) continue;
    const auto found = task.formats.find(tensor.name);
    if (found == task.formats.end()) continue;  // tied
    const BlockFormat& format = block_format(found->second);
    largest = std::max(largest, tensor.shape.front() * format.row_bytes(tensor.shape.back()));
  }
  const uint64_t logits =
      task.text.piece_tokens / 2 * uint64_t{task.model.hparams().vocab_size} * sizeof(float);
  return 2 * largest + logits;  // bytes, and as loaded
}

double seconds_of(const std::function<void()>& body) {
  using Clock = std::chrono::steady_clock;
  body();  // what is done once, and pages that are read, do not count
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double estimate_seconds(const CalibrationTask& task, LayerPass& layers, ThreadPool& pool) {
  const CalibrationText& text = task.text;
  const size_t dim = layers.dim();
  std::vector<float> x(text.piece_tokens * dim);
  layers.embed(text.train[0], x);
  const double layer = seconds_of([&] { layers.run(0, x); });
  std::vector<double> gram(dim * dim);
  const double narrow_gram = seconds_of(
      [&] { linear_algebra::add_gram(pool, x.data(), x.data(), text.piece_tokens, dim, gram.data()); });

  const std::vector<const TensorDeclaration*> matrices = matrices_of_first_layer(task.model);
  double walk = 0, narrow_grams = 0;
  for (const TensorDeclaration* const matrix : matrices) {
    // Per weight: its group's candidates, and half a row of feedback; about so many nanoseconds each on a
    // core of 3 GHz.
    const auto columns = static_cast<double>(matrix->shape.back());
    walk += static_cast<double>(n_weights(*matrix)) * (60e-9 + 0.1e-9 * columns) / pool.size();
  }
  for (const CalibrationStage& stage : task.stages) {
    const auto first = std::ranges::find_if(matrices, [&](const auto* matrix) { return stage.has(*matrix); });
    narrow_grams += std::pow(static_cast<double>((*first)->shape.back()) / static_cast<double>(dim), 2);
  }
  // A stream is taken through all of a layer once, and for its stages through one and a half more.
  constexpr double kLayersOfStream = 2.5;
  const double passes = 2 * kLayersOfStream * static_cast<double>(text.n_pieces());
  const double grams =
      (task.options.strength != 0 ? 2 : 1) * narrow_grams * static_cast<double>(text.train.size());
  return (passes * layer + grams * narrow_gram + walk) * task.model.hparams().n_layers;
}

}  // namespace

CalibrationText cut_into_pieces(const Model& model, std::span<const int32_t> tokens, size_t piece_tokens,
                                uint64_t max_tokens) {
  const size_t n_there = tokens.size() / piece_tokens;
  size_t n = n_there;
  if (max_tokens != 0) n = std::min<size_t>(n, max_tokens / piece_tokens);
  if (n < 2)
    fail(ErrorCode::kUsage,
         "a calibration needs two pieces of {} tokens at least, one of them to be held out: {} tokens were "
         "given, and {}; give a longer --calibrate-text",
         piece_tokens, tokens.size(),
         max_tokens == 0 ? std::string("all are used") : fmt::format("at most {} are used", max_tokens));
  const Vocabulary* const vocabulary = model.has_tokenizer() ? &model.tokenizer().vocabulary() : nullptr;
  CalibrationText text{piece_tokens, {}, {}};
  for (size_t i = 0; i < n; ++i) {
    const auto piece = tokens.subspan(i * n_there / n * piece_tokens, piece_tokens);
    std::vector<int32_t> ids(piece.begin(), piece.end());
    if (vocabulary != nullptr && vocabulary->add_bos) ids[0] = vocabulary->bos;
    const bool hold_out = i % kHeldOutEvery == std::min(kHeldOutEvery, n) - 1;
    (hold_out ? text.held_out : text.train).push_back(std::move(ids));
  }
  return text;
}

CalibrationPlan plan_calibration(const CalibrationTask& task, LayerPass& layers, ThreadPool& pool) {
  const uint64_t streams = 2 * task.text.n_tokens() * layers.dim() * sizeof(float);
  return {task.text.n_tokens(), task.text.n_held_out(),
          streams + std::max(bytes_of_layers(task), bytes_of_ends(task)),
          estimate_seconds(task, layers, pool)};
}

}  // namespace quern
