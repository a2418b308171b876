#include "convert/checkpoint.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "convert/checkpoint_folder.h"
#include "convert/folder_files.h"
#include "convert/text_part.h"
#include "quant/download_check.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

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

void open_files(const std::vector<std::string>& names, CheckpointFiles* out) {
  std::unordered_map<std::string, size_t> file_of;
  for (const std::string& name : names) {
    const std::string path = join(out->folder, name);
    if (!exists(out->folder, name)) fail(ErrorCode::kMalformed, "{}: {}", path, describe_missing_file(path));
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

// Index and shards must agree about the weights: a folder where they do not is a mixture of two downloads.
// What no model needs may be named and not held. A tensor that the index leaves out is there all the same.
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
      // Whether an output matrix is needed the configuration says.
      if (needless_tensor_reason(name).empty() && !is_output_tensor(name)) {
        fail(ErrorCode::kMalformed, "{}: weight_map names tensor '{}', which {} does not hold", index.path,
             printable(name), file);
      }
      say(notice,
          fmt::format("{}: weight_map names tensor '{}', which {} does not hold; the model has no need of it",
                      index.path, printable(name), file));
      continue;
    }
    const std::string& actual = files.files[found->second->file].path();
    if (fs::path(actual).filename() != file) {
      fail(ErrorCode::kMalformed, "{}: weight_map says tensor '{}' is in {}, found in {}", index.path,
           printable(name), file, actual);
    }
    held.erase(found);
  }
  for (const CheckpointFiles::Tensor& tensor : files.tensors) {
    if (!held.contains(tensor.info.name)) continue;
    say(notice, fmt::format("{}: weight_map does not name tensor '{}' of {}; it counts all the same",
                            index.path, printable(tensor.info.name), files.files[tensor.file].path()));
  }
  if (index.total_size != nullptr && index.total_size->as_number() != static_cast<double>(total)) {
    say(notice, fmt::format("warning: {}: total_size is {}, the shards hold {} bytes of tensors", index.path,
                            index.total_size->describe(), total));
  }
}

// config.json or params.json, which must be there.
std::string config_path(const std::string& folder, ConfigDialect dialect) {
  const char* name = dialect == ConfigDialect::kHuggingFace ? "config.json" : "params.json";
  std::string path = join(folder, name);
  if (!exists(folder, name)) fail(ErrorCode::kMalformed, "{}: {}", path, describe_missing_file(path));
  return path;
}

void open_indexed(const std::string& index_name, CheckpointFiles* out, const Notice& notice) {
  const ShardIndex index = read_index(join(out->folder, index_name));
  std::set<std::string> names;
  for (const auto& [tensor, file] : index.weight_map) names.insert(file);
  open_files({names.begin(), names.end()}, out);
  check_index(index, *out, notice);
}

CheckpointFiles open_candidate(const std::string& folder, const CheckpointCandidate& candidate,
                               const Notice& notice) {
  CheckpointFiles out;
  out.folder = folder;
  out.dialect = candidate.dialect;
  // What is said of a candidate counts only when it is the one.
  std::vector<std::string> lines;
  if (candidate.index.empty()) {
    open_files(candidate.files, &out);
  } else {
    open_indexed(candidate.index, &out, [&](std::string_view line) { lines.emplace_back(line); });
  }
  config_path(folder, candidate.dialect);
  for (const std::string& line : lines) say(notice, line);
  return out;
}

// Names what is in the folder too: other forms of the checkpoint, and files that are of none.
void tell_unread(const CheckpointCandidate& taken, const std::vector<CheckpointCandidate>& candidates,
                 CheckpointFiles* files, const Notice& notice) {
  std::vector<std::string> others;
  for (const CheckpointCandidate& candidate : candidates)
    if (&candidate != &taken) others.push_back(candidate.name());
  for (std::string& name : safetensors_names(files->folder)) {
    const bool is_read = std::any_of(files->files.begin(), files->files.end(), [&](const MappedFile& file) {
      return fs::path(file.path()).filename() == name;
    });
    if (is_read) continue;
    if (std::find(others.begin(), others.end(), name) == others.end()) others.push_back(name);
    files->unread.push_back(std::move(name));
  }
  if (others.empty()) return;
  say(notice, fmt::format("source: {} ({} beside it {} ignored)", taken.name(), fmt::join(others, ", "),
                          others.size() == 1 ? "is" : "are"));
}

// Where the file of a declared tensor is missing or surplus, the number of layers may be what is wrong.
std::string layers_note(const ModelConfig& config) {
  return fmt::format("({}: {} = {})", config.path, config_keys(config.dialect).n_layers, config.n_layers);
}

