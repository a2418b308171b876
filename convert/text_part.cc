#include "convert/text_part.h"

#include <algorithm>
#include <utility>

namespace quern {
namespace {

// What counts for the text part too.
constexpr std::string_view kSharedKeys[] = {"tie_word_embeddings", "quantization_config", "pad_token_id"};

// Gemma 3's published files name only what differs from these (transformers' Gemma3TextConfig).
struct DefaultSize {
  std::string_view key;
  double value;
};
constexpr DefaultSize kGemma3Sizes[] = {
    {"vocab_size", 262208},      {"hidden_size", 2304},
    {"intermediate_size", 9216}, {"num_hidden_layers", 26},
    {"num_attention_heads", 8},  {"num_key_value_heads", 4},
    {"head_dim", 256},           {"max_position_embeddings", 131072},
    {"rms_norm_eps", 1e-6},      {"rope_theta", 1e6},
    {"sliding_window", 4096},    {"query_pre_attn_scalar", 256},
};

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
  const std::string* type = (*text)["model_type"].as_string();
  if (type != nullptr && *type == "gemma3_text")
    for (const DefaultSize& size : kGemma3Sizes) add(size.key, Json(size.value));
  return Json(std::move(members));
}

std::string text_tensor_name(std::string_view name) {
  for (const auto& [from, to] : kPrefixes)
    if (name.starts_with(from)) return std::string(to) + std::string(name.substr(from.size()));
  return std::string(name);
}

}  // namespace quern
