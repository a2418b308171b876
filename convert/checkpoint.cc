#include "convert/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <unordered_map>
#include <utility>

#include "quant/download_check.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr const char* kMistralPrefix = "consolidated";
constexpr const char* kMistralIndexFile = "consolidated.safetensors.index.json";
constexpr const char* kExtension = ".safetensors";
constexpr uint64_t kMaxTextBytes = 64u << 20;

std::string join(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

bool exists(const std::string& folder, const std::string& name) {
  std::error_code ignored;
  return fs::exists(join(folder, name), ignored);
}

void say(const Notice& notice, const std::string& line) {
  if (notice) notice(line);
}

// Which tensor an index file says lies in which shard.
struct ShardIndex {
  std::string path;
  std::vector<std::pair<std::string, std::string>> weight_map;  // tensor, file name
  const Json* total_size = nullptr;                             // in `json`
  Json json;
};

// A shard lies beside its index: anything that could lead elsewhere is refused, and anything that would not
// be printed as it is (messages are full of file names).
bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of("/\\") == name.npos &&
         printable(name, kPathBytes) == name;
}

ShardIndex read_index(const std::string& path) {
  ShardIndex index;
  index.path = path;
  index.json = parse_json(read_text_file(path), path);
  const Json* map = index.json.find("weight_map");
  if (map == nullptr || map->as_object() == nullptr) {
    fail(ErrorCode::kMalformed, "{}: weight_map is missing or not a JSON object", path);
  }
  for (const auto& [tensor, file] : *map->as_object()) {
    const std::string* name = file.as_string();
    if (name == nullptr || !is_plain_file_name(*name)) {
      fail(ErrorCode::kMalformed, "{}: weight_map '{}': bad shard name {}: expected a plain file name", path,
           printable(tensor), file.describe());
    }
    index.weight_map.emplace_back(tensor, *name);
  }
  if (index.weight_map.empty()) fail(ErrorCode::kMalformed, "{}: weight_map is empty", path);
  if (const Json* metadata = index.json.find("metadata")) index.total_size = metadata->find("total_size");
  return index;
}

std::vector<std::string> mistral_files(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(kMistralPrefix) || !name.ends_with(kExtension)) continue;
    if (!is_plain_file_name(name))
      fail(ErrorCode::kMalformed, "{}: bad file name '{}'", folder, printable(name, kPathBytes));
    names.push_back(name);
  }
  if (error) fail(ErrorCode::kIo, "{}: cannot list the folder: {}", folder, error.message());
  std::sort(names.begin(), names.end());
  return names;
}

void open_files(const std::vector<std::string>& names, CheckpointFiles* out) {
  std::unordered_map<std::string, size_t> file_of;
  for (const std::string& name : names) {
    const std::string path = join(out->folder, name);
    if (!exists(out->folder, name)) fail(ErrorCode::kMalformed, "{}: file is missing", path);
    const size_t file = out->files.size();
    out->files.emplace_back(path);
    SafetensorsHeader header = read_safetensors_header(out->files.back().bytes(), path);
    for (SafetensorsTensor& tensor : header.tensors) {
      const auto [other, is_new] = file_of.emplace(tensor.name, file);
      if (!is_new) {
        fail(ErrorCode::kMalformed, "{}: duplicate tensor '{}': also in {}", path, printable(tensor.name),
             out->files[other->second].path());
      }
      out->tensors.push_back({std::move(tensor), file});
    }
  }
}

// Index and shards must agree: a folder where they do not is a mixture of two downloads.
void check_index(const ShardIndex& index, const CheckpointFiles& files, const Notice& notice) {
  std::unordered_map<std::string_view, const CheckpointFiles::Tensor*> held;
  uint64_t total = 0;
  for (const CheckpointFiles::Tensor& tensor : files.tensors) {
    held.emplace(tensor.info.name, &tensor);
    total += tensor.info.end - tensor.info.begin;
  }
  for (const auto& [name, file] : index.weight_map) {
    const auto found = held.find(name);
    if (found == held.end()) {
      fail(ErrorCode::kMalformed, "{}: weight_map names tensor '{}', which {} does not hold", index.path,
           printable(name), file);
    }
    const std::string& actual = files.files[found->second->file].path();
    if (fs::path(actual).filename() != file) {
      fail(ErrorCode::kMalformed, "{}: weight_map says tensor '{}' is in {}, found in {}", index.path,
           printable(name), file, actual);
    }
    held.erase(found);
  }
  for (const auto& [name, tensor] : held) {
    if (is_ignored_tensor(name)) continue;
    fail(ErrorCode::kMalformed, "{}: weight_map does not name tensor '{}' of {}", index.path, printable(name),
         files.files[tensor->file].path());
  }
  if (index.total_size != nullptr && index.total_size->as_number() != static_cast<double>(total)) {
    say(notice, fmt::format("warning: {}: total_size is {}, the shards hold {} bytes of tensors", index.path,
                            index.total_size->describe(), total));
  }
}

void open_indexed(const std::string& index_name, CheckpointFiles* out, const Notice& notice) {
  const ShardIndex index = read_index(join(out->folder, index_name));
  std::set<std::string> names;
  for (const auto& [tensor, file] : index.weight_map) names.insert(file);
  open_files({names.begin(), names.end()}, out);
  check_index(index, *out, notice);
}

// Where the file of a declared tensor is missing or surplus, the number of layers may be what is wrong.
std::string layers_note(const ModelConfig& config) {
  return fmt::format("({}: {} = {})", config.path, config_keys(config.dialect).n_layers, config.n_layers);
}

