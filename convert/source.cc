#include "convert/source.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "convert/checkpoint.h"
#include "convert/tokenizer_export.h"
#include "quant/gguf_reader.h"
#include "quant/vocabulary.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kQuantizationVersion = 2;  // ggml's; unchanged since May 2023

// The folder's own name, also for ".", "x/" and links.
std::string name_of_folder(const std::string& folder) {
  std::error_code ignored;
  const fs::path full = fs::weakly_canonical(folder, ignored);
  return full.filename().empty() ? full.parent_path().filename().string() : full.filename().string();
}

// Keys in the order of formats.md 2.2.
GgufMetadata checkpoint_metadata(const ModelConfig& config, const std::string& name, const Recipe& recipe) {
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  metadata.set_string("general.type", "model");
  metadata.set_string("general.name", name);
  metadata.set_u32("llama.block_count", config.n_layers);
  metadata.set_u32("llama.context_length", config.context_length);
  metadata.set_u32("llama.embedding_length", config.dim);
  metadata.set_u32("llama.feed_forward_length", config.hidden_dim);
  metadata.set_u32("llama.attention.head_count", config.n_heads);
  metadata.set_u32("llama.attention.head_count_kv", config.n_kv_heads);
  metadata.set_f32("llama.rope.freq_base", static_cast<float>(config.rope_theta));
  metadata.set_f32("llama.attention.layer_norm_rms_epsilon", static_cast<float>(config.rms_norm_eps));
  if (config.head_dim_given) {
    metadata.set_u32("llama.attention.key_length", config.head_dim);
    metadata.set_u32("llama.attention.value_length", config.head_dim);
  }
  if (config.sliding_window) metadata.set_u32("llama.attention.sliding_window", *config.sliding_window);
  metadata.set_u32("general.file_type", recipe.file_type);
  metadata.set_u32("llama.vocab_size", config.vocab_size);
  metadata.set_u32("llama.rope.dimension_count", config.head_dim);
  metadata.set_u32("general.quantization_version", kQuantizationVersion);
  return metadata;
}

ConversionSource open_checkpoint_source(const ConvertOptions& options, const Recipe& recipe,
                                        const ConvertCallbacks& callbacks) {
  Checkpoint checkpoint = open_checkpoint(options.source, callbacks.notice);
  ConversionSource source;
  source.metadata = checkpoint_metadata(checkpoint.config, name_of_folder(options.source), recipe);
  if (options.no_tokenizer) {
    set_no_vocabulary(&source.metadata);
  } else {
    write_vocabulary(read_checkpoint_tokenizer(options.source, checkpoint.config,
                                               callbacks.recognise_chat_format, callbacks.notice),
                     &source.metadata);
  }
  source.tied = checkpoint.config.tied;
  for (CheckpointTensor& tensor : checkpoint.tensors) {
    source.tensors.push_back({std::move(tensor.declared.gguf), std::move(tensor.view), tensor.file,
                              tensor.declared.permuted_heads});
  }
  source.files = std::move(checkpoint.files.files);
  return source;
}

// Tensors and metadata of a GGUF stay what they are: Q and K are in GGUF's order already.
ConversionSource open_gguf_source(const ConvertOptions& options, const Recipe* recipe,
                                  const ConvertCallbacks& callbacks) {
  ConversionSource source;
  source.files.emplace_back(options.source);
  const GgufReader gguf(source.files.front().bytes(), options.source, callbacks.notice);
  if (const uint64_t parts = gguf.uint_or("split.count", 1, 0, UINT16_MAX); parts > 1) {
    gguf.refuse(fmt::format(
        "one of {} parts of a split GGUF (split.count), which is not supported: merge them first", parts));
  }
  if (const auto architecture = gguf.require_string("general.architecture"); architecture != "llama") {
    gguf.refuse(fmt::format("general.architecture '{}' is not supported (supported: llama)",
                            printable(architecture)));
  }
  for (const GgufReader::KeyValue& pair : gguf.metadata()) {
    if (options.no_tokenizer && pair.key.starts_with("tokenizer.")) continue;
    source.metadata.set_value(pair.key, pair.value);
  }
  if (options.no_tokenizer) set_no_vocabulary(&source.metadata);
  source.alignment = gguf.alignment();
  source.tied = gguf.find_tensor("output.weight") == nullptr;
  for (const TensorView& tensor : gguf.tensors()) source.tensors.push_back({tensor.name, tensor, 0, 0});
  if (recipe == nullptr) return source;

  // At the end, as llama-quantize leaves them.
  for (const char* key : {"general.quantization_version", "general.file_type"}) source.metadata.erase(key);
  source.metadata.set_u32("general.quantization_version", kQuantizationVersion);
  source.metadata.set_u32("general.file_type", recipe->file_type);
  std::sort(source.tensors.begin(), source.tensors.end(), [](const SourceTensor& a, const SourceTensor& b) {
    return gguf_tensor_less(a.gguf_name, b.gguf_name);
  });
  return source;
}

}  // namespace

ConversionSource open_source(const ConvertOptions& options, const Recipe* recipe,
                             const ConvertCallbacks& callbacks) {
  std::error_code error;
  if (fs::is_directory(options.source, error)) {
    QUERN_CHECK(recipe != nullptr);
    return open_checkpoint_source(options, *recipe, callbacks);
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    fail(ErrorCode::kIo, "{}: {}", options.source, error.message());
  }
  return open_gguf_source(options, recipe, callbacks);
}

}  // namespace quern
