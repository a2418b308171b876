#include "convert/model_export.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "quant/utf8.h"

namespace quern {

void ModelExport::begin(std::string_view name, std::string_view epsilon) {
  architecture_ = name;
  const ConfigKeys& keys = config_keys(sizes.dialect);
  const auto heads = [&](const char* count) {
    return sizes.head_dim_given ? fmt::format("{} * {}", count, keys.head_dim)
                                : fmt::format("{} * {} / {}", count, keys.dim, keys.n_heads);
  };
  dim = {sizes.dim, keys.dim};
  hidden = {sizes.hidden_dim, keys.hidden_dim};
  query = {uint64_t{sizes.n_heads} * sizes.head_dim, heads(keys.n_heads)};
  key_value = {uint64_t{sizes.n_kv_heads} * sizes.head_dim, heads(keys.n_kv_heads)};
  vocab = {sizes.vocab_size, keys.vocab_size};
  head = {sizes.head_dim, sizes.head_dim_given ? keys.head_dim : heads("1")};

  u32("block_count", sizes.n_layers);
  u32("context_length", sizes.context_length);
  u32("embedding_length", sizes.dim);
  u32("feed_forward_length", sizes.hidden_dim);
  u32("attention.head_count", sizes.n_heads);
  u32("attention.head_count_kv", sizes.n_kv_heads);
  f32("rope.freq_base", sizes.rope_theta);
  f32(epsilon, sizes.rms_norm_eps);
  if (sizes.head_dim_given) {
    u32("attention.key_length", sizes.head_dim);
    u32("attention.value_length", sizes.head_dim);
  }
  u32("vocab_size", sizes.vocab_size);
}

void ModelExport::u32_of_quern(std::string_view key, uint64_t value) {
  metadata_.set_u32("quern." + std::string(key), static_cast<uint32_t>(value));
}

void ModelExport::f32_of_quern(std::string_view key, double value) {
  metadata_.set_f32("quern." + std::string(key), static_cast<float>(value));
}

std::optional<double> ModelExport::number(std::string_view key) const {
  const Json* value = config.find(key);
  if (value == nullptr) return std::nullopt;
  const std::optional<double> number = value->as_number();
  if (!number || !std::isfinite(*number)) config.refuse(key, "must be a number, found " + value->describe());
  return *number;
}

void ModelExport::require_activation(std::initializer_list<std::string_view> names) {
  for (const char* key : {"hidden_activation", "hidden_act", "activation_function"}) {
    const Json* value = config.find(key);
    if (value == nullptr) continue;
    const std::string name = value->as_string() != nullptr ? lower_ascii(*value->as_string()) : "";
    if (std::find(names.begin(), names.end(), name) == names.end())
      config.refuse(key, fmt::format("= {} is not supported here: expected one of {}", value->describe(),
                                     fmt::join(names, ", ")));
  }
}

void ModelExport::require(std::string_view key, bool value, bool fallback) {
  if (config.bool_or(key, fallback) != value)
    config.refuse(key, fmt::format("is {}, which is not supported", !value));
}

std::vector<bool> ModelExport::window_layers(uint32_t default_period, bool names_period) {
  std::vector<bool> windowed(sizes.n_layers);
  const Json* window = config.find("sliding_window");
  const Json* types = config.find("layer_types");
  if (types == nullptr) {
    const uint32_t period =
        names_period ? config.uint_or("sliding_window_pattern", default_period, 1 << 16) : default_period;
    for (size_t i = 0; i < windowed.size(); ++i)
      windowed[i] = window != nullptr && period != 0 && (i + 1) % period != 0;
  } else {
    const Json::Array* array = types->as_array();
    if (array == nullptr || array->size() != windowed.size())
      config.refuse("layer_types", fmt::format("must be an array of {} kinds of attention, found {}",
                                               windowed.size(), types->describe()));
    for (size_t i = 0; i < windowed.size(); ++i) {
      const std::string* type = (*array)[i].as_string();
      if (type == nullptr || (*type != "sliding_attention" && *type != "full_attention"))
        config.refuse("layer_types", "holds " + (*array)[i].describe() + ", which is not supported here");
      windowed[i] = *type == "sliding_attention";
    }
  }
  if (std::find(windowed.begin(), windowed.end(), true) == windowed.end()) return windowed;
  u32("attention.sliding_window", config.require_uint("sliding_window", UINT32_MAX));
  bool usual = true;
  for (size_t i = 0; i < windowed.size(); ++i)
    usual = usual && windowed[i] == (default_period != 0 && (i + 1) % default_period != 0);
  if (!usual) bools("attention.sliding_window_pattern", windowed);
  return windowed;
}

namespace {

// rope_type, of old type: null where a description of rotations has neither.
const Json* rope_type_of(const Json& parameters) {
  const Json* type = parameters.find("rope_type");
  return type != nullptr && !type->is_null() ? type : parameters.find("type");
}

// Whether two descriptions turn positions in the same way. The base is another statement (rope_base).
bool same_rotation(const Json& a, const Json& b) {
  const auto text = [](const Json* value, std::string_view absent) {
    return value == nullptr || value->is_null() ? std::string(absent) : value->describe();
  };
  if (text(rope_type_of(a), R"("default")") != text(rope_type_of(b), R"("default")")) return false;
  const auto covers = [&](const Json& one, const Json& other) {
    for (const auto& [key, value] : *one.as_object())
      if (key != "rope_theta" && key != "rope_type" && key != "type" &&
          text(&value, "") != text(other.find(key), ""))
        return false;
    return true;
  };
  return covers(a, b) && covers(b, a);
}

}  // namespace

uint32_t ModelExport::rope(const RopeRules& rules) {
  // As in transformers 5, rope_scaling counts where a file has both: who edits a configuration writes that.
  const Json *parameters = nullptr, *other = nullptr;
  std::string_view where;
  for (const char* key : {"rope_parameters", "rope_scaling"})
    if (const Json* found = config.find(key); found != nullptr && found->size() != 0) {
      other = std::exchange(parameters, found);
      where = key;
    }
  for (const Json** description : {&parameters, &other})
    if (!rules.layer_type.empty() && *description != nullptr)
      if (const Json* own = (*description)->find(rules.layer_type)) *description = own;
  if (other != nullptr && parameters->as_object() != nullptr && other->as_object() != nullptr &&
      !same_rotation(*parameters, *other))
    config.note(fmt::format("rope_scaling is {} and rope_parameters {}: rope_scaling counts",
                            parameters->describe(), other->describe()));
  const auto member = [&](std::string_view key) -> const Json* {
    const Json* value = parameters == nullptr ? nullptr : parameters->find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  };
  const auto number_of = [&](std::string_view key, double fallback) {
    const Json* value = member(key);
    if (value == nullptr) return fallback;
    if (!value->as_number() || !(*value->as_number() > 0) || !std::isfinite(*value->as_number()))
      config.refuse(where, fmt::format("holds {} = {}: expected a number > 0", key, value->describe()));
    return *value->as_number();
  };
  std::vector<std::string_view> known = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
  const auto expect = [&](std::initializer_list<std::string_view> keys) {
    known.insert(known.end(), keys.begin(), keys.end());
  };
  if (rules.sections) expect({"mrope_section", "mrope_interleaved"});
  const Json* type_member = member("rope_type") != nullptr ? member("rope_type") : member("type");
  if (const Json* old = member("type"); old != nullptr && old->describe() != type_member->describe())
    config.note(fmt::format("{} holds rope_type {} and type {}: rope_type counts", where,
                            type_member->describe(), old->describe()));
  std::string type = type_member == nullptr                ? "default"
                     : type_member->as_string() != nullptr ? *type_member->as_string()
                                                           : "?";
  if (rules.longrope && (type == "su" || type == "yarn")) type = "longrope";  // its names of old

  const Json* other_base = other == nullptr ? nullptr : other->find("rope_theta");
  const double base =
      number_of("rope_theta", other_base == nullptr ? sizes.rope_theta
                                                    : other_base->as_number().value_or(sizes.rope_theta));
  f32("rope.freq_base", base);
  double part = number_of("partial_rotary_factor", rules.default_partial);
  for (const char* key : {"partial_rotary_factor", "rotary_pct"}) {
    const auto outer = number(key);
    if (outer && member("partial_rotary_factor") == nullptr)
      part = *outer;
    else if (outer && *outer != part)
      config.note(fmt::format("partial_rotary_factor is {} in {}, and {} is {}: {} counts", part, where, key,
                              *outer, part));
  }
  const uint32_t whole = rules.rotary_dim != 0 ? rules.rotary_dim : sizes.head_dim;
  const auto rotary_dim = static_cast<uint32_t>(static_cast<double>(whole) * part);
  if ((rotary_dim != whole && !rules.partial) || rotary_dim == 0 || rotary_dim > whole || rotary_dim % 2 != 0)
    config.refuse(
        member("partial_rotary_factor") != nullptr ? where : "partial_rotary_factor",
        fmt::format("turns {} of {} elements of a head, which is not supported here", rotary_dim, whole));
  u32("rope.dimension_count", rotary_dim);
  if (rules.sections) sections(where, member("mrope_section"), rotary_dim / 2);

  const double factor = number_of("factor", 1);
  const bool is_scaled = type == "linear" || type == "yarn" || type == "llama3";
  if (is_scaled && member("factor") == nullptr)
    config.refuse(where, "holds no factor: " + parameters->describe());
  // The context before scaling. Where an outer key says another one, that counts, as in transformers 5.
  const std::string original = "original_max_position_embeddings";
  const auto original_context = [&] {
    const double inner = number_of(original, sizes.context_length);
    if (config.find(original) == nullptr) return inner;
    const double outer = config.require_uint(original, UINT32_MAX);
    if (member(original) != nullptr && inner != outer)
      config.note(fmt::format("{} is {} in {} and {} outside of it: {} counts", original, inner, where, outer,
                              outer));
    return outer;
  };
  if (is_scaled && factor == 1 && member("attention_factor") == nullptr) {
    config.note(fmt::format("{} = {} changes nothing and is ignored", where, parameters->describe()));
    return rotary_dim;
  }
  if (type == "linear") {
    expect({"factor"});
    string("rope.scaling.type", "linear");
    f32("rope.scaling.factor", factor);
  } else if (type == "yarn") {
    expect({"factor", original, "beta_fast", "beta_slow", "truncate", "attention_factor", "mscale",
            "mscale_all_dim", "llama_4_scaling_beta"});
    if (rules.yarn_log_multiplier) expect({"max_position_embeddings"});  // the context once more
    string("rope.scaling.type", "yarn");
    f32("rope.scaling.factor", factor);
    u32("rope.scaling.original_context_length", static_cast<uint64_t>(original_context()));
    if (member("beta_fast") != nullptr) f32("rope.scaling.yarn_beta_fast", number_of("beta_fast", 32));
    if (member("beta_slow") != nullptr) f32("rope.scaling.yarn_beta_slow", number_of("beta_slow", 1));
    if (member("attention_factor") != nullptr)
      f32("rope.scaling.yarn_attn_factor", number_of("attention_factor", 1));
    // Zeros are as if they were not there.
    const auto multiplier_of = [&](std::string_view key) {
      return member(key) != nullptr && member(key)->as_number() == 0.0 ? 0.0 : number_of(key, 0);
    };
    const double mscale = multiplier_of("mscale"), all = multiplier_of("mscale_all_dim");
    if (rules.latents) {
      if (all != 0) f32("rope.scaling.yarn_log_multiplier", 0.1 * all);
      if (all != mscale && all != 0 && mscale != 0 && member("attention_factor") == nullptr)
        f32("rope.scaling.yarn_attn_factor",
            (0.1 * mscale * std::log(factor) + 1) / (0.1 * all * std::log(factor) + 1));
    } else if (rules.yarn_log_multiplier && mscale == 1) {
      if (all != 0) f32("rope.scaling.yarn_log_multiplier", all);
    } else if (mscale != 0 || all != 0) {
      config.refuse(where, "holds mscale, which is not supported here");
    }
    const Json* truncate = member("truncate");
    if ((truncate == nullptr || truncate->as_bool() == nullptr || *truncate->as_bool()) != rules.truncate)
      config.refuse(where, fmt::format("must hold truncate = {}, nothing else is supported", rules.truncate));
  } else if (type == "llama3") {
    expect({"factor", original, "low_freq_factor", "high_freq_factor"});
    const double low = number_of("low_freq_factor", 1), high = number_of("high_freq_factor", 4),
                 context = original_context();
    std::vector<float> factors;
    for (uint32_t i = 0; i < rotary_dim; i += 2) {
      const double wave = 2 * std::numbers::pi * std::pow(base, static_cast<double>(i) / rotary_dim);
      const double smooth = (context / wave - low) / (high - low);
      factors.push_back(static_cast<float>(wave < context / high  ? 1
                                           : wave > context / low ? factor
                                                                  : 1 / ((1 - smooth) / factor + smooth)));
    }
    computed("rope_freqs.weight", std::move(factors));
  } else if (type == "longrope" && rules.longrope) {
    expect({"factor", original, "long_factor", "short_factor", "attention_factor"});
    const double context = original_context(), scale = number_of("factor", sizes.context_length / context);
    u32("rope.scaling.original_context_length", static_cast<uint64_t>(context));
    f32("rope.scaling.attn_factor",
        number_of("attention_factor", scale > 1 ? std::sqrt(1 + std::log(scale) / std::log(context)) : 1));
    for (const char* which : {"long", "short"}) {
      const std::string key = fmt::format("{}_factor", which);
      const Json::Array* array = member(key) == nullptr ? nullptr : member(key)->as_array();
      if (array == nullptr || array->size() != rotary_dim / 2)
        config.refuse(where, fmt::format("must hold {}: an array of {} numbers", key, rotary_dim / 2));
      std::vector<float> factors;
      for (const Json& value : *array) {
        if (!value.as_number() || !(*value.as_number() > 0))
          config.refuse(where, fmt::format("holds {} in {}: expected numbers > 0", value.describe(), key));
        factors.push_back(static_cast<float>(*value.as_number()));
      }
      computed(fmt::format("rope_factors_{}.weight", which), std::move(factors));
    }
  } else if (type != "default") {
    config.refuse(
        where, fmt::format("= {} changes the model's function and is not supported", parameters->describe()));
  }
  if (parameters != nullptr && parameters->as_object() != nullptr)
    for (const auto& [key, value] : *parameters->as_object()) {
      const bool is_mine = std::find(known.begin(), known.end(), key) != known.end();
      const bool is_idle = type == "default" && key == "factor" && value.as_number() == 1.0;
      if (!is_mine && !is_idle && !value.is_null())
        config.refuse(where,
                      fmt::format("holds {} = {}, which changes the model's function and is not supported",
                                  printable(key), value.describe()));
    }
  return rotary_dim;
}

void ModelExport::sections(std::string_view where, const Json* given, uint32_t n_pairs) {
  std::vector<int32_t> counts = {11, 11, 10};  // of the published models
  if (given != nullptr) {
    counts.clear();
    uint64_t sum = 0;
    const Json::Array* array = given->as_array();
    for (size_t i = 0; array != nullptr && i < array->size(); ++i)
      if (const uint64_t* n = (*array)[i].as_uint(); n != nullptr && *n <= n_pairs) {
        counts.push_back(static_cast<int32_t>(*n));
        sum += *n;
      }
    if (array == nullptr || array->size() != 3 || counts.size() != 3 || sum != n_pairs)
      config.refuse(where, fmt::format("holds mrope_section = {}: expected 3 integers >= 0 whose sum is {}",
                                       given->describe(), n_pairs));
  }
  counts.push_back(0);  // GGUF's key has four
  metadata_.set_int32s(full("rope.dimension_sections"), counts);
}

std::string ModelExport::source_name(std::string_view name) const {
  if (!layer_) return model_prefix_ + std::string(name);
  return fmt::format("{}{}.{}", layers_prefix_, *layer_, name);
}

std::string ModelExport::gguf_name(std::string_view name) const {
  return layer_ ? fmt::format("blk.{}.{}", *layer_, name) : std::string(name);
}

DeclaredTensor& ModelExport::add(std::string source, std::string gguf, const std::vector<Size>& shape) {
  DeclaredTensor& tensor = tensors_.emplace_back();
  tensor.source = std::move(source);
  tensor.gguf = std::move(gguf);
  std::string words;
  for (const Size& size : shape) {
    tensor.shape.push_back(size.value);
    words += (words.empty() ? "" : ", ") + size.words;
  }
  tensor.shape_key = fmt::format("[{}]", words);
  return tensor;
}

void ModelExport::matrix(std::string_view source, std::string_view gguf, const Size& rows,
                         const Size& columns) {
  add(source_name(source) + ".weight", gguf_name(gguf) + ".weight", {rows, columns});
}

void ModelExport::vector(std::string_view source, std::string_view gguf, const Size& n) {
  add(source_name(source) + ".weight", gguf_name(gguf) + ".weight", {n});
}

void ModelExport::bias(std::string_view source, std::string_view gguf, const Size& n) {
  add(source_name(source) + ".bias", gguf_name(gguf) + ".bias", {n}).optional = true;
}

void ModelExport::permute_last(uint32_t n_heads) {
  DeclaredTensor& tensor = tensors_.back();
  if (tensor.shape.size() == 2) {
    tensor.permuted_heads = n_heads;
    return;
  }
  const auto head_dim = static_cast<uint32_t>(tensor.shape[0] / n_heads);
  tensor.make = permuted_elements(interleaved_row_map(n_heads, head_dim));
}

void ModelExport::change_last(TensorMaker make, Shape source_shape) {
  tensors_.back().make = std::move(make);
  tensors_.back().source_shape = std::move(source_shape);
}

void ModelExport::add_one_to_last() { tensors_.back().make = plus_one(); }

void ModelExport::change_norm_of_ends(const TensorMaker& make) {
  for (DeclaredTensor& tensor : tensors_)
    if (tensor.gguf == "output_norm.weight") tensor.make = make;
}

void ModelExport::stack(const std::vector<std::string>& sources, std::string_view gguf, const Size& n,
                        const Size& rows, const Size& columns) {
  DeclaredTensor& tensor = add(sources.front(), gguf_name(gguf) + ".weight", {n, rows, columns});
  tensor.more_sources.assign(sources.begin() + 1, sources.end());
  tensor.source_shape = {rows.value, columns.value};
  tensor.make = stacked(rows.value);
}

void ModelExport::made(std::vector<std::string> sources, Shape source_shape, std::string gguf, Shape shape,
                       TensorMaker make) {
  DeclaredTensor& tensor = tensors_.emplace_back();
  tensor.source = sources.front();
  tensor.more_sources.assign(sources.begin() + 1, sources.end());
  tensor.gguf = std::move(gguf);
  tensor.shape = std::move(shape);
  tensor.source_shape = std::move(source_shape);
  tensor.shape_key = "its shape";
  tensor.make = std::move(make);
}

void ModelExport::made_of_bytes(std::vector<std::string> sources, std::vector<Shape> shapes, std::string gguf,
                                Shape shape, TensorMaker make) {
  made(std::move(sources), {}, std::move(gguf), std::move(shape), std::move(make));
  tensors_.back().byte_shapes = std::move(shapes);
}

void ModelExport::computed(std::string gguf, std::vector<float> values) {
  DeclaredTensor& tensor = tensors_.emplace_back();
  tensor.gguf = std::move(gguf);
  tensor.shape = {values.size()};
  tensor.make = constant(std::move(values));
}

void ModelExport::ends(std::string_view norm, std::string_view gguf_norm) {
  layer(std::nullopt);
  matrix("embed_tokens", "token_embd", vocab, dim);
  vector(norm, gguf_norm, dim);
  add("lm_head.weight", "output.weight", {vocab, dim}).is_output = true;
}

void ModelExport::attention(bool permuted, bool values_are_keys) {
  const auto pair = [&](const char* source, const char* gguf, const Size& rows, uint32_t n_heads) {
    matrix(source, gguf, rows, dim);
    if (permuted && n_heads != 0) permute_last(n_heads);
    bias(source, gguf, rows);
    if (permuted && n_heads != 0) permute_last(n_heads);
  };
  pair("self_attn.q_proj", "attn_q", query, sizes.n_heads);
  pair("self_attn.k_proj", "attn_k", key_value, sizes.n_kv_heads);
  if (!values_are_keys) pair("self_attn.v_proj", "attn_v", key_value, 0);
  matrix("self_attn.o_proj", "attn_output", dim, query);
  bias("self_attn.o_proj", "attn_output", dim);
}

void ModelExport::head_norms() {
  vector("self_attn.q_norm", "attn_q_norm", head);
  vector("self_attn.k_norm", "attn_k_norm", head);
}

void ModelExport::gated_feed_forward(std::string_view module) {
  const auto name = [&](const char* what) { return fmt::format("{}.{}", module, what); };
  matrix(name("gate_proj"), "ffn_gate", hidden, dim);
  bias(name("gate_proj"), "ffn_gate", hidden);
  matrix(name("up_proj"), "ffn_up", hidden, dim);
  bias(name("up_proj"), "ffn_up", hidden);
  matrix(name("down_proj"), "ffn_down", dim, hidden);
  bias(name("down_proj"), "ffn_down", dim);
}

void ModelExport::experts(std::string_view module, uint64_t n_experts, const Size& rows,
                          const std::vector<std::string>& names) {
  const Size n{n_experts, "experts"};
  const auto of_all = [&](const std::string& what) {
    std::vector<std::string> sources;
    for (uint64_t i = 0; i < n_experts; ++i)
      sources.push_back(source_name(fmt::format("{}.experts.{}.{}.weight", module, i, what)));
    return sources;
  };
  matrix(fmt::format("{}.gate", module), "ffn_gate_inp", n, dim);
  stack(of_all(names[0]), "ffn_gate_exps", n, rows, dim);
  stack(of_all(names[1]), "ffn_up_exps", n, rows, dim);
  stack(of_all(names[2]), "ffn_down_exps", n, dim, rows);
}

void ModelExport::shared_expert(std::string_view module, const Size& rows) {
  matrix(fmt::format("{}.gate_proj", module), "ffn_gate_shexp", rows, dim);
  matrix(fmt::format("{}.up_proj", module), "ffn_up_shexp", rows, dim);
  matrix(fmt::format("{}.down_proj", module), "ffn_down_shexp", dim, rows);
}

}  // namespace quern
