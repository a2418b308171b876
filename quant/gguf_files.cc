#include "quant/gguf_files.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "quant/shell_word.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEnd = ".gguf", kOf = "-of-";
constexpr size_t kDigits = 5;

std::string shown(const std::string& path) { return printable(path, kPathBytes); }

// The number that `text` ends in, of exactly kDigits digits behind `before`; both are cut off.
std::optional<uint32_t> cut_number(std::string_view* text, std::string_view before) {
  const size_t length = before.size() + kDigits;
  if (text->size() < length) return std::nullopt;
  const std::string_view end = text->substr(text->size() - length), digits = end.substr(before.size());
  if (!end.starts_with(before)) return std::nullopt;
  uint32_t number = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + static_cast<uint32_t>(c - '0');
  }
  text->remove_suffix(length);
  return number;
}

// What the keys of one file say.
struct SplitKeys {
  uint64_t no = 0, count = 1;  // no: from 0
};

SplitKeys read_split_keys(const GgufReader& gguf) {
  SplitKeys keys;
  keys.count = gguf.uint_or(kSplitCountKey, 1, 0, UINT16_MAX);
  if (keys.count <= 1) return keys;
  keys.no = gguf.require_uint(kSplitNoKey, 0, keys.count - 1);
  return keys;
}

// The name of a file that is part keys.no + 1 of keys.count, checked: the other parts are found by it.
GgufPartName require_part_name(const GgufReader& gguf, const SplitKeys& keys) {
  const auto name = parse_gguf_part_name(gguf.path());
  if (!name || name->part != keys.no + 1 || name->count != keys.count)
    gguf.refuse(fmt::format(
        "is part {} of {} of a split GGUF (split.no, split.count), and its name does not end in {}; the "
        "other "
        "parts are found by their names: give all of them back the ones that they had",
        keys.no + 1, keys.count,
        gguf_part_path("", static_cast<uint32_t>(keys.no + 1), static_cast<uint32_t>(keys.count))));
  return *name;
}

void require_all_there(const std::vector<std::string>& paths) {
  constexpr size_t kNamed = 8;
  std::string missing;
  size_t n_missing = 0;
  for (const std::string& path : paths) {
    std::error_code error;
    if (fs::exists(path, error) || error) continue;  // what else is wrong, opening it says
    if (n_missing < kNamed) missing += (n_missing > 0 ? ", " : "") + shown(path);
    ++n_missing;
  }
  if (n_missing == 0) return;
  fail(ErrorCode::kIo, "a split GGUF of {} parts lacks {} of them: {}{}; all parts must lie in one folder",
       paths.size(), n_missing, missing, n_missing > kNamed ? ", ..." : "");
}

// A folder was given where a file belongs.
[[noreturn]] void refuse_folder(const std::string& folder) {
  const std::vector<std::string> models = gguf_models_in(folder);
  std::error_code error;
  std::string advice = "give a GGUF file";
  if (!models.empty()) {
    advice = "give the model's file: " + shown(models.front());
    for (size_t i = 1; i < std::min<size_t>(models.size(), 4); ++i) advice += ", " + shown(models[i]);
  } else if (fs::exists(fs::path(folder) / "config.json", error) ||
             fs::exists(fs::path(folder) / "params.json", error)) {
    advice = fmt::format("it holds a checkpoint, which becomes a file first: quern convert {} -o model.gguf",
                         shell_word(folder));
  } else if (const fs::path snapshots = fs::path(folder) / "snapshots"; fs::is_directory(snapshots, error)) {
    advice = "it is a repository in Hugging Face's cache: look in " + shown(snapshots.string());
    for (fs::directory_iterator it(snapshots, error), end; !error && it != end; it.increment(error))
      if (const auto cached = gguf_models_in(it->path().string()); !cached.empty())
        advice = "it is a repository in Hugging Face's cache: give " + shown(cached.front());
  }
  fail(ErrorCode::kIo, "{}: is a folder, not a GGUF file; {}", shown(folder), advice);
}

bool is_same_value(const GgufValue& a, const GgufValue& b) {
  return a.type == b.type && a.element_type == b.element_type && a.count == b.count &&
         std::ranges::equal(a.payload, b.payload);
}

// That a later part belongs to the first one. What it repeats of the metadata must say the same; its
// alignment is its own.
void check_part(const GgufReader& part, const GgufReader& first, uint64_t no, uint64_t count) {
  part.require_uint(kSplitCountKey, count, count);
  part.require_uint(kSplitNoKey, no, no);
  for (const GgufReader::KeyValue& pair : part.metadata()) {
    if (pair.key == kSplitNoKey || pair.key == "general.alignment") continue;
    const GgufValue* const value = first.find(pair.key);
    const bool is_same = value != nullptr && is_same_value(*value, pair.value);
    if (is_same || (value == nullptr && is_split_key(pair.key))) continue;
    part.refuse(fmt::format("{}: {} in the first part, {}; the parts are of different models",
                            printable(pair.key), value == nullptr ? "is missing" : "has another value",
                            shown(first.path())));
  }
}

// "m.gguf" where there is none, but "m-00001-of-00003.gguf", as who has split a model may call it.
void refuse_name_of_parts(const std::string& path) {
  if (std::error_code error; !path.ends_with(kEnd) || fs::exists(path, error) || error) return;
  const std::vector<std::string> parts = gguf_parts_of(path.substr(0, path.size() - kEnd.size()));
  if (!parts.empty())
    fail(ErrorCode::kIo, "{}: no such file; a model of that name is in several, give the first: {}",
         shown(path), shown(parts.front()));
}

