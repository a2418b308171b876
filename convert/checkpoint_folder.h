// Which files of a folder are its checkpoint, and what to say where none are.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "convert/hf_config.h"

namespace quern {

// One way to read a folder: an index with its shards, or files by name. Folders hold several when they were
// downloaded whole; any of them may be incomplete.
struct CheckpointCandidate {
  ConfigDialect dialect = ConfigDialect::kHuggingFace;
  std::string index;               // file name; empty: there is none, `files` are all
  std::vector<std::string> files;  // file names, sorted; of an index: empty, it names them
  // What it is called in a notice.
  const std::string& name() const { return index.empty() ? files.front() : index; }
};

// Best first: model.safetensors, its index, shards that number themselves (x-00001-of-00003.safetensors), a
// single file of another name; then consolidated*.safetensors. Empty: none. Throws kMalformed for file names
// that cannot be printed as they are, kIo when the folder cannot be listed.
std::vector<CheckpointCandidate> find_checkpoints(const std::string& folder);

// Names of all *.safetensors files of a folder, sorted.
std::vector<std::string> safetensors_names(const std::string& folder);

// Throws kMalformed for a folder without a checkpoint: says what it holds instead and what to do about it.
[[noreturn]] void refuse_folder(const std::string& folder);

// A shard lies beside its index: anything that could lead elsewhere is no plain name, nor is anything that
// would not be printed as it is (messages are full of file names).
bool is_plain_file_name(std::string_view name);

// The name that a model from this folder gets: the folder's own, also for ".", "x/" and links; for a snapshot
// in Hugging Face's cache (models--OWNER--NAME/snapshots/HASH) the repository's. Valid UTF-8.
std::string model_name_of_folder(const std::string& folder);

// The built-in chat format that a model was trained on, by the repository that a snapshot in that cache
// belongs to: "mistral-v1". Empty for other repositories, and for folders elsewhere, which anybody may have
// named.
std::string_view chat_format_of_repository(const std::string& folder);

}  // namespace quern
