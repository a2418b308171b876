// What is to be converted, in one form whatever it came from: a checkpoint folder or a GGUF file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convert/convert_options.h"
#include "convert/tensor_transforms.h"
#include "convert/unwritten_tensor.h"
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
  // A tensor that is made of others, as floats: view has its shape and no bytes.
  std::vector<TensorView> sources;
  TensorMaker make;
  DType kept = DType::F32;  // what it becomes where the recipe does not quantize it
};

struct ConversionSource {
  std::vector<MappedFile> files;           // own the tensors' bytes
  GgufMetadata metadata;                   // of the file to write, complete
  uint64_t alignment = 32;                 // of its tensors
  std::vector<SourceTensor> tensors;       // in the order in which they are written
  bool tied = false;                       // there is no output.weight
  std::vector<UnwrittenTensor> unwritten;  // of a checkpoint: what it holds beside them
  bool lacks_chat_template = false;        // a checkpoint whose vocabulary is written without one
  std::vector<std::string> unread_files;   // safetensors files of the folder that belong to no tensor above
};

// What the recipes' rules ask of a model, from its metadata; keys that are absent count as 0.
RecipeModel recipe_model(const GgufMetadata& metadata, bool tied, bool has_importance);

// The tensors as choose_formats() takes them; they live as long as the source.
std::vector<RecipeTensor> recipe_tensors(const ConversionSource& source);

// What `path` means as a source: a folder without a checkpoint whose only model is a GGUF is that file (its
// first part), which `notice` is told of; everything else is itself.
std::string find_source(const std::string& path, const Notice& notice);

// Opens options.source: a folder is a checkpoint, a file must be a GGUF (any part of a split one). recipe:
// null when a GGUF keeps its formats; a checkpoint needs one. Throws Error.
ConversionSource open_source(const ConvertOptions& options, const Recipe* recipe,
                             const ConvertCallbacks& callbacks);

}  // namespace quern
