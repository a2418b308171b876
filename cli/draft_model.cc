#include "cli/draft_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cli/model_progress.h"
#include "cli/report.h"
#include "quant/error.h"

namespace quern {
namespace {

ModelOptions draft_options(ModelOptions options) {
  options.gpu = "none";
  options.gpu_layers.reset();
  options.n_sequences = 1;
  options.promised_bytes = 0;
  options.on_progress = nullptr;
  options.pre_tokenizer.clear();
  options.context = 0;  // until it is known how many positions the draft has
  return options;
}

ModelSurvey survey(const std::string& path, const ModelOptions& options) {
  require_model_path(path);
  return Model::survey(path, options, [](std::string_view) {});
}

// Beyond its own context it makes no guesses.
uint64_t draft_context(const ModelSurvey& draft, uint64_t target_context) {
  return std::min(target_context, std::max<uint64_t>(draft.trained_context, 1));
}

}  // namespace

DraftModel::DraftModel(const std::string& path, ModelOptions options, const Model& target) {
  options = draft_options(std::move(options));
  options.context = draft_context(survey(path, options), target.context());
  options.trained_context = false;
  model_ = Model::load(path, options, [](std::string_view line) { print_notice("draft: {}", line); });
  try {
    drafter_.emplace(*model_, target);
  } catch (const Error& error) {
    fail(error.code(), "--draft {}: {}", printable(path, kPathBytes), error.what());
  }
}

void DraftModel::join(Speculation* speculation) {
  if (!text_) text_.emplace(*drafter_);
  speculation->draft = &*text_;
}

MemoryPlan DraftModel::memory(const std::string& path, const ModelOptions& options) {
  ModelOptions of_draft = draft_options(options);
  const ModelSurvey usual = survey(path, of_draft);
  if (options.context == 0) return usual.memory;
  of_draft.context = draft_context(usual, options.context);
  return of_draft.context == usual.context ? usual.memory : survey(path, of_draft).memory;
}

std::unique_ptr<DraftModel> load_draft(const std::optional<std::string>& path, const ModelOptions& options,
                                       const Model& target) {
  if (!path) return nullptr;
  return std::make_unique<DraftModel>(*path, options, target);
}

}  // namespace quern
