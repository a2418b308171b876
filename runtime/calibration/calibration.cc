#include "runtime/calibration/calibration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <utility>

#include "quant/calibrated/calibrated_encoder.h"
#include "quant/hash128.h"
#include "quant/machine/stop_signal.h"
#include "quant/parallel.h"
#include "quant/quantize.h"
#include "runtime/calibration/calibration_plan.h"
#include "runtime/calibration/calibration_state.h"
#include "runtime/calibration/layer_pass.h"
#include "runtime/calibration/linear_algebra.h"
#include "runtime/calibration/stages.h"

namespace quern {
namespace {

// What keeps the target's equation solvable, in parts of the Gram matrix's mean diagonal.
constexpr double kTargetDamping = 0.01;

double mean_diagonal(std::span<const double> matrix, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += matrix[i * n + i];
  return sum / static_cast<double>(n);
}

// A matrix, in the model and outside.
struct CodedMatrix {
  const TensorDeclaration& declaration;
  const TensorView& view;           // of the source
  DType dtype;                      // that it gets
  Matrix other = nullptr;           // what is not in the model now: quantized, or the original
  std::vector<uint8_t> bytes = {};  // of the quantized one

  const std::string& name() const { return declaration.name; }
  uint64_t coded_bytes() const { return view.rows() * block_format(dtype).row_bytes(view.columns()); }
  Matrix& place() const { return *declaration.parts[0].matrix; }  // in the model
};

// While it lives, those of the matrices that are quantized already are in the model.
class QuantizedInPlace {
 public:
  explicit QuantizedInPlace(std::span<CodedMatrix> matrices) : matrices_(matrices) { exchange(); }
  ~QuantizedInPlace() { exchange(); }
  QuantizedInPlace(const QuantizedInPlace&) = delete;
  QuantizedInPlace& operator=(const QuantizedInPlace&) = delete;

 private:
  void exchange() {
    for (CodedMatrix& matrix : matrices_)
      if (matrix.other) std::swap(matrix.place(), matrix.other);
  }
  const std::span<CodedMatrix> matrices_;
};

// What goes through the layers: of each piece [piece_tokens, dim].
using Stream = std::vector<std::vector<float>>;

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
        stages_(require_stages(model)),
        pool_(model.n_threads()),
        layers_(model),
        text_(cut_into_pieces(
            model, tokens,
            std::min<size_t>({kPieceTokens, layers_.max_rows(), model.hparams().context_length}),
            options.max_tokens)) {
    linear_algebra::require_library();
    for (const TensorDeclaration& tensor : model.parts().tensors())
      if (tensor.layer >= 0 && tensor.is_matrix())
        require_calibrated_format(tensor.name, format_of(tensor.name));
  }

  CalibrationPlan plan() {
    return plan_calibration({model_, text_, formats_, options_, stages_}, layers_, pool_);
  }

  std::vector<CalibrationInput> inputs() {
    Hasher128 formats, text;
    for (const auto& [name, dtype] : formats_) formats.add_values(std::span(name)).add_value(dtype);
    for (const auto* const pieces : {&text_.train, &text_.held_out})
      for (const std::vector<int32_t>& ids : *pieces) text.add_values(std::span(ids));
    return {{"the source", to_hex(hash_of_source())},
            {"the text's tokens", fmt::format("{} ({})", text_.n_tokens(), to_hex(text.hash()))},
            {"formats (--type and what changes them)", to_hex(formats.hash())},
            {"--calibrate-strength", fmt::format("{}", options_.strength)},
            {"--damping", fmt::format("{}", options_.damping)}};
  }

  CalibrationReport run(const CalibrationCallbacks& callbacks, CalibrationState* state) {
    callbacks_ = &callbacks;
    state_ = state;
    report_.n_tokens = text_.n_tokens();
    report_.n_held_out = text_.n_held_out();
    const size_t n_layers = model_.hparams().n_layers, n_done = state != nullptr ? state->n_layers() : 0;
    if (n_done != 0)
      restore(*state);
    else
      begin_streams();
    total_ = (n_layers - n_done) * (stages_.size() + 1) * text_.n_pieces();
    for (size_t layer = n_done; layer < n_layers; ++layer) calibrate_layer(layer);
    measure_kl();
    return std::move(report_);
  }

