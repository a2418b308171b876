// SOURCE (a checkpoint folder or a GGUF) -> one quantized GGUF file, in one streaming pass. Or a GGUF into
// the other layout, its numbers untouched: standard -> panels -> standard gives back the same bytes, for a
// file of version 3 that is padded with zeros as the specification asks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "quant/error.h"
#include "quant/tensor_view.h"
#include "quant/vocabulary.h"

namespace quern {

struct ConvertOptions {
  std::string source;
  std::string output;
  // A recipe's name (quant/recipe.h). Empty: a checkpoint becomes q4_0; a GGUF keeps its formats, metadata
  // and order of tensors, and only the layout changes.
  std::string type;
  TensorLayout layout = TensorLayout::kRows;  // panels: of the matrices that are multiplied
  bool force = false;                         // replace an existing target
  bool dry_run = false;                       // plan, write nothing
  bool strict = false;                        // a fallback format is an error
  bool no_tokenizer = false;
  int n_threads = 0;  // 0: automatic by the caller; must be >= 1 here
};

struct ConvertedTensor {
  std::string name;  // GGUF's
  std::string source_name;
  Shape shape;
  DType from, to, wanted;
  TensorLayout layout = TensorLayout::kRows;  // in the file written
  uint64_t bytes_in = 0, bytes_out = 0;
  double relative_rms_error = 0;  // NaN in a dry run
};

struct ConvertProgress {
  size_t tensor, n_tensors;
  uint64_t bytes_done, bytes_total;  // of input
};

struct ConvertReport {
  std::string type;  // what options.type was or became: a recipe's name, or "kept"
  std::vector<ConvertedTensor> tensors;
  uint64_t bytes_in = 0, tensor_bytes = 0, file_bytes = 0, n_params = 0;
  double bits_per_weight = 0;
  double seconds = 0;        // until the last write
  double fsync_seconds = 0;  // flushing to disk, apart
};

struct ConvertCallbacks {
  Notice notice;                                            // warnings and automatic choices, a line each
  std::function<void(const ConvertProgress&)> on_progress;  // often; from the calling thread
  std::function<void(const ConvertedTensor&)> on_tensor;    // after each tensor
  std::function<bool()> stop;  // polled; true: the output is discarded, Interrupted is thrown
  // Bytes that the process may still take. Null: memory is not checked before it is taken.
  std::function<uint64_t()> available_memory;
  // Name of the built-in chat format that the vocabulary's template describes, "" when it is not known.
  // Stored as quern.chat_format.
  std::function<std::string(const Vocabulary&)> recognise_chat_format;
};

struct Interrupted {};

// Throws Error (error.h); the target is then as it was and no temporary file is left.
ConvertReport convert(const ConvertOptions& options, const ConvertCallbacks& callbacks);

}  // namespace quern
