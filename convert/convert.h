// SOURCE (a checkpoint folder or a GGUF) -> one quantized GGUF file, or the parts of one, in one streaming
// pass. Parts of a split GGUF become one file. Or a GGUF into the other layout, its numbers untouched:
// standard -> panels -> standard gives back the same bytes, for a file of version 3 that is padded with zeros
// as the specification asks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convert/convert_options.h"
#include "convert/unwritten_tensor.h"
#include "quant/zero_tail.h"

namespace quern {

struct ConvertReport {
  std::string type;                // what options.type was or became: a recipe's name, or "kept"
  std::vector<std::string> files;  // written: options.output, or the parts of it
  std::vector<ConvertedTensor> tensors;
  std::vector<UnwrittenTensor> unwritten;
  std::vector<std::string> unread_files;  // safetensors files of the folder that were not taken
  std::vector<ZeroTail> zero_tails;       // of the source's tensors, by their names there
  size_t n_requantized = 0;               // tensors that were quantized already, in another format
  uint64_t bytes_in = 0, tensor_bytes = 0, file_bytes = 0, n_params = 0;
  double bits_per_weight = 0;
  double seconds = 0;        // until the last write
  double fsync_seconds = 0;  // flushing to disk, apart
};

// Throws Error (error.h), and Interrupted (stop_signal.h) where callbacks.stop says so; the target is then as
// it was and no temporary file is left.
ConvertReport convert(const ConvertOptions& options, const ConvertCallbacks& callbacks);

}  // namespace quern
