#include "runtime/calibration/calibration.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "quant/calibrated/calibrated_encoder.h"
#include "quant/machine/stop_signal.h"
#include "quant/parallel.h"
#include "quant/quantize.h"
#include "runtime/calibration/layer_pass.h"
#include "runtime/calibration/linear_algebra.h"
#include "runtime/calibration/stages.h"

namespace quern {
namespace {

// Every so many pieces one is held out.
constexpr size_t kHeldOutEvery = 10;
// What keeps the target's equation solvable, in parts of the Gram matrix's mean diagonal.
constexpr double kTargetDamping = 0.01;

double mean_diagonal(std::span<const double> matrix, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += matrix[i * n + i];
  return sum / static_cast<double>(n);
}

// A matrix of a layer, in the model and outside.
struct LayerMatrix {
  std::string name;
  DType dtype;                 // that it gets
  TensorView view;             // of the source
  Matrix* place;               // in the model
  Matrix other;                // what is not in the model now: quantized, or the original
  std::vector<uint8_t> bytes;  // of the quantized one
};

// Pieces of one text or stream, [n_pieces][piece rows * width].
using Rows = std::vector<std::vector<float>>;

}  // namespace

std::string_view to_string(MatrixEncoding encoding) noexcept {
  switch (encoding) {
    case MatrixEncoding::kImportance:
      return "importance";
    case MatrixEncoding::kExact:
      return "exact";
    case MatrixEncoding::kCalibrated:
      break;
  }
  return "calibrated";
}

class Calibration::Run {
 public:
  Run(Model& model, std::span<const int32_t> tokens, std::map<std::string, DType> formats,
      const CalibrationOptions& options)
      : model_(model),
        formats_(std::move(formats)),
        options_(options),
        stages_(find_stages(model)),
        pool_(model.n_threads()),
        layers_(model) {
    linear_algebra::require_library();
    require_formats();
    cut_text(tokens);
  }

  static std::span<const CalibrationStage> find_stages(const Model& model) {
    const std::string& architecture = model.hparams().architecture;
    std::string known;
    for (const ArchitectureStages& row : architecture_stages()) {
      if (row.architecture != architecture) {
        known += fmt::format("{}{}", known.empty() ? "" : ", ", row.architecture);
        continue;
      }
      require_all_staged(model, row.stages);
      return row.stages;
    }
    fail(ErrorCode::kMalformed,
         "{}: models of architecture '{}' cannot be calibrated yet (those that can: {}); convert without "
         "--calibrate",
         printable(model.gguf().path(), kPathBytes), printable(architecture), known);
  }

  uint64_t memory_bytes() const {
    const uint64_t dim = layers_.dim(), n = n_tokens();
    uint64_t widest = 0, largest = 0, layer_weights = 0;
    for (const TensorDeclaration& tensor : model_.parts().tensors()) {
      if (tensor.layer != 0 || !tensor.is_matrix()) continue;
      widest = std::max(widest, tensor.shape.back());
      largest = std::max(largest, tensor.shape.front() * tensor.shape.back());
      layer_weights += tensor.shape.front() * tensor.shape.back();
    }
    uint64_t bytes = 2 * n * dim * sizeof(float);   // the streams
    bytes += 3 * widest * widest * sizeof(double);  // Gram matrices and a factor
    bytes += ErrorFeedback::bytes(widest);
    bytes += 2 * n_held_out() * widest * sizeof(float);  // inputs
    bytes += 4 * largest * sizeof(float);                // weights, targets, decoded results
    bytes += 2 * largest;                                // encoded, both ways
    bytes += 3 * layer_weights;                          // quantized: bytes, and as loaded
    return bytes;
  }
  uint64_t n_tokens() const { return (train_.size() + held_out_.size()) * piece_; }
  uint64_t n_held_out() const { return held_out_.size() * piece_; }