std::span<const uint8_t> bytes_of(const CheckpointFiles::Tensor& tensor, const CheckpointFiles& files) {
  return files.files[tensor.file].bytes().subspan(tensor.info.begin, tensor.info.end - tensor.info.begin);
}

// Without dimensions of 1 at its ends, which say nothing.
Shape trimmed(Shape shape) {
  while (shape.size() > 1 && shape.back() == 1) shape.pop_back();
  while (shape.size() > 1 && shape.front() == 1) shape.erase(shape.begin());
  return shape;
}

// A tensor of a checkpoint, checked against the shape that it should have. Bytes are given as I8.
TensorView view_of(const CheckpointFiles::Tensor& found, const Shape& shape, const DeclaredTensor& declared,
                   const Checkpoint& checkpoint) {
  const SafetensorsTensor& info = found.info;
  const MappedFile& file = checkpoint.files.files[found.file];
  const auto where = [&] { return fmt::format("{}: tensor '{}'", file.path(), printable(info.name)); };
  if (trimmed(info.shape) != trimmed(shape)) {
    fail(ErrorCode::kMalformed, "{}: expected shape {} = {} of {}, found {}", where(), to_string(shape),
         declared.shape_key, checkpoint.config.path, to_string(info.shape));
  }
  std::optional<DType> dtype = info.type->dtype;
  if (!declared.byte_shapes.empty()) {
    if (info.type->name != "U8")
      fail(ErrorCode::kMalformed, "{}: dtype {} is not supported here: expected U8", where(),
           info.type->name);
    dtype = DType::I8;
  } else if (!dtype || (*dtype != DType::F32 && *dtype != DType::F16 && *dtype != DType::BF16)) {
    fail(ErrorCode::kMalformed, "{}: dtype {} is not supported for weights: expected BF16, F16 or F32",
         where(), info.type->name);
  }
  return {info.name, *dtype, shape, file.bytes().data() + info.begin, info.end - info.begin};
}

using HeldTensors = std::unordered_map<std::string_view, const CheckpointFiles::Tensor*>;

// The names of a declared tensor's sources; none of a computed one.
std::vector<std::string> source_names(const DeclaredTensor& declared) {
  std::vector<std::string> names;
  if (!declared.source.empty()) names.push_back(declared.source);
  names.insert(names.end(), declared.more_sources.begin(), declared.more_sources.end());
  return names;
}

CheckpointTensor bind_tensor(DeclaredTensor declared, const HeldTensors& held, const Checkpoint& checkpoint) {
  CheckpointTensor tensor;
  const Shape& usual = declared.source_shape.empty() ? declared.shape : declared.source_shape;
  for (const std::string& name : source_names(declared)) {
    const CheckpointFiles::Tensor& found = *held.at(name);
    const Shape& shape = declared.byte_shapes.empty() ? usual : declared.byte_shapes[tensor.sources.size()];
    tensor.sources.push_back(view_of(found, shape, declared, checkpoint));
    tensor.file = found.file;
  }
  if (!declared.make) {
    tensor.view = std::move(tensor.sources.front());
    tensor.sources.clear();
  } else {
    tensor.view = {declared.source.empty() ? declared.gguf : declared.source, DType::F32, declared.shape};
    tensor.view.n_bytes = tensor.view.n_elements() * sizeof(float);
  }
  tensor.declared = std::move(declared);
  return tensor;
}

// Are all elements 0 (or -0)? False for types that no weight has.
bool is_zero(const CheckpointFiles::Tensor& tensor, const CheckpointFiles& files) {
  const std::optional<DType> dtype = tensor.info.type->dtype;
  if (!dtype || !block_format(*dtype).is_float()) return false;
  const size_t element = block_format(*dtype).block_bytes;
  const std::span<const uint8_t> bytes = bytes_of(tensor, files);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool has_sign = i % element == element - 1;  // little-endian: in an element's last byte
    if ((bytes[i] & (has_sign ? 0x7F : 0xFF)) != 0) return false;
  }
  return true;
}

// tie_word_embeddings: an output matrix beside it must be the embedding again. One that differs was trained,
// and counts: without it the model would be another.
void settle_tie(const CheckpointFiles& files, const HeldTensors& held, CheckpointLayout layout,
                ModelConfig* config, const Notice& notice) {
  const auto output = held.find(output_tensor_name(layout));
  const auto embedding = held.find(embedding_tensor_name(layout));
  if (!config->tied || output == held.end() || embedding == held.end()) return;
  const SafetensorsTensor &a = output->second->info, &b = embedding->second->info;
  const std::span<const uint8_t> bytes = bytes_of(*output->second, files);
  const bool same = a.type == b.type && a.shape == b.shape &&
                    std::equal(bytes.begin(), bytes.end(), bytes_of(*embedding->second, files).begin());
  if (same) return;
  config->tied = false;
  say(notice,
      fmt::format(
          "{}: the model is said to be tied ({}), but {} differs from {}: it is kept as the output matrix",
          config->path, config_keys(config->dialect).tied, a.name, b.name));
}