CheckpointTensor bind(DeclaredTensor declared, const CheckpointFiles::Tensor& found,
                      const Checkpoint& checkpoint) {
  const SafetensorsTensor& info = found.info;
  const MappedFile& file = checkpoint.files.files[found.file];
  const auto where = [&] { return fmt::format("{}: tensor '{}'", file.path(), printable(info.name)); };
  if (info.shape != declared.shape) {
    fail(ErrorCode::kMalformed, "{}: expected shape {} = {} of {}, found {}", where(),
         to_string(declared.shape), declared.shape_key, checkpoint.config.path, to_string(info.shape));
  }
  const std::optional<DType> dtype = info.type->dtype;
  if (!dtype || (*dtype != DType::F32 && *dtype != DType::F16 && *dtype != DType::BF16)) {
    fail(ErrorCode::kMalformed, "{}: dtype {} is not supported for weights: expected BF16, F16 or F32",
         where(), info.type->name);
  }
  TensorView view{info.name, *dtype, info.shape, file.bytes().data() + info.begin, info.end - info.begin};
  return {std::move(declared), std::move(view), found.file};
}

void bind_tensors(Checkpoint* checkpoint) {
  const ModelConfig& config = checkpoint->config;
  const CheckpointFiles& files = checkpoint->files;
  std::unordered_map<std::string_view, const CheckpointFiles::Tensor*> held;
  for (const CheckpointFiles::Tensor& tensor : files.tensors) held.emplace(tensor.info.name, &tensor);

  for (DeclaredTensor& declared : declare_checkpoint_tensors(config, checkpoint->layout)) {
    const auto found = held.find(declared.source);
    if (found == held.end()) {
      const bool is_output = declared.source == output_tensor_name(checkpoint->layout);
      fail(ErrorCode::kMalformed, "{}: tensor '{}' is missing {}", files.folder, declared.source,
           is_output ? "(tie_word_embeddings is false, so the model needs one)" : layers_note(config));
    }
    const CheckpointFiles::Tensor& tensor = *found->second;
    held.erase(found);
    checkpoint->tensors.push_back(bind(std::move(declared), tensor, *checkpoint));
  }
  for (const CheckpointFiles::Tensor& tensor : files.tensors) {
    const std::string& name = tensor.info.name;
    if (!held.contains(name) || is_ignored_tensor(name)) continue;
    if (config.tied && name == output_tensor_name(checkpoint->layout)) continue;
    fail(ErrorCode::kMalformed,
         "{}: unknown tensor '{}': leaving it out could change the model's function {}",
         files.files[tensor.file].path(), printable(name), layers_note(config));
  }
}

}  // namespace

std::string read_text_file(const std::string& path) {
  const MappedFile file(path);
  const std::span<const uint8_t> bytes = file.bytes();
  if (bytes.size() > kMaxTextBytes) {
    fail(ErrorCode::kMalformed, "{}: {} bytes, expected at most {}", path, bytes.size(), kMaxTextBytes);
  }
  if (const std::string hint = placeholder_hint(bytes); !hint.empty()) {
    fail(ErrorCode::kMalformed, "{}: not the expected text{}", path, hint);
  }
  return {bytes.begin(), bytes.end()};
}

CheckpointFiles open_checkpoint_files(const std::string& folder, const Notice& notice) {
  CheckpointFiles out;
  out.folder = folder;
  const std::vector<std::string> mistral = mistral_files(folder);
  const bool single = exists(folder, kSingleFile), indexed = exists(folder, kIndexFile);
  if (!single && !indexed && mistral.empty()) {
    fail(ErrorCode::kMalformed, "{}: no {}, {} or consolidated*.safetensors in this folder", folder,
         kSingleFile, kIndexFile);
  }
  if (single || indexed) {
    if (!mistral.empty()) {
      say(notice, fmt::format("source: {} (Hugging Face layout; {} beside it is ignored)",
                              single ? kSingleFile : kIndexFile, mistral.front()));
    }
    if (single && indexed) {
      say(notice, fmt::format("source: {} ({} beside it is ignored)", kSingleFile, kIndexFile));
    }
    if (single) {
      open_files({kSingleFile}, &out);
    } else {
      open_indexed(kIndexFile, &out, notice);
    }
    return out;
  }
  out.dialect = ConfigDialect::kMistral;
  if (exists(folder, kMistralIndexFile)) {
    open_indexed(kMistralIndexFile, &out, notice);
  } else {
    open_files(mistral, &out);
  }
  return out;
}

Json read_checkpoint_config(const CheckpointFiles& files, std::string* path) {
  const char* name = files.dialect == ConfigDialect::kHuggingFace ? "config.json" : "params.json";
  const std::string full = join(files.folder, name);
  if (path != nullptr) *path = full;
  if (!exists(files.folder, name)) fail(ErrorCode::kMalformed, "{}: file is missing", full);
  return parse_json(read_text_file(full), full);
}

Checkpoint open_checkpoint(const std::string& folder, const Notice& notice) {
  Checkpoint checkpoint;
  checkpoint.files = open_checkpoint_files(folder, notice);
  std::string config_path;
  const Json json = read_checkpoint_config(checkpoint.files, &config_path);
  checkpoint.config = read_model_config(json, checkpoint.files.dialect, config_path);
  std::vector<std::string_view> names;
  for (const CheckpointFiles::Tensor& tensor : checkpoint.files.tensors) names.push_back(tensor.info.name);
  checkpoint.layout = detect_layout(names, folder);
  bind_tensors(&checkpoint);
  return checkpoint;
}

}  // namespace quern
