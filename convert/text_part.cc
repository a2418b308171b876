#include "convert/text_part.h"

#include <utility>

namespace quern {
namespace {

// What counts for the text part too.
constexpr std::string_view kSharedKeys[] = {"tie_word_embeddings", "quantization_config", "pad_token_id"};

constexpr std::pair<std::string_view, std::string_view> kPrefixes[] = {
    {"language_model.model.", "model."},
    {"model.language_model.", "model."},
    {"language_model.lm_head.", "lm_head."},
};

}  // namespace

std::optional<Json> text_part(const Json& config) {
  const Json* text = config.find("text_config");
  if (text == nullptr || text->as_object() == nullptr) return std::nullopt;
  Json::Object members = *text->as_object();
  const auto add = [&](std::string_view key, Json value) {
    if (text->find(key) == nullptr) members.push_back({std::string(key), std::move(value)});
  };
  for (const std::string_view key : kSharedKeys)
    if (const Json* value = config.find(key)) add(key, *value);
  return Json(std::move(members));
}

std::string text_tensor_name(std::string_view name) {
  for (const auto& [from, to] : kPrefixes)
    if (name.starts_with(from)) return std::string(to) + std::string(name.substr(from.size()));
  return std::string(name);
}

}  // namespace quern
