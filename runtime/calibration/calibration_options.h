// What a calibration is asked to do, what it will take, what it reports and whom it tells.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "quant/block_format.h"
#include "runtime/kl_statistics.h"

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

// Something that decides about the bytes that a calibration ends with, and a value that differs where it
// does.
struct CalibrationInput {
  std::string name, value;  // "--damping", "0.1"
};

struct CalibrationCallbacks {
  // A matrix that is decided: its bytes, row after row; valid during the call.
  std::function<void(const CalibratedMatrix&, std::span<const uint8_t> rows)> on_matrix;
  std::function<void(uint64_t done, uint64_t total)> on_progress;
  std::function<bool()> stop;  // polled; true: Interrupted is thrown
};

// What run() will take.
struct CalibrationPlan {
  uint64_t n_tokens, n_held_out;
  uint64_t memory_bytes;  // beside the model
  double seconds;         // from a piece of the text that is taken through the first layer
};

}  // namespace quern
