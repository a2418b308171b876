// Where a calibration stands, on the disk: behind each layer the codes of its matrices and both streams, so
// that who was killed goes on with the next layer.
//
// A folder:
//   layer-N.codes  of each layer that is done: its matrices, what is reported of them, their bytes
//   streams        what the calibration was begun with, the checksums of the layers that are done, and the
//                  streams behind the last of them
// Numbers are in the machine's order of bytes, strings u64 length and bytes. Each file ends with the XXH3-128
// of what is before, and appears whole (quant/output_file.h); `streams` is replaced last, so that a process
// that dies meanwhile leaves the state behind the layer before.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/hash128.h"
#include "quant/mapped_file.h"
#include "runtime/calibration/calibration_options.h"

namespace quern {

// A matrix, and its rows as they are coded.
using OnCalibratedMatrix = std::function<void(const CalibratedMatrix&, std::span<const uint8_t> rows)>;

// Not thread-safe.
class CalibrationState {
 public:
  // inputs: of the calibration that is to be done. Touches nothing yet.
  CalibrationState(std::string folder, std::vector<CalibrationInput> inputs);

  const std::string& folder() const { return folder_; }
  // Whether a state is there, of whatever calibration.
  bool exists() const;
  // Layers that are done and safe: 0 until load() or store_layer().
  size_t n_layers() const { return checksums_.size(); }

  // Reads what exists(). Throws kMalformed, naming what differs, for a state of a calibration with other
  // inputs, kIntegrity for a damaged one, kIo.
  void load();
  // After load(). out: the streams' pieces, as they were stored. Throws kIntegrity for sizes that are others.
  void read_streams(std::span<const std::span<float>> out);
  // layer: below n_layers(). Matrices as they were stored. Throws kIntegrity, kIo.
  void read_layer(size_t layer, const OnCalibratedMatrix& on_matrix) const;

  // Layer n_layers(): rows[i] of matrices[i]; the streams behind it. On the disk on return. Throws kIo.
  void store_layer(std::span<const CalibratedMatrix> matrices, std::span<const std::span<const uint8_t>> rows,
                   std::span<const std::span<const float>> streams);

  // Its files and, when nothing else is in it, the folder.
  void remove() noexcept;

  // Throws kIntegrity: the file says what it cannot say.
  [[noreturn]] static void refuse_damaged(const std::string& path, std::string_view what);

 private:
  std::string path_of_streams() const { return folder_ + "/streams"; }
  std::string path_of_layer(size_t layer) const;

  const std::string folder_;
  const std::vector<CalibrationInput> inputs_;
  std::vector<Hash128> checksums_;         // of layers
  std::optional<MappedFile> streams_;      // after load()
  std::span<const uint8_t> stream_bytes_;  // of these the numbers
};

}  // namespace quern
