// The small model of --draft, which guesses what the large one then checks.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "runtime/engine/drafter.h"
#include "runtime/generate.h"
#include "runtime/model.h"

namespace quern {

class DraftModel {
 public:
  // Loads it, on the CPU; what it tells of itself begins with "draft: ". options: as the large model was
  // loaded with. Throws what loading throws, and kUsage, with the file's name, for another vocabulary.
  DraftModel(const std::string& path, ModelOptions options, const Model& target);

  const Model& model() const { return *model_; }
  // For completions of one session at a time; lives as long as this.
  void join(Speculation* speculation);

  // What it will take with one text at a time; each one more takes `kv` again. options: as the large model is
  // to be loaded with; where these do not say its context, the plan is of what this one would have by itself.
  static MemoryPlan memory(const std::string& path, const ModelOptions& options);

 private:
  std::unique_ptr<Model> model_;
  std::optional<Drafter> drafter_;
  std::optional<Drafter::Text> text_;
};

// Null where none was asked for.
std::unique_ptr<DraftModel> load_draft(const std::optional<std::string>& path, const ModelOptions& options,
                                       const Model& target);

}  // namespace quern
