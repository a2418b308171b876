// A checkpoint folder, opened: configuration and tensors where they lie on disk.
//
// Reads `model.safetensors`, or `model.safetensors.index.json` with its shards, or numbered shards without an
// index, beside `config.json` (Hugging Face), or `consolidated*.safetensors` beside `params.json` (Mistral).
// Where several are present the first of these that is complete is taken. Robustness rules:
// robustness.md 1.3.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convert/hf_config.h"
#include "convert/safetensors.h"
#include "convert/tensor_names.h"
#include "convert/unwritten_tensor.h"
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
  std::vector<Tensor> tensors;      // file after file, in order of their data; names are unique
  std::vector<std::string> unread;  // names of safetensors files in the folder that are not among `files`
};

// Throws kIo when something cannot be read, kMalformed when a file that must be there is missing or breaks
// its format; messages name the file. `notice` hears about choices, and where an index and its shards differ.
CheckpointFiles open_checkpoint_files(const std::string& folder, const Notice& notice);

// config.json or params.json, by the dialect. `*path` (if not null) gets the file's path.
Json read_checkpoint_config(const CheckpointFiles& files, std::string* path = nullptr);

// A tensor of the model, checked against its declaration.
struct CheckpointTensor {
  DeclaredTensor declared;
  TensorView view;  // named as in the checkpoint; F32, F16 or BF16; its data is not aligned
  size_t file = 0;  // index in CheckpointFiles::files
  // Of a tensor that is made of others (DeclaredTensor::make): these, as `view` is of the others; view has
  // then the shape of what is made and no data.
  std::vector<TensorView> sources;
};

// A model: every declared tensor is there with its shape, and no other that could change what it computes.
struct Checkpoint {
  CheckpointFiles files;
  ModelConfig config;
  CheckpointLayout layout = CheckpointLayout::kHuggingFace;
  std::vector<CheckpointTensor> tensors;  // in the order of a GGUF file
  std::vector<UnwrittenTensor> unwritten;
};

// `notice` hears of every tensor that is not among Checkpoint::tensors too.
Checkpoint open_checkpoint(const std::string& folder, const Notice& notice);

// The bytes of a small text file (at most 64 MiB) of a checkpoint; kMalformed when it is larger, or a
// placeholder that a download left.
std::string read_text_file(const std::string& path);

}  // namespace quern
