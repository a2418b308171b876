// Encodes a model's layers so that on a text the model's own activations come out close, layer by layer.
//
// Two streams go through the layers side by side: the original's, and that of the model whose earlier
// matrices are quantized already. Matrices that share an input (a stage) are encoded together, from Gram
// matrices of both streams' inputs: the target is shifted so that it makes good, by `strength`, what earlier
// matrices have lost, and quant/calibrated/ rounds towards it. A tenth of the text is held out; on it every
// matrix is compared with what the importance-weighted encoder makes of it, and the better one is taken.
//
// Sources: Frantar et al., "GPTQ", 2023; Li et al., "GPTAQ: Efficient Finetuning-Free Quantization for
// Asymmetric Calibration", 2025 (the target).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quant/block_format.h"
#include "runtime/kl_statistics.h"
#include "runtime/model.h"

namespace quern {

struct CalibrationOptions {
  uint64_t max_tokens = 0;  // of the text that are used; 0: all
  double strength = 0.5;    // 0 to 1: how much of the earlier matrices' errors a target makes good
  double damping = 0.1;     // added to the Gram matrix's diagonal, in parts of its mean; > 0
};

enum class MatrixEncoding : uint8_t {
  kCalibrated,
  kImportance,  // it was better on the held-out text
  kExact,       // the weights lie on the format's steps
};
std::string_view to_string(MatrixEncoding encoding) noexcept;

struct CalibratedMatrix {
  std::string name;  // GGUF's
  DType dtype;
  MatrixEncoding encoding;
  // Of what the matrix gives on the held-out text, relative RMS errors against the original stream's.
  double error, importance_error;
  double relative_rms_error;  // of the weights
};

struct CalibrationReport {
  std::vector<CalibratedMatrix> matrices;
  uint64_t n_tokens = 0, n_held_out = 0;  // of these the second half of each piece is scored
  Estimate kl;                            // on the held-out text, against the original
  double same_top = 0;
};

struct CalibrationCallbacks {
  // A matrix that is decided: its bytes, row after row; valid during the call.
  std::function<void(const CalibratedMatrix&, std::span<const uint8_t> rows)> on_matrix;
  std::function<void(uint64_t done, uint64_t total)> on_progress;
  std::function<bool()> stop;  // polled; true: Interrupted is thrown
};

class Calibration {
 public:
  static constexpr size_t kPieceTokens = 512;  // at most, of a text that the model sees at once

  // formats: what each of the model's tensors becomes, by name; those of layers are encoded here. model: with
  // original weights on the CPU alone, whose context holds kPieceTokens or what it was trained on. Throws
  // kMalformed for an architecture whose stages are not declared, kUsage for a format that has no calibrated
  // encoder and for a text of fewer than two pieces, kResource without OpenBLAS.
  Calibration(Model& model, std::span<const int32_t> tokens, std::map<std::string, DType> formats,
              const CalibrationOptions& options);
  ~Calibration();

  // Throws kMalformed, naming it, for an architecture whose stages are not declared, and for matrices that
  // are in none.
  static void require_stages(const Model& model);

  // What run() takes beside the model.
  uint64_t memory_bytes() const;
  uint64_t n_tokens() const;
  uint64_t n_held_out() const;
  // Seconds that run() will take, from a piece of the text that is taken through the first layer, and of each
  // other step a part.
  double estimate_seconds();

  // Once. The model's matrices are the original's again afterwards. Throws kIntegrity for activations that
  // are not finite and for blocks that a format cannot hold, with layer and tensor. The same bytes for any
  // number of threads.
  CalibrationReport run(const CalibrationCallbacks& callbacks);

 private:
  class Run;
  std::unique_ptr<Run> run_;
};

}  // namespace quern
