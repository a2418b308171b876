// How much of a text a calibration uses, and what time and memory that will take.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "quant/parallel.h"
#include "runtime/calibration/calibration_options.h"
#include "runtime/calibration/layer_pass.h"
#include "runtime/calibration/stages.h"

namespace quern {

// Pieces that the model sees one by one.
struct CalibrationText {
  size_t piece_tokens;
  std::vector<std::vector<int32_t>> train, held_out;  // [piece_tokens] each

  size_t n_pieces() const { return train.size() + held_out.size(); }
  uint64_t n_tokens() const { return n_pieces() * piece_tokens; }
  uint64_t n_held_out() const { return held_out.size() * piece_tokens; }
};

// Pieces from all over the text, at most max_tokens (0: all), and every tenth of them held out. Throws kUsage
// for a text of fewer than two.
CalibrationText cut_into_pieces(const Model& model, std::span<const int32_t> tokens, size_t piece_tokens,
                                uint64_t max_tokens);

// What is calibrated, and how.
struct CalibrationTask {
  const Model& model;
  const CalibrationText& text;
  const std::map<std::string, DType>& formats;
  const CalibrationOptions& options;
  std::span<const CalibrationStage> stages;
};

// layers: of the model. Takes a piece through the first layer.
CalibrationPlan plan_calibration(const CalibrationTask& task, LayerPass& layers, ThreadPool& pool);

}  // namespace quern