std::vector<std::string> part_paths(const GgufPartName& name) {
  std::vector<std::string> paths;
  for (uint32_t part = 1; part <= name.count; ++part)
    paths.push_back(gguf_part_path(name.stem, part, name.count));
  return paths;
}

}  // namespace

bool is_split_key(std::string_view key) noexcept {
  return key == kSplitNoKey || key == kSplitCountKey || key == kSplitTensorsKey;
}

std::optional<GgufPartName> parse_gguf_part_name(std::string_view path) {
  if (!path.ends_with(kEnd)) return std::nullopt;
  path.remove_suffix(kEnd.size());
  GgufPartName name;
  const auto count = cut_number(&path, kOf);
  const auto part = count ? cut_number(&path, "-") : std::nullopt;
  if (!part || *part < 1 || *part > *count) return std::nullopt;
  return GgufPartName{std::string(path), *part, *count};
}

std::string gguf_part_path(std::string_view stem, uint32_t part, uint32_t count) {
  return fmt::format("{}-{:05}{}{:05}{}", stem, part, kOf, count, kEnd);
}

GgufFiles::GgufFiles(const std::string& path, bool allow_mmap, const Notice& notice) {
  if (std::error_code error; fs::is_directory(path, error)) refuse_folder(path);
  refuse_name_of_parts(path);
  files_.emplace_back(path, allow_mmap);
  gguf_ = std::make_unique<GgufReader>(files_.front().bytes(), path, notice);
  const SplitKeys keys = read_split_keys(*gguf_);
  if (keys.count <= 1) return;
  const std::vector<std::string> paths = part_paths(require_part_name(*gguf_, keys));
  require_all_there(paths);
  if (keys.no != 0) {
    if (notice)
      notice(gguf_->notice_text(fmt::format("part {} of {} of a split GGUF, which begins with {}",
                                            keys.no + 1, keys.count, shown(paths.front()))));
    files_.clear();
    files_.emplace_back(paths.front(), allow_mmap);
    gguf_ = std::make_unique<GgufReader>(files_.front().bytes(), paths.front(), notice);
    gguf_->require_uint(kSplitCountKey, keys.count, keys.count);
    gguf_->require_uint(kSplitNoKey, 0, 0);
  }
  for (size_t no = 1; no < keys.count; ++no) {
    files_.emplace_back(paths[no], allow_mmap);
    GgufReader part(files_.back().bytes(), paths[no], notice);
    check_part(part, *gguf_, no, keys.count);
    gguf_->add_tensors_of(part);
  }
  const uint64_t n_tensors = gguf_->tensors().size();
  if (gguf_->uint_or(kSplitTensorsKey, n_tensors, 0, UINT32_MAX) != n_tensors)
    gguf_->refuse_value(kSplitTensorsKey, fmt::format("{}, as many as the parts hold", n_tensors));
}

bool GgufFiles::is_mapped() const {
  return std::all_of(files_.begin(), files_.end(), [](const MappedFile& file) { return file.is_mapped(); });
}

uint64_t GgufFiles::n_bytes() const {
  uint64_t sum = 0;
  for (const MappedFile& file : files_) sum += file.bytes().size();
  return sum;
}

size_t GgufFiles::file_of(const uint8_t* data) const {
  const auto found = std::find_if(files_.begin(), files_.end(), [&](const MappedFile& file) {
    const std::span<const uint8_t> bytes = file.bytes();
    return data >= bytes.data() && data < bytes.data() + bytes.size();
  });
  QUERN_CHECK(found != files_.end());
  return static_cast<size_t>(found - files_.begin());
}

void GgufFiles::will_need(std::span<const uint8_t> bytes) const noexcept {
  const MappedFile& file = files_[file_of(bytes.data())];
  file.will_need(static_cast<uint64_t>(bytes.data() - file.bytes().data()), bytes.size());
}

void GgufFiles::done_with(std::span<const uint8_t> bytes) const noexcept {
  const MappedFile& file = files_[file_of(bytes.data())];
  file.done_with(static_cast<uint64_t>(bytes.data() - file.bytes().data()), bytes.size());
}

std::vector<std::string> gguf_parts_of(const std::string& stem) {
  std::vector<std::string> parts;
  const fs::path folder = fs::path(stem).parent_path(), name = fs::path(stem).filename();
  std::error_code error;
  for (fs::directory_iterator it(folder.empty() ? fs::path(".") : folder, error), end; !error && it != end;
       it.increment(error)) {
    const fs::path file = it->path().filename();
    const auto part = parse_gguf_part_name(file.string());
    if (part && part->stem == name.string()) parts.push_back((folder / file).string());
  }
  std::sort(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string> gguf_models_in(const std::string& folder) {
  std::vector<std::string> models;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string path = it->path().string();
    if (!path.ends_with(kEnd) || it->path().filename().string().starts_with("mmproj")) continue;
    const auto name = parse_gguf_part_name(path);
    models.push_back(name ? gguf_part_path(name->stem, 1, name->count) : path);
  }
  std::sort(models.begin(), models.end());
  models.erase(std::unique(models.begin(), models.end()), models.end());
  return models;
}

uint64_t gguf_files_bytes(const std::string& path) { return GgufFiles(path).n_bytes(); }

}  // namespace quern
