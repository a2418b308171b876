#include "convert/hf_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string_view>

namespace quern {
namespace {

constexpr uint64_t kMaxLayers = 512;
constexpr uint64_t kMaxWidth = 1u << 20;
constexpr uint64_t kMaxHeads = 1u << 16, kMaxHeadDim = 1024;
constexpr uint64_t kMaxTokens = 1u << 24;  // of a vocabulary or a context

constexpr ConfigKeys kHuggingFaceKeys = {"hidden_size",         "intermediate_size",   "num_hidden_layers",
                                         "num_attention_heads", "num_key_value_heads", "head_dim",
                                         "vocab_size"};
constexpr ConfigKeys kMistralKeys = {"dim",        "hidden_dim", "n_layers",  "n_heads",
                                     "n_kv_heads", "head_dim",   "vocab_size"};

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
    {"attention_bias", Harmless::kFalse},
    {"qkv_bias", Harmless::kFalse},
    {"mlp_bias", Harmless::kFalse},
    {"use_bias", Harmless::kFalse},
    {"use_biases", Harmless::kFalse},
    {"bias", Harmless::kFalse},
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

constexpr std::array<std::string_view, 2> kArchitectures = {"MistralForCausalLM", "LlamaForCausalLM"};
constexpr std::array<std::string_view, 2> kModelTypes = {"mistral", "llama"};

// Only what is known to leave RoPE as it is: a type "default", the base (transformers 5 moved it in here), a
// whole rotation. Any other member, known or not, may change the angles.
bool is_default_rope(const Json& value) {
  const Json::Object* members = value.as_object();
  if (members == nullptr) return false;
  for (const auto& [key, member] : *members) {
    const bool is_default =
        (key == "rope_type" || key == "type") && member.as_string() && *member.as_string() == "default";
    const bool is_whole = key == "partial_rotary_factor" && member.as_number() == 1.0;
    if (!is_default && !is_whole && key != "rope_theta" && !member.is_null()) return false;
  }
  return true;
}

bool is_harmless(const Json& value, Harmless harmless) {
  if (value.is_null()) return true;
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
      return value.as_string() && *value.as_string() == "silu";
    case Harmless::kDefaultRope:
      return is_default_rope(value);
  }
  return false;
}

// Typed, range-checked access to the members of one file. A member that is null counts as absent.
class ConfigFile {
 public:
  ConfigFile(const Json& json, const std::string& path) : json_(json), path_(path) {
    if (json.as_object() == nullptr) fail(ErrorCode::kMalformed, "{}: expected a JSON object", path);
  }

