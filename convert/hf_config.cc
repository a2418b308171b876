#include "convert/hf_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string_view>

#include "convert/config_file.h"
#include "convert/model_export.h"
#include "quant/utf8.h"

namespace quern {
namespace {

constexpr uint64_t kMaxLayers = 512;
constexpr uint64_t kMaxWidth = 1u << 20;
constexpr uint64_t kMaxHeads = 1u << 16, kMaxHeadDim = 1024;
constexpr uint64_t kMaxTokens = 1u << 24;  // of a vocabulary or a context

constexpr ConfigKeys kHuggingFaceKeys = {"hidden_size",         "intermediate_size",   "num_hidden_layers",
                                         "num_attention_heads", "num_key_value_heads", "head_dim",
                                         "vocab_size",          "tie_word_embeddings"};
constexpr ConfigKeys kGpt2Keys = {"n_embd", "n_inner",  "n_layer",    "n_head",
                                  "n_head", "head_dim", "vocab_size", "tie_word_embeddings"};
constexpr ConfigKeys kMistralKeys = {"dim",        "hidden_dim", "n_layers",   "n_heads",
                                     "n_kv_heads", "head_dim",   "vocab_size", "tied_embeddings"};

constexpr const char* kOldHiddenKey = "block_ff_dim";  // LFM2's first name of intermediate_size

// Say that matrices have biases; whether those change anything, the tensors tell.
constexpr std::string_view kBiasKeys[] = {"attention_bias", "qkv_bias",   "conv_bias", "mlp_bias",
                                          "use_bias",       "use_biases", "bias"};

// What transformers and others call the trained context, the usual name first.
constexpr std::string_view kContextKeys[] = {"max_position_embeddings", "n_positions", "n_ctx",
                                             "max_sequence_length",     "max_seq_len", "seq_length",
                                             "model_max_length"};

// A name in any case: "LLaMAForCausalLM" was the first spelling.
const CheckpointModel* find_family(const Json& name, std::string_view CheckpointModel::*key) {
  if (name.as_string() == nullptr) return nullptr;
  const std::span<const CheckpointModel> models = checkpoint_models();
  const auto found = std::find_if(models.begin(), models.end(), [&](const CheckpointModel& family) {
    return lower_ascii(family.*key) == lower_ascii(*name.as_string());
  });
  return found == models.end() ? nullptr : &*found;
}

std::string supported(std::string_view CheckpointModel::*key) {
  std::string names;
  for (const CheckpointModel& family : checkpoint_models())
    names += fmt::format("{}{}", names.empty() ? "" : ", ", family.*key);
  return names;
}

const CheckpointModel& read_family(const ConfigFile& file) {
  const Json* architectures = file.find("architectures");
  if (architectures != nullptr && architectures->as_array() != nullptr && architectures->size() == 0)
    architectures = nullptr;  // as null
  const Json* model_type = file.find("model_type");
  if (architectures == nullptr && model_type == nullptr) file.refuse("architectures", "is missing");
  const CheckpointModel *by_name = nullptr, *by_type = nullptr;
  if (architectures != nullptr) {
    const Json::Array* array = architectures->as_array();
    const Json& name = array != nullptr && array->size() == 1 ? array->front() : *architectures;
    by_name = find_family(name, &CheckpointModel::architecture);
    if (by_name == nullptr)
      file.refuse("architectures", fmt::format("names {}, which is not supported (supported: {})",
                                               name.describe(), supported(&CheckpointModel::architecture)));
  }
  if (model_type != nullptr) {
    by_type = find_family(*model_type, &CheckpointModel::model_type);
    if (by_type == nullptr)
      file.refuse("model_type", fmt::format("= {} is not supported (supported: {})", model_type->describe(),
                                            supported(&CheckpointModel::model_type)));
  }
  if (by_name != nullptr && by_type != nullptr && by_name != by_type)
    file.note(fmt::format("architectures names {} and model_type is {}: architectures counts",
                          by_name->architecture, by_type->model_type));
  return by_name != nullptr ? *by_name : *by_type;
}

// 0 says, like null, that there is none.
std::optional<uint32_t> read_window(const ConfigFile& file) {
  constexpr std::string_view key = "sliding_window";
  const Json* window = file.find(key);
  if (window == nullptr || window->as_number() == 0.0) return std::nullopt;
  return file.require_uint(key, std::numeric_limits<uint32_t>::max());
}

// transformers 5 keeps the base in a description of rotations, which may be one for each kind of layers, and
// such descriptions under two names.
bool is_stated(const Json& json, std::string_view key) {
  constexpr std::string_view kDescriptions[] = {"rope_scaling", "rope_parameters"};
  if (key == "rope_parameters")
    return std::any_of(std::begin(kDescriptions), std::end(kDescriptions),
                       [&](std::string_view name) { return json[name].size() != 0; });
  if (key == "rope_theta")
    return !json[key].is_null() ||
           std::any_of(std::begin(kDescriptions), std::end(kDescriptions), [&](std::string_view name) {
             return json[name].find(key) != nullptr || json[name]["full_attention"].find(key) != nullptr;
           });
  return json.find(key) != nullptr;  // null is a statement: no window
}

// The configuration with what its kind takes for the keys that it leaves out.
Json with_defaults(const ConfigFile& file, const Json& json, const CheckpointModel& model) {
  Json::Object members = *json.as_object();
  std::string taken;
  for (const auto& [key, value] : model.defaults) {
    if (is_stated(json, key)) continue;
    std::erase_if(members, [name = key](const JsonMember& member) { return member.key == name; });
    members.push_back({std::string(key), parse_json(value, std::string(model.architecture))});
    taken += fmt::format("{}{} = {}", taken.empty() ? "" : ", ", key, value);
  }
  if (!taken.empty())
    file.note(fmt::format("{} stand for missing keys, as in transformers' {}", taken, model.architecture));
  return Json(std::move(members));
}

// The sizes, which both dialects have under different keys.
void read_sizes(const ConfigFile& file, ModelConfig* config) {
  const ConfigKeys& usual = config_keys(config->dialect);
  const bool is_gpt2 = config->dialect == ConfigDialect::kHuggingFace && file.find(usual.dim) == nullptr &&
                       file.find(kGpt2Keys.dim) != nullptr;
  const ConfigKeys& keys = is_gpt2 ? kGpt2Keys : usual;
  config->n_layers = file.require_uint(keys.n_layers, kMaxLayers);
  config->dim = file.require_uint(keys.dim, kMaxWidth);
  const bool is_old_lfm2 = file.find(keys.hidden_dim) == nullptr && file.find(kOldHiddenKey) != nullptr;
  config->hidden_dim = is_gpt2 ? file.uint_or(keys.hidden_dim, 4 * config->dim, kMaxWidth)
                               : file.require_uint(is_old_lfm2 ? kOldHiddenKey : keys.hidden_dim, kMaxWidth);
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
  for (const std::string_view key : kBiasKeys) {
    if (file.bool_or(key, false) && config->bias_key.empty()) config->bias_key = key;
  }
}

// theta: null for `fallback`.
double rope_base(const ConfigFile& file, const Json* theta, double fallback) {
  const double base = theta == nullptr ? fallback : file.positive("rope_theta", theta);
  if (base < 1) file.refuse("rope_theta", fmt::format("must be at least 1, found {}", base));
  return base;
}

// transformers 5 keeps the base inside rope_parameters (of old: rope_scaling), and reads it there first.
const Json* find_rope_theta(const ConfigFile& file) {
  const Json* counts = nullptr;
  std::string_view where;
  const auto take = [&](const Json* theta, std::string_view key) {
    if (theta == nullptr || theta->is_null()) return;
    if (counts == nullptr) {
      counts = theta;
      where = key;
    } else if (theta->as_number() != counts->as_number()) {
      file.note(fmt::format("rope_theta is {} in {} and {} {}: {} counts", counts->describe(), where,
                            theta->describe(), key.empty() ? "outside of it" : fmt::format("in {}", key),
                            counts->describe()));
    }
  };
  for (const char* key : {"rope_scaling", "rope_parameters"})
    if (const Json* parameters = file.find(key)) take(parameters->find("rope_theta"), key);
  take(file.find("rope_theta"), "");
  return counts;
}

uint32_t read_context_length(const ConfigFile& file) {
  for (const std::string_view key : kContextKeys) {
    if (file.find(key) == nullptr) continue;
    const uint32_t length = file.require_uint(key, kMaxTokens);
    if (key != kContextKeys[0])
      file.note(fmt::format("{} is missing: {} = {} stands for it", kContextKeys[0], key, length));
    return length;
  }
  file.refuse(kContextKeys[0], "is missing");
}

double read_epsilon(const ConfigFile& file) {
  constexpr std::string_view kKeys[] = {"rms_norm_eps", "layer_norm_eps", "norm_eps", "norm_epsilon",
                                        "layer_norm_epsilon"};
  for (const std::string_view key : kKeys)
    if (const Json* value = file.find(key)) return file.positive(key, value);
  file.refuse(kKeys[0], "is missing");
}

void read_hugging_face(const ConfigFile& file, const CheckpointModel& model, ModelConfig* config) {
  config->context_length = read_context_length(file);
  config->rms_norm_eps = read_epsilon(file);
  config->tied = file.bool_or(kHuggingFaceKeys.tied, model.tied_by_default);
  const Json* guessing = file.find("num_nextn_predict_layers");
  if (guessing != nullptr && guessing->as_number() != 0.0)
    config->n_guessing_layers = file.require_uint("num_nextn_predict_layers", kMaxLayers);
  config->rope_theta = rope_base(file, find_rope_theta(file), 10000.0);
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
  config->tied = file.bool_or(kMistralKeys.tied, false);
  const Json* theta = file.find("rope_theta");
  const double fallback = config->sliding_window ? 1e4 : 1e6;
  config->rope_theta = rope_base(file, theta, fallback);
}

// Of a config.json in which nothing is missing that its kind has a default for.
ModelConfig read_model(const ConfigFile& file, const CheckpointModel& model, const std::string& path) {
  ModelConfig config;
  config.path = path;
  if (model.has_window) config.sliding_window = read_window(file);
  read_sizes(file, &config);
  read_hugging_face(file, model, &config);
  ModelExport out(file, config);
  model.describe(out);
  if (!model.has_window && !out.metadata().contains(out.architecture() + ".attention.sliding_window") &&
      read_window(file))
    file.note(
        fmt::format("sliding_window = {} is ignored: a {} has none", *read_window(file), model.architecture));
  file.refuse_unsupported(config.sliding_window.has_value());
  config.architecture = out.architecture();
  config.metadata = std::move(out.metadata());
  config.tensors = out.take_tensors();
  return config;
}

}  // namespace

const ConfigKeys& config_keys(ConfigDialect dialect) noexcept {
  return dialect == ConfigDialect::kHuggingFace ? kHuggingFaceKeys : kMistralKeys;
}

ModelConfig read_model_config(const Json& json, ConfigDialect dialect, const std::string& path,
                              const Notice& notice) {
  const ConfigFile file(json, path, notice);
  ModelConfig config;
  config.dialect = dialect;
  config.path = path;
  if (dialect == ConfigDialect::kMistral) {
    config.sliding_window = read_window(file);
    file.refuse_unsupported(config.sliding_window.has_value());
    read_sizes(file, &config);
    read_mistral(file, &config);
    return config;
  }
  const CheckpointModel& model = read_family(file);
  const Json whole = with_defaults(file, json, model);
  return read_model(ConfigFile(whole, path, notice), model, path);
}

}  // namespace quern
