#include "cli/model_progress.h"

#include <filesystem>
#include <system_error>
#include <vector>

#include "cli/suggest.h"
#include "quant/shell_word.h"
#include "quant/utf8.h"

namespace quern {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFetchesNone =
    "quern fetches no models: give the path of a file or folder that you have";

// The name in the folder that may have been meant; empty: none.
std::string near_name(const fs::path& path) {
  constexpr size_t kMostNames = 1000;
  const std::string wanted = lower_ascii(path.filename().string());
  std::error_code error;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::vector<std::string> stems;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (lower_ascii(name) == wanted || lower_ascii(name) == wanted + ".gguf") return name;
    if (name.ends_with(".gguf") && stems.size() < kMostNames) stems.push_back(it->path().stem().string());
  }
  if (!path.has_extension()) return {};  // the name of a model, as others fetch them
  const std::string_view near = closest(path.stem().string(), stems);
  return near.empty() ? std::string() : std::string(near) + ".gguf";
}

// What to do about a path where nothing is.
std::string advice_for_missing(const std::string& path) {
  if (path == "-") return "a model is mapped, not read from a pipe: give its file";
  if (path.starts_with('~')) return "the shell replaces a ~ only at the start of a word without quotes";
  if (path.find("://") != path.npos) return std::string(kFetchesNone);
  const fs::path name(path);
  std::error_code error;
  if (const std::string near = near_name(name); !near.empty())
    return fmt::format("did you mean {}?", shell_word((name.parent_path() / near).string()));
  const bool is_file_name = path.ends_with(".gguf") || path.ends_with(".safetensors");
  if (!is_file_name && !name.is_absolute()) return std::string(kFetchesNone);
  if (name.has_parent_path() && !fs::exists(name.parent_path(), error))
    return fmt::format("its folder is not there: {}", printable(name.parent_path().string(), kPathBytes));
  return "ls shows which files are there";
}

}  // namespace

void require_model_path(const std::string& path) {
  std::error_code error;
  if (path.empty()) fail(ErrorCode::kIo, "a model's name is empty (a variable that is not set?)");
  if (fs::symlink_status(path, error).type() != fs::file_type::not_found) return;
  fail(ErrorCode::kIo, "{}: cannot open: No such file or directory; {}", printable(path, kPathBytes),
       advice_for_missing(path));
}

std::unique_ptr<Model> load_model(const std::string& path, ModelOptions options, const Notice& tell) {
  require_model_path(path);
  ProgressBar bar(ProgressUnit::kBytes, kProgressDelay);
  options.on_progress = [&](uint64_t done, uint64_t total) { bar.update(done, total); };
  return Model::load(path, options, [&](std::string_view line) {
    bar.clear();
    tell(line);
  });
}

void PromptProgress::update() {
  if (session_.position() < n_tokens_)
    bar_.update(session_.position(), n_tokens_);
  else
    bar_.clear();
}

}  // namespace quern