  double estimate_seconds() {
    using Clock = std::chrono::steady_clock;
    const auto seconds = [](const std::function<void()>& body) {
      const auto start = Clock::now();
      body();
      return std::chrono::duration<double>(Clock::now() - start).count();
    };
    std::vector<float> x(piece_ * layers_.dim());
    layers_.embed(train_[0], x);
    const double layer = seconds([&] { layers_.run(0, x); });
    // Of the Gram matrices' multiply-adds a second's number, from the narrowest width that all models have.
    const size_t dim = layers_.dim();
    std::vector<double> gram(dim * dim);
    const double square =
        seconds([&] { linear_algebra::add_gram(pool_, x.data(), x.data(), piece_, dim, gram.data()); });
    double squares = 0, walk = 0;
    for (const LayerMatrix& matrix : matrices_of(0)) {
      const double columns = static_cast<double>(matrix.view.columns());
      squares += std::pow(columns / static_cast<double>(dim), 2);
      // Per weight: its group's candidates, and half a row of feedback; about so many nanoseconds each on a
      // core of 3 GHz.
      walk += static_cast<double>(matrix.view.n_elements()) * (60e-9 + 0.1e-9 * columns) / pool_.size();
    }
    // A stream is taken through a half of a layer for every stage, on average, and through all of it once.
    const double pieces = static_cast<double>(train_.size() + held_out_.size());
    const double per_layer = pieces * (2 * 2.5 * layer + 2 * squares / 3 * square) + walk;
    return per_layer * model_.hparams().n_layers;
  }

  CalibrationReport run(const CalibrationCallbacks& callbacks) {
    callbacks_ = &callbacks;
    report_.n_tokens = n_tokens();
    report_.n_held_out = n_held_out();
    begin_streams();
    const size_t n_layers = model_.hparams().n_layers;
    total_ = n_layers * (stages_.size() + 1) * (train_.size() + held_out_.size());
    for (size_t layer = 0; layer < n_layers; ++layer) calibrate_layer(layer);
    measure_kl();
    return std::move(report_);
  }

 private:
  static void require_all_staged(const Model& model, std::span<const CalibrationStage> stages) {
    const std::string path = printable(model.gguf().path(), kPathBytes);
    for (const TensorView& tensor : model.gguf().tensors())
      if (tensor.layout != TensorLayout::kRows)
        fail(ErrorCode::kMalformed,
             "{}: tensor '{}' is in the layout p16, expected standard: convert the file with --layout "
             "standard "
             "first, then calibrate",
             path, printable(tensor.name));
    for (const TensorDeclaration& tensor : model.parts().tensors()) {
      if (tensor.layer < 0 || !tensor.is_matrix()) continue;
      const std::string_view name = name_in_layer(tensor);
      const bool staged = std::ranges::any_of(stages, [&](const CalibrationStage& stage) {
        return std::ranges::find(stage.matrices, name) != stage.matrices.end();
      });
      if (!staged || tensor.parts.size() != 1)
        fail(ErrorCode::kMalformed,
             "{}: tensor '{}': experts and stacked matrices cannot be calibrated yet; convert without "
             "--calibrate",
             path, printable(tensor.name));
      constexpr std::string_view kWeight = ".weight";
      if (!tensor.name.ends_with(kWeight)) continue;
      const std::string factor = tensor.name.substr(0, tensor.name.size() - kWeight.size()) + ".scale";
      if (model.gguf().find_tensor(factor) != nullptr)
        fail(ErrorCode::kMalformed,
             "{}: tensor '{}': matrices whose products have a factor cannot be calibrated yet; convert "
             "without "
             "--calibrate",
             path, printable(factor));
    }
  }

  // Behind "blk.N.".
  static std::string_view name_in_layer(const TensorDeclaration& tensor) {
    std::string_view name = tensor.name;
    name.remove_prefix(name.find('.') + 1);
    name.remove_prefix(name.find('.') + 1);
    return name;
  }

  DType format_of(const std::string& name) const {
    const auto found = formats_.find(name);
    QUERN_CHECK(found != formats_.end());
    return found->second;
  }

  void require_formats() const {
    for (const TensorDeclaration& tensor : model_.parts().tensors()) {
      if (tensor.layer < 0 || !tensor.is_matrix()) continue;
      const DType dtype = format_of(tensor.name);
      if (can_calibrate(dtype)) continue;
      fail(ErrorCode::kUsage,
           "tensor '{}': {} has no calibrated encoder; these have one: {} (--type and --tensor-type choose)",
           printable(tensor.name), block_format(dtype).name, calibrated_format_names());
    }
  }

