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
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/block_format.h"
#include "runtime/calibration/calibration_options.h"
#include "runtime/model.h"

namespace quern {

std::string_view to_string(MatrixEncoding encoding) noexcept;

class CalibrationState;

class Calibration {
 public:
  static constexpr size_t kPieceTokens = 512;  // at most, of a text that the model sees at once

  // formats: what each of the model's tensors becomes, by name; those of layers are encoded here. model: with
  // original weights on the CPU alone, whose context holds kPieceTokens or what it was trained on. Throws
  // what require_stages() throws (stages.h), kUsage for a format that has no calibrated encoder and for a
  // text of fewer than two pieces, kResource without OpenBLAS.
  Calibration(Model& model, std::span<const int32_t> tokens, std::map<std::string, DType> formats,
              const CalibrationOptions& options);
  ~Calibration();

  // Measures; before run().
  CalibrationPlan plan();

  // All inputs but the program itself. Reads all weights.
  std::vector<CalibrationInput> inputs();

  // Once. The model's matrices are the original's again afterwards, whatever happens. Throws kIntegrity for
  // activations that are not finite and for blocks that a format cannot hold, with layer and tensor. The same
  // bytes for any number of threads.
  // state: gets each layer when it is done. One that has some (load(), calibration_state.h) is gone on with:
  // the callback on_matrix gets its matrices first, and the bytes and the report are those of a calibration
  // that was never interrupted. Throws what its functions throw. Null: nothing is kept.
  CalibrationReport run(const CalibrationCallbacks& callbacks, CalibrationState* state = nullptr);

 private:
  class Run;
  std::unique_ptr<Run> run_;
};

}  // namespace quern
