#include "cli/draft_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cli/report.h"
#include "quant/checked_math.h"
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
  return options;
}

}  // namespace

DraftModel::DraftModel(const std::string& path, ModelOptions options, const Model& target) {
  options = draft_options(std::move(options));
  const ModelSurvey survey = Model::survey(path, options, [](std::string_view) {});
  // Beyond its own context it makes no guesses.
  options.context = std::min(target.context(), std::max<uint64_t>(survey.trained_context, 1));
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

uint64_t DraftModel::bytes(const std::string& path, const ModelOptions& options, size_t n_texts) {
  const MemoryPlan plan = Model::survey(path, draft_options(options), [](std::string_view) {}).memory;
  uint64_t more = 0, sum = 0;
  const bool counts = checked_mul(n_texts - 1, plan.kv, &more) && checked_add(plan.total(), more, &sum);
  return counts ? sum : UINT64_MAX;
}

std::unique_ptr<DraftModel> load_draft(const std::optional<std::string>& path, const ModelOptions& options,
                                       const Model& target) {
  if (!path) return nullptr;
  return std::make_unique<DraftModel>(*path, options, target);
}

}  // namespace quern
