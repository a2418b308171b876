// What is to be converted, in one form whatever it came from: a checkpoint folder or a GGUF file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convert/convert.h"
#include "quant/gguf.h"
#include "quant/mapped_file.h"
#include "quant/recipe.h"
#include "quant/tensor_view.h"

namespace quern {

struct SourceTensor {
  std::string gguf_name;
  TensorView view;  // named as in the source
  size_t file = 0;  // index in ConversionSource::files
  // Heads (of rows() / permuted_heads rows each) whose rows move (tensor_transforms.h); 0: rows stay.
  uint32_t permuted_heads = 0;
};

struct ConversionSource {
  std::vector<MappedFile> files;      // own the tensors' bytes
  GgufMetadata metadata;              // of the file to write, complete
  uint64_t alignment = 32;            // of its tensors
  std::vector<SourceTensor> tensors;  // in the order in which they are written
  bool tied = false;                  // there is no output.weight
};

// Opens options.source: a folder is a checkpoint, a file must be a GGUF. recipe: null when a GGUF keeps its
// formats; a checkpoint needs one. Throws Error.
ConversionSource open_source(const ConvertOptions& options, const Recipe* recipe,
                             const ConvertCallbacks& callbacks);

}  // namespace quern
