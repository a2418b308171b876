// The text part of a checkpoint that sees and hears too (Gemma 3 and 4, Mistral 3, Qwen3.5): its
// configuration lies within another one, and its tensors have a module's name in front. Thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "quant/json/json.h"

namespace quern {

// The configuration of the text part, as a checkpoint of text alone would have it; nothing where `config` is
// one of text alone.
std::optional<Json> text_part(const Json& config);

// "model.layers.0..." of "language_model.model.layers.0..." and of "model.language_model.layers.0...".
// Other names stay as they are.
std::string text_tensor_name(std::string_view name);

}  // namespace quern