  // Pieces from all over the text, and every tenth of them held out.
  void cut_text(std::span<const int32_t> tokens) {
    piece_ = std::min<size_t>({kPieceTokens, layers_.max_rows(), model_.hparams().context_length});
    const size_t n_there = tokens.size() / piece_;
    size_t n = n_there;
    if (options_.max_tokens != 0) n = std::min<size_t>(n, options_.max_tokens / piece_);
    if (n < 2)
      fail(ErrorCode::kUsage,
           "a calibration needs two pieces of {} tokens at least, one of them to be held out: {} tokens were "
           "given, and {}; give a longer --calibrate-text",
           piece_, tokens.size(),
           options_.max_tokens == 0 ? std::string("all are used")
                                    : fmt::format("at most {} are used", options_.max_tokens));
    const Vocabulary* const vocabulary = model_.has_tokenizer() ? &model_.tokenizer().vocabulary() : nullptr;
    for (size_t i = 0; i < n; ++i) {
      const auto piece = tokens.subspan(i * n_there / n * piece_, piece_);
      std::vector<int32_t> ids(piece.begin(), piece.end());
      if (vocabulary != nullptr && vocabulary->add_bos) ids[0] = vocabulary->bos;
      const bool hold_out = i % kHeldOutEvery == std::min(kHeldOutEvery, n) - 1;
      (hold_out ? held_out_ : train_).push_back(std::move(ids));
    }
  }

  void poll() const {
    if (callbacks_->stop && callbacks_->stop()) throw Interrupted{};
  }
  void step() {
    poll();
    ++done_;
    if (callbacks_->on_progress) callbacks_->on_progress(done_, total_);
  }

  // --- tensors ---

  TensorView view_of(const std::string& name) const {
    const auto tensors = model_.gguf().tensors();
    const auto found = std::ranges::find_if(tensors, [&](const TensorView& t) { return t.name == name; });
    QUERN_CHECK(found != tensors.end());
    return *found;
  }

  std::vector<LayerMatrix> matrices_of(size_t layer) const {
    std::vector<LayerMatrix> matrices;
    for (const TensorDeclaration& tensor : model_.parts().tensors())
      if (tensor.layer == static_cast<int>(layer) && tensor.is_matrix())
        matrices.push_back(
            {tensor.name, format_of(tensor.name), view_of(tensor.name), tensor.parts[0].matrix, {}, {}});
    return matrices;
  }

  // Bytes of a tensor of the source, while `body` runs.
  void with_bytes(const TensorView& view, MatrixUse use, const std::function<void()>& body) const {
    TensorSource& source = model_.source();
    source.load(view);
    body();
    if (!model_.device().matrix_memory(view, use).keeps_source) source.release(view);
  }

  std::vector<float> weights_of(const LayerMatrix& matrix) {
    const BlockFormat& format = block_format(matrix.view.dtype);
    const size_t columns = matrix.view.columns();
    std::vector<float> weights(matrix.view.n_elements());
    with_bytes(matrix.view, MatrixUse::kProduct, [&] {
      pool_.parallel_for(matrix.view.rows(), 16, [&](int, size_t begin, size_t end) noexcept {
        format.decode(matrix.view.data + begin * format.row_bytes(columns),
                      (end - begin) * columns / format.block_weights, &weights[begin * columns]);
      });
    });
    const auto bad = std::ranges::find_if(weights, [](float w) { return !std::isfinite(w); });
    if (bad != weights.end())
      fail(ErrorCode::kIntegrity, "{}: tensor '{}': element {} is not finite",
           printable(model_.gguf().path(), kPathBytes), printable(matrix.name), bad - weights.begin());
    return weights;
  }

  // As convert does it. importance: [columns], or null.
  std::vector<uint8_t> encode_plainly(const TensorView& view, DType dtype, const float* importance) {
    const size_t row_bytes = block_format(dtype).row_bytes(view.columns());
    std::vector<uint8_t> bytes(view.rows() * row_bytes);
    QuantizeTarget target{dtype, TensorLayout::kRows};
    target.importance = importance;
    target.rows_per_matrix = view.rows();
    pool_.parallel_for(view.rows(), 16, [&](int, size_t begin, size_t end) noexcept {
      (void)quantize_rows(view, target, begin, end, nullptr, {},
                          std::span(bytes).subspan(begin * row_bytes, (end - begin) * row_bytes));
    });
    return bytes;
  }

