#include "convert/checkpoint_folder.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <optional>

#include "convert/folder_files.h"
#include "quant/error.h"
#include "quant/utf8.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr std::string_view kMistralPrefix = "consolidated";
constexpr std::string_view kMistralIndexFile = "consolidated.safetensors.index.json";
constexpr std::string_view kExtension = ".safetensors";
constexpr std::string_view kAdapterPrefix = "adapter_";
constexpr std::string_view kCachePrefix = "models--";

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  if (error) fail(ErrorCode::kIo, "{}: cannot list the folder: {}", folder, error.message());
  std::sort(names.begin(), names.end());
  return names;
}

bool exists(const std::string& folder, std::string_view name) {
  std::error_code ignored;
  return fs::exists(fs::path(folder) / name, ignored);
}

// Of "x-00002-of-00003.safetensors".
struct ShardName {
  std::string prefix;  // "x"
  uint32_t number = 0, count = 0;
};

std::optional<ShardName> parse_shard_name(std::string_view name) {
  constexpr std::string_view kOf = "-of-";
  if (!name.ends_with(kExtension)) return std::nullopt;
  name.remove_suffix(kExtension.size());
  const size_t of = name.rfind(kOf);
  if (of == name.npos || of == 0) return std::nullopt;
  const size_t dash = name.rfind('-', of - 1);
  if (dash == name.npos || dash == 0) return std::nullopt;
  const auto number = [](std::string_view text) {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() ? value : 0;
  };
  ShardName shard{std::string(name.substr(0, dash)), number(name.substr(dash + 1, of - dash - 1)),
                  number(name.substr(of + kOf.size()))};
  if (shard.number == 0 || shard.number > shard.count) return std::nullopt;
  return shard;
}

// Sets of shards that number themselves, "model-..." first.
void add_numbered_shards(const std::vector<std::string>& names, std::vector<CheckpointCandidate>* out) {
  std::map<std::pair<std::string, uint32_t>, std::vector<std::string>> sets;
  for (const std::string& name : names) {
    const auto shard = parse_shard_name(name);
    if (shard && !name.starts_with(kMistralPrefix)) sets[{shard->prefix, shard->count}].push_back(name);
  }
  std::vector<CheckpointCandidate> found;
  for (auto& [key, files] : sets) {
    // The first that is missing is named, so that opening says which.
    for (uint32_t number = 1; number <= files.size() + 1 && number <= key.second; ++number) {
      const std::string name = fmt::format("{}-{:05}-of-{:05}{}", key.first, number, key.second, kExtension);
      if (std::find(files.begin(), files.end(), name) != files.end()) continue;
      files.push_back(name);
      break;
    }
    std::sort(files.begin(), files.end());
    found.push_back({ConfigDialect::kHuggingFace, "", std::move(files)});
  }
  std::stable_partition(found.begin(), found.end(), [](const CheckpointCandidate& candidate) {
    return candidate.files.front().starts_with("model-");
  });
  out->insert(out->end(), found.begin(), found.end());
}

// What stands in a folder without a checkpoint.
struct Stranger {
  std::string_view prefix, suffix, advice;
};

constexpr Stranger kStrangers[] = {
    {"", ".gguf", "a GGUF file: give that file instead of the folder"},
    {kAdapterPrefix, "",
     "an adapter (LoRA), which is not a model by itself: merge it into its base model first (peft: "
     "merge_and_unload, then save_pretrained)"},
    {"", ".bin",
     "PyTorch weights, which are pickles and not read: get the model as safetensors (transformers: "
     "save_pretrained)"},
    {"", ".pth", "PyTorch weights, which are pickles and not read: get the model as safetensors"},
    {"", ".pt", "PyTorch weights, which are pickles and not read: get the model as safetensors"},
    {"", ".ckpt", "a PyTorch or TensorFlow checkpoint, which is not read: get the model as safetensors"},
    {"", ".h5", "TensorFlow weights, which are not read: get the model as safetensors"},
    {"", ".msgpack", "Flax weights, which are not read: get the model as safetensors"},
    {"", ".npz", "NumPy weights, which are not read: get the model as safetensors"},
    {"", ".onnx", "an ONNX graph, which is not read: get the model as safetensors"},
    {"", ".incomplete", "an unfinished download: download it again"},
    {"", ".part", "an unfinished download: download it again"},
    {"", ".crdownload", "an unfinished download: download it again"},
    {"", ".aria2", "an unfinished download: download it again"},
};

// "snapshots/HASH" of a cache folder's only snapshot, or a hint how they are named.
std::string snapshot_of(const std::string& folder) {
  std::error_code ignored;
  std::vector<std::string> snapshots;
  for (fs::directory_iterator it(fs::path(folder) / "snapshots", ignored), end; !ignored && it != end;
       it.increment(ignored))
    snapshots.push_back(it->path().filename().string());
  std::sort(snapshots.begin(), snapshots.end());
  return (fs::path(folder) / "snapshots" / (snapshots.empty() ? "<hash>" : snapshots.front())).string();
}

// Without links, "." and a slash at the end.
fs::path full_path(const std::string& folder) {
  std::error_code ignored;
  const fs::path full = fs::weakly_canonical(folder, ignored);
  return full.filename().empty() ? full.parent_path() : full;
}

