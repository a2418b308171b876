// Bars on a terminal while a user waits for a model: for its weights, and for a long prompt.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "cli/report.h"
#include "quant/error.h"
#include "runtime/model.h"
#include "runtime/session.h"

namespace quern {

// Throws kIo for a path where nothing is, and says what to do: a name of the folder that is near, or that
// quern fetches no models, for who comes from a program that does.
void require_model_path(const std::string& path);

// Model::load, with a bar on a terminal while it lasts. `tell` gets the choices and warnings, a line each.
std::unique_ptr<Model> load_model(const std::string& path, ModelOptions options, const Notice& tell = notice);

// A bar on a terminal while a long prompt is read.
class PromptProgress {
 public:
  // n_tokens: of the whole sequence.
  PromptProgress(const Session& session, size_t n_tokens) : session_(session), n_tokens_(n_tokens) {}
  // generate()'s on_micro_batch. Behind the prompt there is no bar.
  void update();
  // Where generate() may have been interrupted.
  void clear() { bar_.clear(); }

 private:
  const Session& session_;
  const size_t n_tokens_;
  ProgressBar bar_{ProgressUnit::kTokens, kProgressDelay};
};

}  // namespace quern