 private:
  size_t piece_tokens() const { return text_.piece_tokens; }

  DType format_of(const std::string& name) const {
    const auto found = formats_.find(name);
    QUERN_CHECK(found != formats_.end());
    return found->second;
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

  // declaration: of one matrix.
  CodedMatrix matrix_of(const TensorDeclaration& declaration) const {
    const TensorView* const view = model_.gguf().find_tensor(declaration.name);
    QUERN_CHECK(view != nullptr && declaration.parts.size() == 1);
    return {declaration, *view, format_of(declaration.name)};
  }

  std::vector<CodedMatrix> matrices_of(size_t layer) const {
    std::vector<CodedMatrix> matrices;
    for (const TensorDeclaration& tensor : model_.parts().tensors())
      if (tensor.layer == static_cast<int>(layer) && tensor.is_matrix())
        matrices.push_back(matrix_of(tensor));
    return matrices;
  }

  Hash128 hash_of_source() const {
    Hasher128 hasher;
    for (const GgufReader::KeyValue& pair : model_.gguf().metadata())
      hasher.add_values(std::span(pair.key)).add_value(pair.value.type).add(pair.value.payload);
    for (const TensorDeclaration& tensor : model_.parts().tensors()) {
      const TensorView* const view = model_.gguf().find_tensor(tensor.name);
      if (view == nullptr) continue;  // optional, or tied
      hasher.add_values(std::span(view->name)).add_value(view->dtype).add_values(std::span(view->shape));
      with_bytes(tensor, *view, [&] { hasher.add({view->data, view->n_bytes}); });
    }
    return hasher.hash();
  }

  MatrixUse use_of(const TensorDeclaration& matrix) const {
    if (matrix.role != TensorRole::kEmbedding) return MatrixUse::kProduct;
    return is_tied() ? MatrixUse::kBoth : MatrixUse::kGather;
  }

  // view: of it in the source, whose bytes are there while `body` runs.
  void with_bytes(const TensorDeclaration& tensor, const TensorView& view,
                  const std::function<void()>& body) const {
    TensorSource& source = model_.source();
    source.load(view);
    body();
    const bool is_in_use =
        tensor.is_matrix() && model_.device().matrix_memory(view, use_of(tensor)).keeps_source;
    if (!is_in_use) source.release(view);
  }

  std::vector<float> weights_of(const CodedMatrix& matrix) {
    const BlockFormat& format = block_format(matrix.view.dtype);
    const size_t columns = matrix.view.columns();
    std::vector<float> weights(matrix.view.n_elements());
    with_bytes(matrix.declaration, matrix.view, [&] {
      pool_.parallel_for(matrix.view.rows(), 16, [&](int, size_t begin, size_t end) noexcept {
        format.decode(matrix.view.data + begin * format.row_bytes(columns),
                      (end - begin) * columns / format.block_weights, &weights[begin * columns]);
      });
    });
    const auto bad = std::ranges::find_if(weights, [](float w) { return !std::isfinite(w); });
    if (bad != weights.end())
      fail(ErrorCode::kIntegrity, "{}: tensor '{}': element {} is not finite",
           printable(model_.gguf().path(), kPathBytes), printable(matrix.name()), bad - weights.begin());
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

  // bytes: matrix.bytes.
  void load(CodedMatrix* matrix) {
    model_.device().run_pass([&] {
      matrix->other = model_.device().load_matrix(
          {matrix->name(), matrix->dtype, matrix->view.shape, matrix->bytes.data(), matrix->bytes.size()},
          use_of(matrix->declaration));
    });
  }

  // --- streams ---

  void begin_streams() {
    const auto embed = [&](const std::vector<std::vector<int32_t>>& pieces, Stream* to) {
      for (const std::vector<int32_t>& ids : pieces) {
        to->emplace_back(piece_tokens() * layers_.dim());
        layers_.embed(ids, to->back());
      }
    };
    embed(text_.train, &original_);
    embed(text_.held_out, &original_held_out_);
    std::vector<CodedMatrix> embedding = quantized_end("token_embd.weight");
    const QuantizedInPlace quantized(embedding);
    embed(text_.train, &quantized_);
    embed(text_.held_out, &quantized_held_out_);
  }

  bool is_tied() const { return formats_.find("output.weight") == formats_.end(); }

  // The embedding or output matrix as the file will have it; none where it is that already.
  std::vector<CodedMatrix> quantized_end(std::string_view name) {
    const auto& tensors = model_.parts().tensors();
    const auto declared = std::ranges::find(tensors, name, &TensorDeclaration::name);
    std::vector<CodedMatrix> found;
    found.push_back(matrix_of(*declared));
    CodedMatrix& matrix = found.front();
    if (matrix.dtype == matrix.view.dtype) return {};
    with_bytes(*declared, matrix.view,
               [&] { matrix.bytes = encode_plainly(matrix.view, matrix.dtype, nullptr); });
    load(&matrix);
    return found;
  }

  void advance(size_t layer, Stream* stream, bool counts) {
    for (std::vector<float>& x : *stream) {
      layers_.run(layer, x);
      if (counts) step();
    }
  }

  // --- the state on the disk ---

  std::array<Stream*, 4> streams() {
    return {&original_, &original_held_out_, &quantized_, &quantized_held_out_};
  }

  // matrices: of the layer that is done, which the report ends with.
  void store(std::span<const CodedMatrix> matrices) {
    const std::span<const CalibratedMatrix> reported = std::span(report_.matrices).last(matrices.size());
    std::vector<std::span<const uint8_t>> rows;
    for (const CalibratedMatrix& matrix : reported)
      rows.emplace_back(std::ranges::find(matrices, matrix.name, &CodedMatrix::name)->bytes);
    std::vector<std::span<const float>> pieces;
    for (const Stream* const stream : streams()) pieces.insert(pieces.end(), stream->begin(), stream->end());
    state_->store_layer(reported, rows, pieces);
  }

  void restore(CalibrationState& state) {
    const size_t n_layers = model_.hparams().n_layers;
    if (state.n_layers() > n_layers)
      CalibrationState::refuse_damaged(state.folder(), "it has more layers than the model");
    std::vector<std::span<float>> pieces;
    for (Stream* const stream : streams()) {
      const bool is_held_out = stream == &original_held_out_ || stream == &quantized_held_out_;
      stream->assign((is_held_out ? text_.held_out : text_.train).size(),
                     std::vector<float>(piece_tokens() * layers_.dim()));
      pieces.insert(pieces.end(), stream->begin(), stream->end());
    }
    state.read_streams(pieces);
    for (size_t layer = 0; layer < state.n_layers(); ++layer) {
      poll();
      const std::vector<CodedMatrix> matrices = matrices_of(layer);
      std::set<std::string> missing;
      for (const CodedMatrix& matrix : matrices) missing.insert(matrix.name());
      state.read_layer(layer, [&](const CalibratedMatrix& matrix, std::span<const uint8_t> rows) {
        const auto found = std::ranges::find(matrices, matrix.name, &CodedMatrix::name);
        const bool fits = missing.erase(matrix.name) == 1 && matrix.dtype == found->dtype &&
                          rows.size() == found->coded_bytes();
        if (!fits)
          CalibrationState::refuse_damaged(state.folder(), "a layer has other matrices than the model");
        if (callbacks_->on_matrix) callbacks_->on_matrix(matrix, rows);
        report_.matrices.push_back(matrix);
      });
      if (!missing.empty()) CalibrationState::refuse_damaged(state.folder(), "a layer lacks matrices");
    }
  }

  // --- one layer ---

  void calibrate_layer(size_t layer) {
    std::vector<CodedMatrix> matrices = matrices_of(layer);
    for (const CalibrationStage& stage : stages_) {
      std::vector<CodedMatrix*> of_stage;
      for (CodedMatrix& matrix : matrices)
        if (stage.has(matrix.declaration)) of_stage.push_back(&matrix);
      calibrate_stage(layer, matrices, of_stage);
    }
    for (Stream* const stream : {&original_, &original_held_out_}) advance(layer, stream, false);
    const QuantizedInPlace quantized(matrices);
    for (Stream* const stream : {&quantized_, &quantized_held_out_}) advance(layer, stream, true);
    if (state_ != nullptr) store(matrices);
  }

  // Inputs of a stage's first matrix in both streams.
  struct Inputs {
    std::vector<float> original, quantized;
  };
  void find_inputs(size_t layer, std::span<CodedMatrix> matrices, const CodedMatrix& first,
                   const std::vector<float>& original, const std::vector<float>& quantized,
                   float* out_original, float* out_quantized) {
    const size_t width = first.view.columns();
    layers_.input_of(*first.place(), layer, original, {out_original, piece_tokens() * width});
    {
      // The stage's own matrices are not quantized yet: they are in their places still.
      const QuantizedInPlace earlier(matrices);
      layers_.input_of(*first.place(), layer, quantized, {out_quantized, piece_tokens() * width});
    }
    const auto require_finite = [&](const float* x) {
      for (size_t i = 0; i < piece_tokens() * width; ++i)
        if (!std::isfinite(x[i]))
          fail(ErrorCode::kIntegrity,
               "{}: layer {}: what tensor '{}' is multiplied with is not finite on the calibration text "
               "(column {}): the model overflows, or its weights are damaged",
               printable(model_.gguf().path(), kPathBytes), layer, printable(first.name()), i % width);
    };
    require_finite(out_original);
    require_finite(out_quantized);
    step();
  }

  void calibrate_stage(size_t layer, std::span<CodedMatrix> matrices,
                       std::span<CodedMatrix* const> of_stage) {
    const CodedMatrix& first = *of_stage[0];
    const size_t n = first.view.columns();
    std::vector<double> gram(n * n), shift;
    if (options_.strength != 0) shift.resize(n * n);
    {
      Inputs inputs{std::vector<float>(piece_tokens() * n), std::vector<float>(piece_tokens() * n)};
      for (size_t i = 0; i < text_.train.size(); ++i) {
        find_inputs(layer, matrices, first, original_[i], quantized_[i], inputs.original.data(),
                    inputs.quantized.data());
        linear_algebra::add_gram(pool_, inputs.quantized.data(), inputs.quantized.data(), piece_tokens(), n,
                                 gram.data());
        if (shift.empty()) continue;
        for (size_t k = 0; k < piece_tokens() * n; ++k) inputs.original[k] -= inputs.quantized[k];
        linear_algebra::add_gram(pool_, inputs.original.data(), inputs.quantized.data(), piece_tokens(), n,
                                 shift.data());
      }
    }
    Inputs held_out{std::vector<float>(text_.n_held_out() * n), std::vector<float>(text_.n_held_out() * n)};
    for (size_t i = 0; i < text_.held_out.size(); ++i)
      find_inputs(layer, matrices, first, original_held_out_[i], quantized_held_out_[i],
                  &held_out.original[i * piece_tokens() * n], &held_out.quantized[i * piece_tokens() * n]);

    const std::vector<float> importance = importance_of(gram, n);
    normalise(&gram, &shift, n);
    poll();
    const std::vector<double> target_factor =
        shift.empty() ? std::vector<double>{} : factor(gram, n, kTargetDamping, first);
    poll();
    const ErrorFeedback feedback = make_feedback(std::move(gram), n, first);
    for (CodedMatrix* const matrix : of_stage)
      calibrate_matrix(*matrix, importance, shift, target_factor, feedback, held_out);
  }

  std::vector<float> importance_of(const std::vector<double>& gram, size_t n) const {
    const double inputs = static_cast<double>(text_.train.size() * piece_tokens());
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

  std::vector<double> factor(std::vector<double> gram, size_t n, double damping, const CodedMatrix& first) {
    for (size_t i = 0; i < n; ++i) gram[i * n + i] += damping;
    if (!linear_algebra::factor(pool_, gram.data(), n))
      fail(ErrorCode::kIntegrity,
           "{}: tensor '{}': the Gram matrix of its inputs cannot be factored: they are too large, or too "
           "much "
           "alike; a larger --damping may help, or another --calibrate-text",
           printable(model_.gguf().path(), kPathBytes), printable(first.name()));
    return gram;
  }

  ErrorFeedback make_feedback(std::vector<double> gram, size_t n, const CodedMatrix& first) {
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

  void calibrate_matrix(CodedMatrix& matrix, const std::vector<float>& importance,
                        const std::vector<double>& shift, const std::vector<double>& target_factor,
                        const ErrorFeedback& feedback, const Inputs& held_out) {
    const size_t n = matrix.view.columns(), n_rows = matrix.view.rows();
    const std::vector<float> weights = weights_of(matrix);
    const BlockFormat& format = block_format(matrix.dtype);
    std::vector<uint8_t> coded(matrix.coded_bytes());
    CalibratedMatrix result{matrix.name(), matrix.dtype, MatrixEncoding::kCalibrated, 0, 0, 0};
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
    const TensorView as_floats{matrix.name(), DType::F32, matrix.view.shape,
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
    load(&matrix);
    report_.matrices.push_back(std::move(result));
  }

  void encode(const CodedMatrix& matrix, const ErrorFeedback& feedback, const std::vector<float>& target,
              std::vector<uint8_t>* out) {
    const CalibratedResult result = encode_calibrated(pool_, matrix.dtype, feedback, target, *out);
    if (result.bad_row >= 0)
      fail(ErrorCode::kIntegrity, "{}: tensor '{}': row {} has weights in a block that {} cannot hold",
           printable(model_.gguf().path(), kPathBytes), printable(matrix.name()), result.bad_row,
           block_format(matrix.dtype).name);
  }

  // Whether the format holds the weights without any loss, as it does where a model was trained for it. Looks
  // at a few rows first.
  bool lies_on_steps(const CodedMatrix& matrix, const std::vector<float>& weights,
                     std::vector<uint8_t>* out) {
    if (matrix.view.dtype == matrix.dtype) {  // as convert: the bytes themselves
      with_bytes(matrix.declaration, matrix.view,
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

  // Logits of the second half of a piece, but for its last token, which nothing follows.
  void second_half(const std::vector<float>& piece,
                   const std::function<void(size_t row, std::span<const float> logits)>& on_row) {
    const size_t begin = piece_tokens() / 2, n = piece_tokens() - 1 - begin, dim = layers_.dim();
    if (n == 0) return;
    layers_.logits(std::span(piece).subspan(begin * dim, n * dim),
                   [&](size_t i, std::span<const float> logits) { on_row(begin + i, logits); });
  }

  void measure_kl() {
    KlStatistics statistics;
    std::vector<CodedMatrix> output = quantized_end(is_tied() ? "token_embd.weight" : "output.weight");
    std::vector<std::vector<float>> base(piece_tokens());
    // One piece at a time: its logits are vocab_size times as many as its tokens.
    for (size_t p = 0; p < text_.held_out.size(); ++p) {
      poll();
      second_half(original_held_out_[p], [&](size_t row, std::span<const float> logits) {
        base[row].assign(logits.begin(), logits.end());
      });
      const QuantizedInPlace quantized(output);
      second_half(quantized_held_out_[p], [&](size_t row, std::span<const float> logits) {
        statistics.add(compare_logits(base[row], logits, text_.held_out[p][row + 1]));
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
  const CalibrationText text_;
  Stream original_, quantized_, original_held_out_, quantized_held_out_;
  const CalibrationCallbacks* callbacks_ = nullptr;
  CalibrationState* state_ = nullptr;
  uint64_t done_ = 0, total_ = 0;
  CalibrationReport report_;
};

Calibration::Calibration(Model& model, std::span<const int32_t> tokens, std::map<std::string, DType> formats,
                         const CalibrationOptions& options)
    : run_(std::make_unique<Run>(model, tokens, std::move(formats), options)) {}
Calibration::~Calibration() = default;

CalibrationPlan Calibration::plan() { return run_->plan(); }
std::vector<CalibrationInput> Calibration::inputs() { return run_->inputs(); }
CalibrationReport Calibration::run(const CalibrationCallbacks& callbacks, CalibrationState* state) {
  return run_->run(callbacks, state);
}

}  // namespace quern