  std::vector<float> decode(DType dtype, const std::vector<uint8_t>& bytes) {
    const BlockFormat& format = block_format(dtype);
    const size_t n_blocks = bytes.size() / format.block_bytes;
    std::vector<float> values(n_blocks * format.block_weights);
    pool_.parallel_for(n_blocks, 64, [&](int, size_t begin, size_t end) noexcept {
      format.decode(&bytes[begin * format.block_bytes], end - begin, &values[begin * format.block_weights]);
    });
    return values;
  }

  Matrix load(const std::string& name, DType dtype, const Shape& shape, const std::vector<uint8_t>& bytes,
              MatrixUse use) {
    Matrix matrix;
    model_.device().run_pass([&] {
      matrix = model_.device().load_matrix({name, dtype, shape, bytes.data(), bytes.size()}, use);
    });
    return matrix;
  }

  static void swap(std::vector<LayerMatrix>& matrices) {
    for (LayerMatrix& matrix : matrices)
      if (matrix.other) std::swap(*matrix.place, matrix.other);
  }

  // --- streams ---

  void begin_streams() {
    const auto embed = [&](const std::vector<std::vector<int32_t>>& pieces, Rows* to) {
      for (const std::vector<int32_t>& ids : pieces) {
        to->emplace_back(piece_ * layers_.dim());
        layers_.embed(ids, to->back());
      }
    };
    embed(train_, &original_);
    embed(held_out_, &original_held_out_);
    with_quantized_end("token_embd.weight", [&] {
      embed(train_, &quantized_);
      embed(held_out_, &quantized_held_out_);
    });
  }

  // Runs body with an embedding or output matrix as the file will have it.
  void with_quantized_end(const std::string& name, const std::function<void()>& body) {
    const auto& tensors = model_.parts().tensors();
    const auto declared = std::ranges::find_if(tensors, [&](const auto& t) { return t.name == name; });
    const bool tied = formats_.find("output.weight") == formats_.end();
    const MatrixUse use = name == "output.weight" ? MatrixUse::kProduct
                          : tied                  ? MatrixUse::kBoth
                                                  : MatrixUse::kGather;
    const TensorView view = view_of(name);
    const DType dtype = format_of(name);
    if (dtype == view.dtype) return body();
    std::vector<uint8_t> bytes;
    with_bytes(view, use, [&] { bytes = encode_plainly(view, dtype, nullptr); });
    Matrix quantized = load(name, dtype, view.shape, bytes, use);
    Matrix& place = *declared->parts[0].matrix;
    std::swap(place, quantized);
    try {
      body();
    } catch (...) {
      std::swap(place, quantized);
      throw;
    }
    std::swap(place, quantized);
  }

  void advance(size_t layer, Rows* pieces, bool counts) {
    for (std::vector<float>& x : *pieces) {
      layers_.run(layer, x);
      if (counts) step();
    }
  }

  // --- one layer ---

  void calibrate_layer(size_t layer) {
    std::vector<LayerMatrix> matrices = matrices_of(layer);
    for (const CalibrationStage& stage : stages_) {
      std::vector<LayerMatrix*> of_stage;
      for (LayerMatrix& matrix : matrices) {
        const std::string_view name = std::string_view(matrix.name);
        if (std::ranges::any_of(stage.matrices, [&](std::string_view n) {
              return name.ends_with(n) && name[name.size() - n.size() - 1] == '.';
            }))
          of_stage.push_back(&matrix);
      }
      calibrate_stage(layer, matrices, of_stage);
    }
    advance(layer, &original_, false);
    advance(layer, &original_held_out_, false);
    swap(matrices);
    advance(layer, &quantized_, true);
    advance(layer, &quantized_held_out_, true);
    swap(matrices);
  }