// "model.layers.7.x": 7.
std::optional<uint64_t> layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  uint64_t layer = 0;
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const char* const begin = name.data() + kPrefix.size();
  const auto [end, error] = std::from_chars(begin, name.data() + name.size(), layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return layer;
}

// Why a tensor that the model does not declare may be left out; empty when it may not.
std::string needless_reason(const CheckpointFiles::Tensor& tensor, const Checkpoint& checkpoint,
                            const std::unordered_set<std::string_view>& declared) {
  const std::string& name = tensor.info.name;
  if (checkpoint.config.tied && name == output_tensor_name(checkpoint.layout))
    return "the embedding again, bit for bit";
  constexpr std::string_view kBias = ".bias";
  if (name.ends_with(kBias)) {
    const std::string weight = name.substr(0, name.size() - kBias.size()) + ".weight";
    if (declared.contains(weight) && is_zero(tensor, checkpoint.files)) return "a bias of zeros";
  }
  const std::optional<uint64_t> layer = layer_of(name);
  const ModelConfig& config = checkpoint.config;
  if (layer && *layer >= config.n_layers && *layer - config.n_layers < config.n_guessing_layers)
    return "a layer that guesses further tokens, which generated text does not pass";
  return std::string(needless_tensor_reason(name));
}

// One notice for all tensors that have the same reason and differ in numbers only.
void tell_unwritten(const std::vector<UnwrittenTensor>& unwritten, const Notice& notice) {
  struct Group {
    std::string pattern, first, reason;
    size_t count = 0;
  };
  std::vector<Group> groups;
  for (const UnwrittenTensor& tensor : unwritten) {
    std::string pattern;
    for (const char c : tensor.name) {
      const bool is_digit = c >= '0' && c <= '9';
      if (is_digit && pattern.ends_with(".*")) continue;
      pattern += is_digit && pattern.ends_with('.') ? '*' : c;
    }
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const Group& group) {
      return group.pattern == pattern && group.reason == tensor.reason;
    });
    if (same == groups.end()) {
      groups.push_back({std::move(pattern), tensor.name, tensor.reason, 1});
    } else {
      ++same->count;
    }
  }
  for (const Group& group : groups) {
    if (group.count == 1) {
      say(notice, fmt::format("not written: {} ({})", printable(group.first, 256), group.reason));
    } else {
      say(notice, fmt::format("not written: {} tensors {} ({})", group.count, printable(group.pattern, 256),
                              group.reason));
    }
  }
}

// In the order of a GGUF file.
std::vector<DeclaredTensor> declared_tensors(Checkpoint* checkpoint) {
  if (checkpoint->config.architecture.empty())
    return declare_checkpoint_tensors(checkpoint->config, checkpoint->layout);
  std::vector<DeclaredTensor> tensors = std::move(checkpoint->config.tensors);
  std::sort(tensors.begin(), tensors.end(), [](const DeclaredTensor& a, const DeclaredTensor& b) {
    return gguf_tensor_less(a.gguf, b.gguf);
  });
  return tensors;
}

void bind_tensors(Checkpoint* checkpoint, const Notice& notice) {
  ModelConfig& config = checkpoint->config;
  const CheckpointFiles& files = checkpoint->files;
  HeldTensors held;
  for (const CheckpointFiles::Tensor& tensor : files.tensors) held.emplace(tensor.info.name, &tensor);
  settle_tie(files, held, checkpoint->layout, &config, notice);

  std::unordered_set<std::string_view> declared_names;
  bool has_bias = false;
  std::vector<DeclaredTensor> declarations;
  for (DeclaredTensor& declared : declared_tensors(checkpoint)) {
    if (declared.is_output && config.tied) continue;
    if (declared.optional && !held.contains(declared.source)) continue;
    declarations.push_back(std::move(declared));
  }
  for (const DeclaredTensor& declared : declarations)
    for (const std::string& name : source_names(declared)) {
      const auto found = held.find(name);
      if (found == held.end()) {
        const bool is_output = name == output_tensor_name(checkpoint->layout);
        fail(ErrorCode::kMalformed, "{}: tensor '{}' is missing {}", files.folder, name,
             is_output
                 ? fmt::format("({} is not true, so the model needs one)", config_keys(config.dialect).tied)
                 : layers_note(config));
      }
      has_bias = has_bias || name.ends_with("bias");
      declared_names.insert(found->first);
    }
  for (const CheckpointFiles::Tensor& tensor : files.tensors) {
    const std::string& name = tensor.info.name;
    if (declared_names.contains(name)) continue;
    std::string reason = needless_reason(tensor, *checkpoint, declared_names);
    if (reason.empty()) {
      fail(ErrorCode::kMalformed,
           "{}: unknown tensor '{}': leaving it out could change the model's function {}",
           files.files[tensor.file].path(), printable(name), layers_note(config));
    }
    has_bias = has_bias || name.ends_with(".bias");
    checkpoint->unwritten.push_back(
        {name, fs::path(files.files[tensor.file].path()).filename().string(), std::move(reason)});
  }
  if (!config.bias_key.empty() && !has_bias) {
    fail(ErrorCode::kMalformed,
         "{}: {} = true, but no bias is in the folder: biases are not supported, unless they are all 0",
         config.path, config.bias_key);
  }
  for (DeclaredTensor& declared : declarations) {
    checkpoint->tensors.push_back(bind_tensor(std::move(declared), held, *checkpoint));
  }
  tell_unwritten(checkpoint->unwritten, notice);
}

