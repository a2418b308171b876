#include "convert/source.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "convert/checkpoint.h"
#include "convert/checkpoint_folder.h"
#include "convert/tokenizer_export.h"
#include "quant/gguf_files.h"
#include "quant/gguf_reader.h"
#include "quant/pre_tokenizer.h"
#include "quant/utf8.h"
#include "quant/vocabulary.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kQuantizationVersion = 2;  // ggml's; unchanged since May 2023

// Keys in the order of formats.md 2.2.
GgufMetadata checkpoint_metadata(const ModelConfig& config, const std::string& name, const Recipe& recipe) {
  GgufMetadata metadata;
  if (!config.architecture.empty()) {
    metadata.set_string("general.architecture", config.architecture);
    metadata.set_string("general.type", "model");
    metadata.set_string("general.name", name);
    const auto copy = [&](bool last) {
      for (const GgufMetadata::Entry& entry : config.metadata.entries())
        if ((entry.key.ends_with(".vocab_size") || entry.key.ends_with(".rope.dimension_count")) == last)
          metadata.set_value(entry.key, *config.metadata.find(entry.key));
    };
    copy(/*last=*/false);
    metadata.set_u32("general.file_type", recipe.file_type);
    copy(/*last=*/true);
    metadata.set_u32("general.quantization_version", kQuantizationVersion);
    return metadata;
  }
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
  if (config.sliding_window) {
    metadata.set_u32("llama.attention.sliding_window", *config.sliding_window);
    metadata.set_u32("quern.attention.sliding_window",
                     *config.sliding_window);  // others ignore the one above
  }
  metadata.set_u32("general.file_type", recipe.file_type);
  metadata.set_u32("llama.vocab_size", config.vocab_size);
  metadata.set_u32("llama.rope.dimension_count", config.head_dim);
  metadata.set_u32("general.quantization_version", kQuantizationVersion);
  return metadata;
}

// As llama.cpp's converter leaves it to llama-quantize: F32, but for the one large matrix that is not
// quantized.
DType kept_of_checkpoint(const CheckpointTensor& tensor, const Recipe& recipe) {
  if (tensor.declared.gguf != "per_layer_model_proj.weight") return DType::F32;
  return block_format(recipe.base).is_float() ? recipe.base : tensor.view.dtype;
}

ConversionSource open_checkpoint_source(const ConvertOptions& options, const Recipe& recipe,
                                        const ConvertCallbacks& callbacks) {
  Checkpoint checkpoint = open_checkpoint(options.source, callbacks.notice);
  ConversionSource source;
  source.metadata = checkpoint_metadata(checkpoint.config, model_name_of_folder(options.source), recipe);
  if (options.no_tokenizer) {
    set_no_vocabulary(&source.metadata);
  } else {
    const Vocabulary vocabulary =
        read_checkpoint_tokenizer(options.source, checkpoint.config, callbacks.recognise_chat_format,
                                  callbacks.notice, options.pre_tokenizer);
    source.lacks_chat_template = vocabulary.chat_template.empty();
    write_vocabulary(vocabulary, &source.metadata);
  }
  source.tied = checkpoint.config.tied;
  for (CheckpointTensor& tensor : checkpoint.tensors) {
    const DType kept = kept_of_checkpoint(tensor, recipe);
    source.tensors.push_back({std::move(tensor.declared.gguf), std::move(tensor.view), tensor.file,
                              tensor.declared.permuted_heads, std::move(tensor.sources),
                              std::move(tensor.declared.make), kept});
  }
  source.unwritten = std::move(checkpoint.unwritten);
  source.unread_files = std::move(checkpoint.files.unread);
  source.files = std::move(checkpoint.files.files);
  return source;
}

void replace_pre_tokenizer(const std::string& name, GgufMetadata* metadata) {
  if (find_pre_tokenizer(name) == nullptr)
    fail(ErrorCode::kUsage, "--pre: '{}' is no known pre-tokenizer", printable(name));
  metadata->set_string("tokenizer.ggml.pre", name);
}