  // Inputs of a stage's first matrix in both streams.
  struct Inputs {
    std::vector<float> original, quantized;
  };
  void find_inputs(size_t layer, std::vector<LayerMatrix>& matrices, const LayerMatrix& first,
                   const std::vector<float>& original, const std::vector<float>& quantized,
                   float* out_original, float* out_quantized) {
    const size_t width = first.view.columns();
    layers_.input_of(**first.place, layer, original, {out_original, piece_ * width});
    swap(matrices);
    // The stage's own matrices are not quantized yet: they are in their places still.
    layers_.input_of(**first.place, layer, quantized, {out_quantized, piece_ * width});
    swap(matrices);
    const auto require_finite = [&](const float* x) {
      for (size_t i = 0; i < piece_ * width; ++i)
        if (!std::isfinite(x[i]))
          fail(ErrorCode::kIntegrity,
               "{}: layer {}: what tensor '{}' is multiplied with is not finite on the calibration text "
               "(column {}): the model overflows, or its weights are damaged",
               printable(model_.gguf().path(), kPathBytes), layer, printable(first.name), i % width);
    };
    require_finite(out_original);
    require_finite(out_quantized);
    step();
  }

  void calibrate_stage(size_t layer, std::vector<LayerMatrix>& matrices,
                       std::span<LayerMatrix* const> of_stage) {
    const LayerMatrix& first = *of_stage[0];
    const size_t n = first.view.columns();
    std::vector<double> gram(n * n), shift;
    if (options_.strength != 0) shift.resize(n * n);
    {
      Inputs inputs{std::vector<float>(piece_ * n), std::vector<float>(piece_ * n)};
      for (size_t i = 0; i < train_.size(); ++i) {
        find_inputs(layer, matrices, first, original_[i], quantized_[i], inputs.original.data(),
                    inputs.quantized.data());
        linear_algebra::add_gram(pool_, inputs.quantized.data(), inputs.quantized.data(), piece_, n,
                                 gram.data());
        if (shift.empty()) continue;
        for (size_t k = 0; k < piece_ * n; ++k) inputs.original[k] -= inputs.quantized[k];
        linear_algebra::add_gram(pool_, inputs.original.data(), inputs.quantized.data(), piece_, n,
                                 shift.data());
      }
    }
    Inputs held_out{std::vector<float>(n_held_out() * n), std::vector<float>(n_held_out() * n)};
    for (size_t i = 0; i < held_out_.size(); ++i)
      find_inputs(layer, matrices, first, original_held_out_[i], quantized_held_out_[i],
                  &held_out.original[i * piece_ * n], &held_out.quantized[i * piece_ * n]);

    const std::vector<float> importance = importance_of(gram, n);
    normalise(&gram, &shift, n);
    poll();
    const std::vector<double> target_factor =
        shift.empty() ? std::vector<double>{} : factor(gram, n, kTargetDamping, first);
    poll();
    const ErrorFeedback feedback = make_feedback(std::move(gram), n, first);
    for (LayerMatrix* const matrix : of_stage)
      calibrate_matrix(*matrix, importance, shift, target_factor, feedback, held_out);
  }

  std::vector<float> importance_of(const std::vector<double>& gram, size_t n) const {
    const double inputs = static_cast<double>(train_.size() * piece_);
    std::vector<float> importance(n);
    double sum = 0;
    for (size_t i = 0; i < n; ++i) {
      importance[i] = static_cast<float>(gram[i * n + i] / inputs);
      sum += importance[i];
    }
    return sum > 0 ? importance : std::vector<float>(n, 1.0f);
  }

  // So that the mean of the Gram matrix's diagonal is 1. An input that is always zero says nothing: all its
  // columns count alike.
  static void normalise(std::vector<double>* gram, std::vector<double>* shift, size_t n) {
    const double mean = mean_diagonal(*gram, n);
    if (!(mean > 0)) {
      for (size_t i = 0; i < n; ++i) (*gram)[i * n + i] = 1;
      return;
    }
    for (double& v : *gram) v /= mean;
    for (double& v : *shift) v /= mean;
  }

  std::vector<double> factor(std::vector<double> gram, size_t n, double damping, const LayerMatrix& first) {
    for (size_t i = 0; i < n; ++i) gram[i * n + i] += damping;
    if (!linear_algebra::factor(pool_, gram.data(), n))
      fail(ErrorCode::kIntegrity,
           "{}: tensor '{}': the Gram matrix of its inputs cannot be factored: they are too large, or too "
           "much "
           "alike; a larger --damping may help, or another --calibrate-text",
           printable(model_.gguf().path(), kPathBytes), printable(first.name));
    return gram;
  }

