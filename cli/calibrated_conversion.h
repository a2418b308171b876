// `convert --calibrate`: a model's layers encoded by what they do on a text. Joins convert/, which writes the
// file, and runtime/calibration/.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "convert/convert_options.h"
#include "quant/json/json_writer.h"
#include "runtime/calibration/calibration.h"
#include "runtime/calibration/calibration_state.h"

namespace quern {

struct CalibrationArguments {
  bool calibrate = false;
  std::vector<std::string> texts;  // files; none: the text that comes with quern
  std::optional<uint64_t> max_tokens;
  std::optional<double> strength, damping;
  bool resume = false;  // go on with what an interrupted one has left

  // --calibrate --calibrate-text --calibrate-tokens --calibrate-strength --damping --resume
  void declare(Arguments& arguments);
  // After parsing: --calibrate-text means --calibrate too. Throws kUsage for options without it, and for what
  // does not go together with it.
  void check(const ConvertOptions& convert);
};

// A text of prose, documentation and source code (calibration_text/README.md).
extern const std::string_view kCalibrationText;

class CalibratedConversion {
 public:
  // What is given outlives it.
  CalibratedConversion(const CalibrationArguments& arguments, const ConvertOptions& convert,
                       std::function<bool()> stop);
  ~CalibratedConversion();

  // For ConvertCallbacks. Its prepare() loads the model, and tells what memory and time it will take. While
  // it encodes, what is done is safe in a folder beside the target, OUTPUT.calibration: prepare() throws
  // kUsage where one is left of an earlier run, unless that is to be resumed or replaced (--force), and what
  // CalibrationState::load() throws.
  OtherEncoder encoder();
  // The target is there: nothing is left to resume.
  void remove_state() { state_->remove(); }

  // After the conversion.
  std::string summary() const;  // lines; not of a dry run
  void append_json(JsonWriter* json) const;

 private:
  std::vector<bool> prepare(std::span<const ConvertedTensor> tensors, GgufMetadata* metadata);
  std::unique_ptr<Model> load(std::span<const ConvertedTensor> tensors) const;
  void open_state();
  void encode(const WriteRowsFn& write);

  const CalibrationArguments& arguments_;
  const ConvertOptions& convert_;
  const std::function<bool()> stop_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Calibration> calibration_;
  std::optional<CalibrationState> state_;
  size_t n_resumed_ = 0;  // layers
  CalibrationPlan plan_{};
  CalibrationReport report_;
  double seconds_ = 0;
};

}  // namespace quern
