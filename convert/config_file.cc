#include "convert/config_file.h"

#include <algorithm>
#include <span>

#include "quant/utf8.h"

namespace quern {
namespace {

// What a key that changes the mathematics may hold besides null, so that it changes nothing.
enum class Harmless { kNothing, kFalse, kZero, kOne, kSilu, kDefaultRope };

struct GuardedKey {
  std::string_view key;
  Harmless harmless;
};

// Keys of both dialects, and of relatives of Llama that share its tensor names. A key that is not listed is
// taken to describe training, storage or sampling, not the model's function.
constexpr GuardedKey kGuardedKeys[] = {
    {"hidden_act", Harmless::kSilu},
    {"hidden_activation", Harmless::kSilu},
    {"rope_scaling", Harmless::kDefaultRope},
    {"rope_parameters", Harmless::kDefaultRope},
    {"partial_rotary_factor", Harmless::kOne},
    {"rotary_pct", Harmless::kOne},
    {"no_rope_layers", Harmless::kNothing},
    {"use_scaled_rope", Harmless::kFalse},
    {"yarn", Harmless::kNothing},
    {"llama_4_scaling", Harmless::kNothing},
    {"alibi", Harmless::kFalse},
    {"quantization_config", Harmless::kNothing},
    {"compression_config", Harmless::kNothing},
    {"quantization", Harmless::kNothing},
    {"qk_norm", Harmless::kFalse},
    {"use_qk_norm", Harmless::kFalse},
    {"clip_qkv", Harmless::kNothing},
    {"attn_logit_softcapping", Harmless::kNothing},
    {"final_logit_softcapping", Harmless::kNothing},
    {"query_pre_attn_scalar", Harmless::kNothing},
    {"attention_multiplier", Harmless::kNothing},
    {"attention_chunk_size", Harmless::kNothing},
    {"embedding_multiplier", Harmless::kOne},
    {"residual_multiplier", Harmless::kOne},
    {"logits_scaling", Harmless::kOne},
    {"logit_scale", Harmless::kOne},
    {"num_local_experts", Harmless::kZero},
    {"num_experts", Harmless::kZero},
    {"n_routed_experts", Harmless::kZero},
    {"moe", Harmless::kNothing},
    {"q_lora_rank", Harmless::kNothing},
    {"kv_lora_rank", Harmless::kNothing},
    {"lora", Harmless::kNothing},
    {"vision_encoder", Harmless::kNothing},
    {"vision_config", Harmless::kNothing},
    {"audio_config", Harmless::kNothing},
    {"ffn_dim_multiplier", Harmless::kNothing},
};

bool is_one_of(std::string_view word, std::span<const std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Members of a RoPE description that say how positions are scaled beyond a factor: with a factor of 1 each of
// these types is the identity (transformers, modeling_rope_utils.py), whatever they hold.
constexpr std::string_view kScalingDetails[] = {"original_max_position_embeddings",
                                                "low_freq_factor",
                                                "high_freq_factor",
                                                "beta_fast",
                                                "beta_slow",
                                                "mscale",
                                                "mscale_all_dim",
                                                "truncate"};
constexpr std::string_view kIdentityTypes[] = {"linear", "yarn", "llama3"};

// Only what is known to leave RoPE as it is: a type "default", or one that scales by a factor of 1; the base
// (transformers 5 moved it in here); a whole rotation. Any other member, known or not, may change the angles.
bool is_default_rope(const Json& value) {
  const Json::Object* members = value.as_object();
  if (members == nullptr) return false;
  const auto is_one = [&](std::string_view key) {
    const Json* member = value.find(key);
    return member != nullptr && member->as_number() == 1.0;
  };
  const bool scales_by_one = is_one("factor");
  for (const auto& [key, member] : *members) {
    const std::string* text = member.as_string();
    const bool is_type = (key == "rope_type" || key == "type") && text != nullptr &&
                         (*text == "default" || (scales_by_one && is_one_of(*text, kIdentityTypes)));
    const bool is_identity =
        (key == "partial_rotary_factor" || key == "factor" || key == "attention_factor") &&
        member.as_number() == 1.0;
    const bool is_detail = scales_by_one && is_one_of(key, kScalingDetails);
    if (!is_type && !is_identity && !is_detail && key != "rope_theta" && !member.is_null()) return false;
  }
  return true;
}

// {}, [] and null hold nothing.
bool is_empty(const Json& value) {
  return value.is_null() || (value.as_object() != nullptr && value.as_object()->empty()) ||
         (value.as_array() != nullptr && value.as_array()->empty());
}

bool is_harmless(const Json& value, Harmless harmless) {
  if (is_empty(value)) return true;
  switch (harmless) {
    case Harmless::kNothing:
      return false;
    case Harmless::kFalse:
      return value.as_bool() && !*value.as_bool();
    case Harmless::kZero:
      return value.as_number() == 0.0;
    case Harmless::kOne:
      return value.as_number() == 1.0;
    case Harmless::kSilu:
      return value.as_string() &&
             (lower_ascii(*value.as_string()) == "silu" || lower_ascii(*value.as_string()) == "swish");
    case Harmless::kDefaultRope:
      return is_default_rope(value);
  }
  return false;
}

}  // namespace

void ConfigFile::refuse_unsupported(bool has_window) const {
  for (const auto& [key, harmless] : kGuardedKeys) {
    const Json* value = read_.contains(key) ? nullptr : peek(key);
    if (value != nullptr && !is_harmless(*value, harmless)) {
      refuse(key, "= " + value->describe() + " changes the model's function and is not supported");
    }
    if (harmless == Harmless::kDefaultRope && value != nullptr && value->find("factor") != nullptr)
      note(fmt::format("{} = {} changes nothing and is ignored", key, value->describe()));
  }
  refuse_layer_types(has_window);
}

void ConfigFile::refuse_layer_types(bool has_window) const {
  if (read_.contains("layer_types")) return;
  const Json* types = peek("layer_types");
  if (types == nullptr) return;
  const Json::Array* array = types->as_array();
  if (array == nullptr) refuse("layer_types", "must be an array, found " + types->describe());
  const std::string_view expected = has_window ? "sliding_attention" : "full_attention";
  for (const Json& type : *array) {
    if (type.as_string() == nullptr || *type.as_string() != expected) {
      refuse("layer_types",
             fmt::format("holds {}, supported here is \"{}\" for all layers", type.describe(), expected));
    }
  }
}

}  // namespace quern