// Strings of a GGUF are UTF-8, and some programs refuse a file over a name that is not.
void mend_name(const Notice& notice, GgufMetadata* metadata) {
  constexpr std::string_view kKey = "general.name";
  const std::optional<GgufValue> value = metadata->find(kKey);
  const std::optional<std::string_view> name = value ? value->as_string() : std::nullopt;
  if (!name || is_valid_utf8(*name)) return;
  const std::string mended = well_formed_utf8(*name);
  if (notice) notice(fmt::format("{} is not UTF-8: written as '{}'", kKey, printable(mended)));
  metadata->set_string(kKey, mended);
}

// Tensors and metadata of a GGUF stay what they are: Q and K are in GGUF's order already. Parts become one.
ConversionSource open_gguf_source(const ConvertOptions& options, const Recipe* recipe,
                                  const ConvertCallbacks& callbacks) {
  ConversionSource source;
  GgufFiles files(options.source, true, callbacks.notice);
  const GgufReader& gguf = files.gguf();
  const bool is_split = files.files().size() > 1;
  gguf.require_string("general.architecture");  // of any: tensors are tensors
  for (const GgufReader::KeyValue& pair : gguf.metadata()) {
    if (options.no_tokenizer && pair.key.starts_with("tokenizer.")) continue;
    if (is_split && is_split_key(pair.key)) continue;
    source.metadata.set_value(pair.key, pair.value);
  }
  mend_name(callbacks.notice, &source.metadata);
  if (options.no_tokenizer) set_no_vocabulary(&source.metadata);
  if (!options.pre_tokenizer.empty()) replace_pre_tokenizer(options.pre_tokenizer, &source.metadata);
  source.alignment = gguf.alignment();
  source.tied = gguf.find_tensor("output.weight") == nullptr;
  for (const TensorView& tensor : gguf.tensors())
    source.tensors.push_back({tensor.name, tensor, files.file_of(tensor.data), 0, {}, {}, tensor.dtype});
  source.files = std::move(files).take_files();
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

// A number, or the first of an array of them.
uint32_t first_number(const GgufMetadata& metadata, const std::string& key) {
  const std::optional<GgufValue> value = metadata.find(key);
  if (!value) return 0;
  std::optional<uint64_t> number = value->as_uint();
  if (const auto array = value->as_integers(); array && !array->empty())
    number = static_cast<uint64_t>(std::max<int64_t>(array->front(), 0));
  return static_cast<uint32_t>(std::min<uint64_t>(number.value_or(0), UINT32_MAX));
}

}  // namespace

RecipeModel recipe_model(const GgufMetadata& metadata, bool tied, bool has_importance) {
  RecipeModel model;
  if (const std::optional<GgufValue> name = metadata.find("general.architecture"); name && name->as_string())
    model.architecture = *name->as_string();
  const auto number = [&](const char* key) { return first_number(metadata, model.architecture + key); };
  model.n_layers = number(".block_count");
  model.n_experts = number(".expert_count");
  model.n_heads = number(".attention.head_count");
  model.n_kv_heads = metadata.find(model.architecture + ".attention.head_count_kv")
                         ? number(".attention.head_count_kv")
                         : model.n_heads;
  model.tied = tied;
  model.has_importance = has_importance;
  return model;
}

std::vector<RecipeTensor> recipe_tensors(const ConversionSource& source) {
  std::vector<RecipeTensor> tensors;
  for (const SourceTensor& tensor : source.tensors)
    tensors.push_back({tensor.gguf_name, tensor.view.shape, tensor.kept});
  return tensors;
}

std::string find_source(const std::string& path, const Notice& notice) {
  std::error_code error;
  if (!fs::is_directory(path, error) || !find_checkpoints(path).empty()) return path;
  const std::vector<std::string> models = gguf_models_in(path);
  if (models.size() != 1) return path;  // the folder will be refused, with what it holds
  if (notice) notice(fmt::format("{}: a folder of a GGUF: {}", path, models.front()));
  return models.front();
}

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