  ErrorFeedback make_feedback(std::vector<double> gram, size_t n, const LayerMatrix& first) {
    const std::vector<double> u = factor(std::move(gram), n, options_.damping, first);
    ErrorFeedback feedback(n);
    pool_.parallel_for(n, 32, [&](int, size_t begin, size_t end) noexcept {
      for (size_t row = begin; row < end; ++row)
        for (size_t column = row + 1; column < n; ++column)
          feedback.set(row, column, static_cast<float>(u[row * n + column] / u[column * n + column]));
    });
    for (size_t i = 0; i < n; ++i) feedback.weight()[i] = static_cast<float>(u[i * n + i] * u[i * n + i]);
    return feedback;
  }

  void calibrate_matrix(LayerMatrix& matrix, const std::vector<float>& importance,
                        const std::vector<double>& shift, const std::vector<double>& target_factor,
                        const ErrorFeedback& feedback, const Inputs& held_out) {
    const size_t n = matrix.view.columns(), n_rows = matrix.view.rows();
    const std::vector<float> weights = weights_of(matrix);
    const BlockFormat& format = block_format(matrix.dtype);
    std::vector<uint8_t> coded(n_rows * format.row_bytes(n));
    CalibratedMatrix result{matrix.name, matrix.dtype, MatrixEncoding::kCalibrated, 0, 0, 0};
    if (lies_on_steps(matrix, weights, &coded)) {
      result.encoding = MatrixEncoding::kExact;
    } else {
      std::vector<float> target = weights;
      poll();
      if (!shift.empty())
        linear_algebra::shift_targets(pool_, weights.data(), n_rows, n, shift.data(), target_factor.data(),
                                      options_.strength, target.data());
      poll();
      encode(matrix, feedback, target, &coded);
    }
    poll();
    const TensorView as_floats{matrix.name, DType::F32, matrix.view.shape,
                               reinterpret_cast<const uint8_t*>(weights.data()),
                               weights.size() * sizeof(float)};
    std::vector<uint8_t> plain = encode_plainly(
        as_floats, matrix.dtype, format.encode_weighted != nullptr ? importance.data() : nullptr);
    std::vector<float> values = decode(matrix.dtype, coded);
    const std::vector<float> plain_values = decode(matrix.dtype, plain);
    const float* const both[] = {values.data(), plain_values.data()};
    double errors[2] = {}, norm = 0;
    linear_algebra::output_errors(pool_, held_out.original.data(), held_out.quantized.data(),
                                  held_out.original.size() / n, n, weights.data(), both, n_rows, errors,
                                  &norm);
    const auto relative = [&](double error) { return norm > 0 ? std::sqrt(error / norm) : 0.0; };
    result.error = relative(errors[0]);
    result.importance_error = relative(errors[1]);
    // Not "errors[1] < errors[0]": what is not a number is no reason to take it.
    if (result.encoding == MatrixEncoding::kCalibrated && !(errors[0] <= errors[1])) {
      result.encoding = MatrixEncoding::kImportance;
      result.error = result.importance_error;
      coded = std::move(plain);
      values = plain_values;
    }
    double squared_error = 0, squared = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      const double w = weights[i], off = values[i] - w;
      squared_error += off * off;
      squared += w * w;
    }
    result.relative_rms_error = squared > 0 ? std::sqrt(squared_error / squared) : 0.0;
    if (callbacks_->on_matrix) callbacks_->on_matrix(result, coded);
    matrix.bytes = std::move(coded);
    matrix.other = load(matrix.name, matrix.dtype, matrix.view.shape, matrix.bytes, MatrixUse::kProduct);
    report_.matrices.push_back(std::move(result));
  }

  void encode(const LayerMatrix& matrix, const ErrorFeedback& feedback, const std::vector<float>& target,
              std::vector<uint8_t>* out) {
    const CalibratedResult result = encode_calibrated(pool_, matrix.dtype, feedback, target, *out);
    if (result.bad_row >= 0)
      fail(ErrorCode::kIntegrity, "{}: tensor '{}': row {} has weights in a block that {} cannot hold",
           printable(model_.gguf().path(), kPathBytes), printable(matrix.name), result.bad_row,
           block_format(matrix.dtype).name);
  }