// "OWNER--NAME" of models--OWNER--NAME/snapshots/HASH, or "NAME" where there is no owner; empty: not in a
// cache.
std::string repository_of(const std::string& folder) {
  const fs::path snapshots = full_path(folder).parent_path();
  const std::string name = snapshots.parent_path().filename().string();
  const bool is_snapshot = snapshots.filename() == "snapshots" && name.starts_with(kCachePrefix);
  return is_snapshot ? name.substr(kCachePrefix.size()) : std::string();
}

}  // namespace

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of("/\\") == name.npos &&
         printable(name, kPathBytes) == name;
}

std::vector<std::string> safetensors_names(const std::string& folder) {
  std::vector<std::string> names = names_in(folder);
  std::erase_if(names, [](const std::string& name) { return !name.ends_with(kExtension); });
  for (const std::string& name : names) {
    if (!is_plain_file_name(name))
      fail(ErrorCode::kMalformed, "{}: bad file name '{}'", folder, printable(name, kPathBytes));
  }
  return names;
}

std::vector<CheckpointCandidate> find_checkpoints(const std::string& folder) {
  std::vector<std::string> names = safetensors_names(folder);
  std::erase_if(names, [](const std::string& name) { return name.starts_with(kAdapterPrefix); });
  const auto has = [&](std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  std::vector<CheckpointCandidate> out;
  if (has(kSingleFile)) out.push_back({ConfigDialect::kHuggingFace, "", {std::string(kSingleFile)}});
  if (exists(folder, kIndexFile)) {
    out.push_back({ConfigDialect::kHuggingFace, std::string(kIndexFile), {}});
  } else {
    add_numbered_shards(names, &out);  // beside an index, it decides what belongs together
  }
  CheckpointCandidate mistral{ConfigDialect::kMistral, "", {}};
  for (const std::string& name : names)
    if (name.starts_with(kMistralPrefix)) mistral.files.push_back(name);
  if (exists(folder, kMistralIndexFile)) {
    mistral.index = kMistralIndexFile;
    mistral.files.clear();
  }
  const bool has_mistral = !mistral.index.empty() || !mistral.files.empty();
  if (has_mistral) out.push_back(std::move(mistral));
  if (out.empty() && names.size() == 1) out.push_back({ConfigDialect::kHuggingFace, "", names});
  return out;
}

void refuse_folder(const std::string& folder) {
  const std::vector<std::string> names = names_in(folder);
  const std::string problem = fmt::format("{}: no {}, {} or {}*{} in this folder", folder, kSingleFile,
                                          kIndexFile, kMistralPrefix, kExtension);
  const std::string own = fs::path(folder).lexically_normal().filename().string();
  if (exists(folder, "snapshots") && (own.starts_with(kCachePrefix) || exists(folder, "blobs"))) {
    fail(ErrorCode::kMalformed, "{}; it is a repository in Hugging Face's cache: give {}", problem,
         snapshot_of(folder));
  }
  for (const std::string& name : names) {
    const std::string path = (fs::path(folder) / name).string();
    std::error_code ignored;
    if (name.ends_with(kExtension) && !fs::exists(path, ignored))
      fail(ErrorCode::kMalformed, "{}; {}: {}", problem, printable(name, kPathBytes),
           describe_missing_file(path));
  }
  for (const Stranger& stranger : kStrangers) {
    for (const std::string& name : names) {
      if (!name.starts_with(stranger.prefix) || !name.ends_with(stranger.suffix)) continue;
      fail(ErrorCode::kMalformed, "{}; {} is {}", problem, printable(name, kPathBytes), stranger.advice);
    }
  }
  const auto several = std::count_if(names.begin(), names.end(),
                                     [](const std::string& name) { return name.ends_with(kExtension); });
  if (several > 0) {
    fail(ErrorCode::kMalformed,
         "{}; the {} *{} files have other names, and no index says which belong together", problem, several,
         kExtension);
  }
  fail(ErrorCode::kMalformed, "{}; {}", problem,
       names.empty()
           ? "it is empty"
           : fmt::format("it holds {}{}; give the folder that config.json and the weights are in",
                         printable(names.front(), kPathBytes), names.size() > 1 ? " and others" : ""));
}

std::string model_name_of_folder(const std::string& folder) {
  std::string name = repository_of(folder);
  if (name.empty()) return well_formed_utf8(full_path(folder).filename().string());
  if (const size_t owner_end = name.find("--"); owner_end != name.npos) name = name.substr(owner_end + 2);
  return well_formed_utf8(name);
}

std::string_view chat_format_of_repository(const std::string& folder) {
  struct Row {
    std::string_view repository, format;
  };
  constexpr Row kRows[] = {
      {"mistralai--Mistral-7B-Instruct-v0.1", "mistral-v1"},
      {"mistralai--Mistral-7B-Instruct-v0.2", "mistral-v1"},
      {"mistralai--Mixtral-8x7B-Instruct-v0.1", "mistral-v1"},
      {"mistralai--Mistral-7B-Instruct-v0.3", "mistral-v3"},
      {"mistralai--Mixtral-8x22B-Instruct-v0.1", "mistral-v3"},
      {"mistralai--Mistral-Nemo-Instruct-2407", "mistral-v3-tekken"},
      {"mistralai--Mistral-Large-Instruct-2411", "mistral-v7"},
  };
  const std::string repository = repository_of(folder);
  for (const Row& row : kRows)
    if (row.repository == repository) return row.format;
  return "";
}

}  // namespace quern
