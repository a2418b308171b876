// What convert() is asked to do, and whom it tells how it goes.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/error.h"
#include "quant/gguf.h"
#include "quant/recipe.h"
#include "quant/tensor_view.h"
#include "quant/vocabulary.h"

namespace quern {

struct ConvertOptions {
  std::string source;
  std::string output;
  // A recipe's name (quant/recipe.h). Empty: a checkpoint becomes q4_0; a GGUF keeps its formats, metadata
  // and order of tensors, and only the layout changes.
  std::string type;
  std::string importance;   // file of a quern::ImportanceFile; empty: all columns count alike
  FormatOverrides formats;  // of some tensors, instead of the recipe's; need a type
  TensorLayout layout = TensorLayout::kRows;  // panels: of the matrices that are multiplied
  uint64_t most_file_bytes = 0;               // several files of at most so many; 0: one file
  bool force = false;                         // replace an existing target
  bool dry_run = false;                       // plan, write nothing
  bool strict = false;                        // a fallback format is an error
  bool no_tokenizer = false;
  // Of a BPE vocabulary, a name of quant/pre_tokenizer.h; empty: what the source says.
  std::string pre_tokenizer;
  int n_threads = 0;  // 0: automatic by the caller; must be >= 1 here
};

struct ConvertedTensor {
  std::string name;  // GGUF's
  std::string source_name;
  Shape shape;
  DType from, to, wanted;
  bool weighted = false;                      // with importance
  TensorLayout layout = TensorLayout::kRows;  // in the file written
  uint64_t bytes_in = 0, bytes_out = 0;
  double relative_rms_error = 0;  // NaN in a dry run
};

struct ConvertProgress {
  size_t tensor, n_tensors;
  uint64_t bytes_done, bytes_total;  // of input
};

// Takes the rows of a tensor, by GGUF's name, in the format that was chosen and in order; and the relative
// RMS error of its weights.
using WriteRowsFn =
    std::function<void(std::string_view name, std::span<const uint8_t> rows, double relative_rms_error)>;

// Somebody who encodes some tensors better than convert() can, who looks at weights alone.
struct OtherEncoder {
  // Called when formats are chosen and before anything is written; says for each tensor whether it will
  // encode it, and may add keys to the file's metadata.
  std::function<std::vector<bool>(std::span<const ConvertedTensor> tensors, GgufMetadata* metadata)> prepare;
  // Called when the other tensors are written; writes each of its own once.
  std::function<void(const WriteRowsFn& write)> encode;
};

// Called by the thread that called convert(), while others convert: they may take their time, throw, and use
// threads.
struct ConvertCallbacks {
  Notice notice;                                            // warnings and automatic choices, a line each
  std::function<void(const ConvertProgress&)> on_progress;  // often
  std::function<void(const ConvertedTensor&)> on_tensor;    // after each tensor
  std::function<bool()> stop;  // polled; true: the output is discarded, Interrupted is thrown
  // Bytes that the process may still take. Null: memory is not checked before it is taken.
  std::function<uint64_t()> available_memory;
  // Name of the built-in chat format that the vocabulary's template describes, "" when it is not known.
  // Stored as quern.chat_format.
  std::function<std::string(const Vocabulary&)> recognise_chat_format;
  OtherEncoder other_encoder;  // members null: there is none. A dry run calls prepare() alone
};

}  // namespace quern