void rename_to_text(CheckpointFiles* files) {
  std::unordered_set<std::string> names;
  for (CheckpointFiles::Tensor& tensor : files->tensors) {
    std::string name = text_tensor_name(tensor.info.name);
    if (!names.insert(name).second)
      fail(ErrorCode::kMalformed, "{}: tensor '{}': the text part holds a '{}' already",
           files->files[tensor.file].path(), printable(tensor.info.name), printable(name));
    tensor.info.name = std::move(name);
  }
}

// Files of a model that was saved without the module around it (GPT-2's published ones) have their names
// without that module's in front.
void complete_names(const std::vector<DeclaredTensor>& declared, CheckpointFiles* files) {
  const auto embedding = std::find_if(declared.begin(), declared.end(), [](const DeclaredTensor& tensor) {
    return tensor.gguf == "token_embd.weight";
  });
  if (embedding == declared.end()) return;
  const std::string module = embedding->source.substr(0, embedding->source.find('.') + 1);
  const auto holds = [&](std::string_view name) {
    return std::any_of(files->tensors.begin(), files->tensors.end(),
                       [&](const CheckpointFiles::Tensor& tensor) { return tensor.info.name == name; });
  };
  if (holds(embedding->source) || !holds(std::string_view(embedding->source).substr(module.size()))) return;
  for (CheckpointFiles::Tensor& tensor : files->tensors)
    if (!is_output_tensor(tensor.info.name)) tensor.info.name.insert(0, module);
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
  const std::vector<CheckpointCandidate> candidates = find_checkpoints(folder);
  if (candidates.empty()) refuse_folder(folder);
  std::optional<Error> first_problem;
  for (const CheckpointCandidate& candidate : candidates) {
    try {
      CheckpointFiles files = open_candidate(folder, candidate, notice);
      if (first_problem) {
        say(notice, fmt::format("source: {}, as what else is there is not complete ({})", candidate.name(),
                                first_problem->what()));
      }
      tell_unread(candidate, candidates, &files, notice);
      return files;
    } catch (const Error& problem) {
      if (!first_problem) first_problem = problem;
    }
  }
  throw Error(*first_problem);
}

Json read_checkpoint_config(const CheckpointFiles& files, std::string* path) {
  const std::string full = config_path(files.folder, files.dialect);
  if (path != nullptr) *path = full;
  return parse_json(read_text_file(full), full);
}

Checkpoint open_checkpoint(const std::string& folder, const Notice& notice) {
  Checkpoint checkpoint;
  checkpoint.files = open_checkpoint_files(folder, notice);
  std::string path;
  Json json = read_checkpoint_config(checkpoint.files, &path);
  if (std::optional<Json> text = text_part(json)) {
    say(notice, fmt::format("{}: the text part alone is converted; images and sound are left out", path));
    json = std::move(*text);
    rename_to_text(&checkpoint.files);
  }
  checkpoint.config = read_model_config(json, checkpoint.files.dialect, path, notice);
  complete_names(checkpoint.config.tensors, &checkpoint.files);
  std::vector<std::string_view> names;
  for (const CheckpointFiles::Tensor& tensor : checkpoint.files.tensors) names.push_back(tensor.info.name);
  // A config.json of another family than llama says itself what its tensors are called.
  if (checkpoint.config.architecture.empty() || checkpoint.config.architecture == "llama")
    checkpoint.layout = detect_layout(names, folder);
  bind_tensors(&checkpoint, notice);
  return checkpoint;
}

}  // namespace quern