  const Json* find(std::string_view key) const {
    const Json* value = json_.find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  uint32_t require_uint(std::string_view key, uint64_t max) const {
    const Json* value = find(key);
    if (value == nullptr) refuse(key, "is missing");
    const uint64_t* number = value->as_uint();
    if (number == nullptr || *number < 1 || *number > max) {
      refuse(key, fmt::format("must be an integer from 1 to {}, found {}", max, value->describe()));
    }
    return static_cast<uint32_t>(*number);
  }

  uint32_t uint_or(std::string_view key, uint32_t fallback, uint64_t max) const {
    return find(key) == nullptr ? fallback : require_uint(key, max);
  }

  // GGUF keeps it as an f32, where it must neither vanish nor overflow.
  double positive(std::string_view key, const Json* value) const {
    if (value == nullptr) refuse(key, "is missing");
    const std::optional<double> number = value->as_number();
    if (!number || !(*number >= std::numeric_limits<float>::min()) ||
        !(*number <= std::numeric_limits<float>::max())) {
      refuse(key, "must be a finite number greater than 0, found " + value->describe());
    }
    return *number;
  }

  bool bool_or(std::string_view key, bool fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (value->as_bool() == nullptr) refuse(key, "must be true or false, found " + value->describe());
    return *value->as_bool();
  }

  void refuse_unsupported() const {
    for (const auto& [key, harmless] : kGuardedKeys) {
      const Json* value = find(key);
      if (value != nullptr && !is_harmless(*value, harmless)) {
        refuse(key, "= " + value->describe() + " changes the model's function and is not supported");
      }
    }
    refuse_layer_types();
  }

  [[noreturn]] void refuse(std::string_view key, const std::string& problem) const {
    fail(ErrorCode::kMalformed, "{}: {} {}", path_, key, problem);
  }

 private:
  // Newer files list the kind of attention per layer.
  void refuse_layer_types() const {
    const Json* types = find("layer_types");
    if (types == nullptr) return;
    const Json::Array* array = types->as_array();
    if (array == nullptr) refuse("layer_types", "must be an array, found " + types->describe());
    const std::string_view expected = find("sliding_window") ? "sliding_attention" : "full_attention";
    for (const Json& type : *array) {
      if (type.as_string() == nullptr || *type.as_string() != expected) {
        refuse("layer_types",
               fmt::format("holds {}, supported here is \"{}\" for all layers", type.describe(), expected));
      }
    }
  }

  const Json& json_;
  const std::string& path_;
};

std::string joined(std::span<const std::string_view> words) {
  return fmt::format("{}", fmt::join(words, ", "));
}

void check_architecture(const ConfigFile& file) {
  const Json* architectures = file.find("architectures");
  const Json* model_type = file.find("model_type");
  if (architectures == nullptr && model_type == nullptr) file.refuse("architectures", "is missing");
  if (architectures != nullptr) {
    const Json::Array* array = architectures->as_array();
    const Json& name = array != nullptr && array->size() == 1 ? array->front() : *architectures;
    if (name.as_string() == nullptr ||
        std::find(kArchitectures.begin(), kArchitectures.end(), *name.as_string()) == kArchitectures.end()) {
      file.refuse("architectures", "names " + name.describe() + ", which is not supported (supported: " +
                                       joined(kArchitectures) + ")");
    }
  }
  if (model_type != nullptr &&
      (model_type->as_string() == nullptr ||
       std::find(kModelTypes.begin(), kModelTypes.end(), *model_type->as_string()) == kModelTypes.end())) {
    file.refuse("model_type",
                "= " + model_type->describe() + " is not supported (supported: " + joined(kModelTypes) + ")");
  }
}

// The sizes, which both dialects have under different keys.
void read_sizes(const ConfigFile& file, ModelConfig* config) {
  const ConfigKeys& keys = config_keys(config->dialect);
  config->n_layers = file.require_uint(keys.n_layers, kMaxLayers);
  config->dim = file.require_uint(keys.dim, kMaxWidth);
  config->hidden_dim = file.require_uint(keys.hidden_dim, kMaxWidth);
  config->vocab_size = file.require_uint(keys.vocab_size, kMaxTokens);
  config->n_heads = file.require_uint(keys.n_heads, kMaxHeads);
  config->head_dim_given = file.find(keys.head_dim) != nullptr;
  if (config->head_dim_given) {
    config->head_dim = file.require_uint(keys.head_dim, kMaxHeads);
  } else if (config->dim % config->n_heads != 0) {
    file.refuse(keys.n_heads,
                fmt::format("= {} does not divide {} = {}", config->n_heads, keys.dim, config->dim));
  } else {
    config->head_dim = config->dim / config->n_heads;
  }
  if (config->head_dim % 2 != 0 || config->head_dim > kMaxHeadDim) {
    file.refuse(config->head_dim_given ? keys.head_dim : keys.n_heads,
                fmt::format("gives heads of {} elements; supported is an even number up to {}",
                            config->head_dim, kMaxHeadDim));
  }
  config->n_kv_heads = file.uint_or(keys.n_kv_heads, config->n_heads, kMaxHeads);
  if (config->n_heads % config->n_kv_heads != 0) {
    file.refuse(keys.n_kv_heads, fmt::format("= {} does not divide {} = {}", config->n_kv_heads, keys.n_heads,
                                             config->n_heads));
  }
  if (uint64_t{config->n_heads} * config->head_dim > kMaxWidth) {
    file.refuse(keys.n_heads, fmt::format("= {} heads of {} elements are more than {}", config->n_heads,
                                          config->head_dim, kMaxWidth));
  }
  if (file.find("sliding_window") != nullptr) {
    config->sliding_window = file.require_uint("sliding_window", std::numeric_limits<uint32_t>::max());
  }
}

// theta: null for `fallback`.
double rope_base(const ConfigFile& file, const Json* theta, double fallback) {
  const double base = theta == nullptr ? fallback : file.positive("rope_theta", theta);
  if (base < 1) file.refuse("rope_theta", fmt::format("must be at least 1, found {}", base));
  return base;
}

void read_hugging_face(const ConfigFile& file, ModelConfig* config) {
  config->context_length = file.require_uint("max_position_embeddings", kMaxTokens);
  config->rms_norm_eps = file.positive("rms_norm_eps", file.find("rms_norm_eps"));
  config->tied = file.bool_or("tie_word_embeddings", false);
  // transformers 5 keeps the base inside rope_parameters; before, an absent one meant 10000.
  const Json* theta = file.find("rope_theta");
  const Json* parameters = file.find("rope_parameters");
  if (theta == nullptr && parameters != nullptr) theta = parameters->find("rope_theta");
  config->rope_theta = rope_base(file, theta, 10000.0);
  // Only kept for other programs: one that no token has (-1, and some fine-tunes' vocab_size) is dropped.
  const Json* pad = file.find("pad_token_id");
  if (pad != nullptr && pad->as_uint() != nullptr && *pad->as_uint() < config->vocab_size) {
    config->pad_token_id = static_cast<uint32_t>(*pad->as_uint());
  }
}

void read_mistral(const ConfigFile& file, ModelConfig* config) {
  constexpr uint32_t kContextLength = 32768;  // what Mistral trained; older files do not say
  config->context_length = file.uint_or("max_position_embeddings", kContextLength, kMaxTokens);
  config->rms_norm_eps = file.positive("norm_eps", file.find("norm_eps"));
  config->tied = file.bool_or("tied_embeddings", false);
  const Json* theta = file.find("rope_theta");
  const double fallback = config->sliding_window ? 1e4 : 1e6;
  config->rope_theta = rope_base(file, theta, fallback);
}

}  // namespace

const ConfigKeys& config_keys(ConfigDialect dialect) noexcept {
  return dialect == ConfigDialect::kHuggingFace ? kHuggingFaceKeys : kMistralKeys;
}

ModelConfig read_model_config(const Json& json, ConfigDialect dialect, const std::string& path) {
  const ConfigFile file(json, path);
  ModelConfig config;
  config.dialect = dialect;
  config.path = path;
  if (dialect == ConfigDialect::kHuggingFace) check_architecture(file);
  file.refuse_unsupported();
  read_sizes(file, &config);
  if (dialect == ConfigDialect::kHuggingFace) {
    read_hugging_face(file, &config);
  } else {
    read_mistral(file, &config);
  }
  return config;
}

}  // namespace quern
