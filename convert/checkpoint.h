// A checkpoint folder, opened: configuration and tensors where they lie on disk.
//
// Reads `model.safetensors`, or `model.safetensors.index.json` with its shards, beside `config.json` (Hugging
// Face), or `consolidated*.safetensors` beside `params.json` (Mistral). Where both are present Hugging Face's
// is taken. Robustness rules: robustness.md 1.3.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convert/hf_config.h"
#include "convert/safetensors.h"
#include "convert/tensor_names.h"
#include "quant/error.h"
#include "quant/mapped_file.h"
#include "quant/tensor_view.h"

namespace quern {

// Everything that the safetensors files of a folder hold, whatever model it is. Immutable, thread-safe.
struct CheckpointFiles {
  struct Tensor {
    SafetensorsTensor info;  // offsets in its file
    size_t file = 0;         // index in `files`
  };

  std::string folder;
  ConfigDialect dialect = ConfigDialect::kHuggingFace;  // which of the two sets of files was taken
  std::vector<MappedFile> files;
  std::vector<Tensor> tensors;  // file after file, in order of their data; names are unique
};

// Throws kIo when something cannot be read, kMalformed when a file that must be there is missing or breaks
// its format; messages name the file. `notice` hears about choices and about a wrong total_size.
CheckpointFiles open_checkpoint_files(const std::string& folder, const Notice& notice);

// config.json or params.json, by the dialect. `*path` (if not null) gets the file's path.
Json read_checkpoint_config(const CheckpointFiles& files, std::string* path = nullptr);

// A tensor of the model, checked against its declaration.
struct CheckpointTensor {
  DeclaredTensor declared;
  TensorView view;  // named as in the checkpoint; F32, F16 or BF16; its data is not aligned
  size_t file = 0;  // index in CheckpointFiles::files
};

// A model: every declared tensor is there with its shape, and no other.
struct Checkpoint {
  CheckpointFiles files;
  ModelConfig config;
  CheckpointLayout layout = CheckpointLayout::kHuggingFace;
  std::vector<CheckpointTensor> tensors;  // in the order of a GGUF file
};

Checkpoint open_checkpoint(const std::string& folder, const Notice& notice);

// The bytes of a small text file (at most 64 MiB) of a checkpoint; kMalformed when it is larger, or a
// placeholder that a download left.
std::string read_text_file(const std::string& path);

}  // namespace quern