  // Whether the format holds the weights without any loss, as it does where a model was trained for it. Looks
  // at a few rows first.
  bool lies_on_steps(const LayerMatrix& matrix, const std::vector<float>& weights,
                     std::vector<uint8_t>* out) {
    if (matrix.view.dtype == matrix.dtype) {  // as convert: the bytes themselves
      with_bytes(matrix.view, MatrixUse::kProduct,
                 [&] { out->assign(matrix.view.data, matrix.view.data + matrix.view.n_bytes); });
      return true;
    }
    constexpr size_t kLook = 4;
    const size_t n = matrix.view.columns(), n_rows = matrix.view.rows(), look = std::min(kLook, n_rows);
    const ErrorFeedback none(n);
    std::vector<uint8_t> first(look * block_format(matrix.dtype).row_bytes(n));
    const auto exact = [&](std::span<const float> rows, std::span<uint8_t> bytes) {
      const CalibratedResult result = encode_calibrated(pool_, matrix.dtype, none, rows, bytes);
      return result.bad_row < 0 && result.loss == 0;
    };
    return exact(std::span(weights).first(look * n), first) && exact(weights, *out);
  }

  // --- the end ---

  void measure_kl() {
    KlStatistics statistics;
    const size_t dim = layers_.dim(), vocab_size = model_.hparams().vocab_size;
    std::vector<std::vector<float>> base;
    const auto each_row =
        [&](const Rows& stream,
            const std::function<void(size_t piece, size_t row, std::span<const float>)>& on_row) {
          for (size_t p = 0; p < stream.size(); ++p)
            for (size_t row = piece_ / 2; row + 1 < piece_; row += Network::kLogitRows) {
              const size_t n = std::min(Network::kLogitRows, piece_ - 1 - row);
              layers_.logits(std::span(stream[p]).subspan(row * dim, n * dim),
                             [&](size_t i, std::span<const float> logits) { on_row(p, row + i, logits); });
            }
        };
    const bool tied = formats_.find("output.weight") == formats_.end();
    const std::string output = tied ? "token_embd.weight" : "output.weight";
    // One piece at a time: its logits are vocab_size times as many as its tokens.
    for (size_t p = 0; p < held_out_.size(); ++p) {
      poll();
      base.assign(piece_, {});
      each_row({original_held_out_[p]}, [&](size_t, size_t row, std::span<const float> logits) {
        base[row].assign(logits.begin(), logits.end());
      });
      with_quantized_end(output, [&] {
        each_row({quantized_held_out_[p]}, [&](size_t, size_t row, std::span<const float> logits) {
          statistics.add(
              compare_logits(std::span(base[row]).first(vocab_size), logits, held_out_[p][row + 1]));
        });
      });
    }
    const KlSummary summary = statistics.summary(false);
    report_.kl = summary.kl;
    report_.same_top = summary.same_top.value;
  }

  Model& model_;
  const std::map<std::string, DType> formats_;
  const CalibrationOptions options_;
  const std::span<const CalibrationStage> stages_;
  ThreadPool pool_;
  LayerPass layers_;
  size_t piece_ = 0;
  std::vector<std::vector<int32_t>> train_, held_out_;
  Rows original_, quantized_, original_held_out_, quantized_held_out_;
  const CalibrationCallbacks* callbacks_ = nullptr;
  uint64_t done_ = 0, total_ = 0;
  CalibrationReport report_;
};

Calibration::Calibration(Model& model, std::span<const int32_t> tokens, std::map<std::string, DType> formats,
                         const CalibrationOptions& options)
    : run_(std::make_unique<Run>(model, tokens, std::move(formats), options)) {}
Calibration::~Calibration() = default;

void Calibration::require_stages(const Model& model) { Run::find_stages(model); }
uint64_t Calibration::memory_bytes() const { return run_->memory_bytes(); }
uint64_t Calibration::n_tokens() const { return run_->n_tokens(); }
uint64_t Calibration::n_held_out() const { return run_->n_held_out(); }
double Calibration::estimate_seconds() { return run_->estimate_seconds(); }
CalibrationReport Calibration::run(const CalibrationCallbacks& callbacks) { return run_->run(callbacks); }

}  // namespace quern
