// Tokenizers of the bundled vocabularies, and the golden lines about them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/tokenizer.h"

namespace quern::test {

// "mistral-v1", "tiny-mistral", "stories260k".
std::string tokenizer_model_path(const std::string& name);

enum class Route { kModelFile, kGguf };
inline constexpr Route kRoutes[] = {Route::kModelFile, Route::kGguf};
// For test names.
std::string route_name(Route route);

// From tokenizer.model, or from a GGUF file that its vocabulary was written to.
Vocabulary load_vocabulary(const std::string& name, Route route = Route::kModelFile);

// Lines of mistral_v1_tokens.jsonl of one kind.
std::vector<nlohmann::json> golden_lines(const std::string& kind);

}  // namespace quern::test
