#include "cli/model_progress.h"

namespace quern {

std::unique_ptr<Model> load_model(const std::string& path, ModelOptions options, const Notice& tell) {
  ProgressBar bar(ProgressUnit::kBytes, kProgressDelay);
  options.on_progress = [&](uint64_t done, uint64_t total) { bar.update(done, total); };
  return Model::load(path, options, [&](std::string_view line) {
    bar.clear();
    tell(line);
  });
}

bool PromptProgress::poll() {
  if (session_.position() < n_tokens_)
    bar_.update(session_.position(), n_tokens_);
  else
    bar_.clear();
  return stop_.requested();
}

}  // namespace quern
