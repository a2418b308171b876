#include "cli/model_progress.h"

#include <filesystem>
#include <system_error>

namespace quern {

void require_model_path(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::symlink_status(path, error);
  if (status.type() != std::filesystem::file_type::not_found) return;
  const bool is_file_name = path.ends_with(".gguf") || path.ends_with(".safetensors");
  fail(ErrorCode::kIo, "{}: cannot open: No such file or directory{}", printable(path, kPathBytes),
       is_file_name ? "" : "; quern fetches no models: give the path of a file or folder that you have");
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
