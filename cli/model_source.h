// A model that a command may be given either as a GGUF file or as the checkpoint folder that it would be
// converted from.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "cli/report.h"
#include "quant/tensor_source.h"
#include "runtime/model.h"

namespace quern {

// Whether a folder's tokenizer is read; where only tensors or ids count it need not be there.
enum class FolderTokenizer { kRead, kLeftOut };

// A folder is read as the BF16 file that convert would make of it, without a file between; everything else is
// a GGUF. Of a folder count n_threads and pre_tokenizer. `tell` gets choices and warnings, a line each.
std::unique_ptr<TensorSource> open_model_source(const std::string& path, const ModelOptions& options,
                                                FolderTokenizer tokenizer, const Notice& tell = notice);

// The same for who keeps what a folder's weights have beyond BF16, and has told of its notices already.
std::unique_ptr<TensorSource> open_original_source(const std::string& path, const ModelOptions& options,
                                                   FolderTokenizer tokenizer, bool is_bf16);

// load_model() (model_progress.h) of either; for a folder the memory is stated before anything is loaded.
std::unique_ptr<Model> load_model_or_checkpoint(const std::string& path, ModelOptions options,
                                                FolderTokenizer tokenizer, const Notice& tell = notice);

// Throws kUsage, naming `option`, where writing to `path` would overwrite what a command reads: one of
// `inputs`, any part where that is a split model, any file of a checkpoint folder but a GGUF (which belongs
// to none).
void refuse_input(std::string_view option, const std::string& path, std::span<const std::string> inputs);

}  // namespace quern
