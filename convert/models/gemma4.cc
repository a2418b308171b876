// Gemma 4: layers with a window have heads of another size; norms are stored as they are.
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {
namespace {

// What layers without a window have of their own.
struct GlobalSizes {
  uint32_t head_dim, n_kv_heads;
};

// global_head_dim and num_global_key_value_heads, or, as transformers writes them, per_layer_config.
GlobalSizes global_sizes(ModelExport& out, const std::vector<bool>& windowed, bool values_are_keys) {
  const uint32_t usual_heads = out.sizes.n_kv_heads;
  const Json* layers = out.config.find("per_layer_config");
  if (layers == nullptr || layers->as_object() == nullptr) {
    const uint32_t heads = out.config.uint_or("num_global_key_value_heads", usual_heads, 1 << 16);
    return {out.config.uint_or("global_head_dim", 512, 1024), values_are_keys ? heads : usual_heads};
  }
  out.config.find("global_head_dim");
  out.config.find("num_global_key_value_heads");
  std::optional<GlobalSizes> all;
  for (size_t i = 0; i < windowed.size(); ++i) {
    const Json* layer = layers->find(std::to_string(i));
    GlobalSizes own{out.sizes.head_dim, usual_heads};
    if (layer != nullptr && layer->as_object() != nullptr)
      for (const auto& [key, value] : *layer->as_object()) {
        const uint64_t* number = value.as_uint();
        uint32_t* const size = key == "head_dim"              ? &own.head_dim
                               : key == "num_key_value_heads" ? &own.n_kv_heads
                                                              : nullptr;
        if (size == nullptr || number == nullptr || *number < 1 || *number > 1024)
          out.config.refuse("per_layer_config", "holds " + layer->describe() + ", which is not supported");
        *size = static_cast<uint32_t>(*number);
      }
    if (windowed[i] && own.head_dim == out.sizes.head_dim && own.n_kv_heads == usual_heads) continue;
    if (windowed[i] || (all && (all->head_dim != own.head_dim || all->n_kv_heads != own.n_kv_heads)))
      out.config.refuse("per_layer_config",
                        fmt::format("gives layer {} sizes that others of its kind have not", i));
    all = own;
  }
  return all.value_or(GlobalSizes{out.sizes.head_dim, usual_heads});
}

// Of layers without a window: `part` of the pairs turn, `factor` times slower. Of those with one: all.
struct Rotation {
  double base = 1e6, window_base = 1e4, part = 0.25, factor = 1;
};

Rotation read_rotation(ModelExport& out) {
  Rotation rotation;
  constexpr const char* kKey = "rope_parameters";
  const Json* parameters = out.config.find(kKey);
  if (parameters == nullptr) return rotation;
  rotation.part = 1;  // what transformers takes where the maps are there
  const auto read = [&](const char* kind, const char* type, double* base, double* part, double* factor) {
    const Json* map = parameters->find(kind);
    if (map == nullptr || map->as_object() == nullptr)
      out.config.refuse(kKey, fmt::format("= {} must hold {}", parameters->describe(), kind));
    const Json& stated = map->find("rope_type") != nullptr ? (*map)["rope_type"] : (*map)["type"];
    const std::string found = stated.as_string() != nullptr ? *stated.as_string() : "default";
    if (found != type)
      out.config.refuse(kKey, fmt::format("holds {} in {}: expected \"{}\"", stated.describe(), kind, type));
    for (const auto& [key, value] : *map->as_object()) {
      double* const into = key == "rope_theta"              ? base
                           : key == "partial_rotary_factor" ? part
                           : key == "factor"                ? factor
                                                            : nullptr;
      if (key == "rope_type" || key == "type" || value.is_null()) continue;
      const std::optional<double> number = value.as_number();
      if (into == nullptr || !number || !(*number > 0) || !std::isfinite(*number))
        out.config.refuse(kKey, fmt::format("holds {} = {} in {}, which is not supported", printable(key),
                                            value.describe(), kind));
      *into = *number;
    }
  };
  double whole = 1, none = 1;
  read("full_attention", "proportional", &rotation.base, &rotation.part, &rotation.factor);
  read("sliding_attention", "default", &rotation.window_base, &whole, &none);
  if (rotation.part > 1 || whole != 1 || none != 1)
    out.config.refuse(kKey, fmt::format("= {}: full_attention's partial_rotary_factor must be at most 1, and "
                                        "sliding_attention can have neither one nor a factor",
                                        parameters->describe()));
  return rotation;
}

void experts(ModelExport& out, uint32_t n_experts, uint64_t rows) {
  const uint64_t dim = out.dim.value;
  const auto whole = [&](const char* source, const char* gguf, const Shape& shape) {
    out.made({out.source_name(source)}, shape, out.gguf_name(gguf), shape,
             picked_rows([](uint64_t row) { return row; }));
  };
  const auto values = [&](const char* source, const char* gguf, uint64_t n) {
    out.made({out.source_name(source)}, {n}, out.gguf_name(gguf), {n},
             picked_elements([](uint64_t e) { return e; }));
  };
  out.matrix("router.proj", "ffn_gate_inp", {n_experts, "num_experts"}, out.dim);
  values("router.scale", "ffn_gate_inp.scale", dim);
  values("router.per_expert_scale", "ffn_down_exps.scale", n_experts);
  whole("experts.gate_up_proj", "ffn_gate_up_exps.weight", {n_experts, 2 * rows, dim});
  whole("experts.down_proj", "ffn_down_exps.weight", {n_experts, dim, rows});
  out.vector("post_feedforward_layernorm_1", "post_ffw_norm_1", out.dim);
  out.vector("pre_feedforward_layernorm_2", "pre_ffw_norm_2", out.dim);
  out.vector("post_feedforward_layernorm_2", "post_ffw_norm_2", out.dim);
}

}  // namespace

void describe_gemma4(ModelExport& out) {
  out.begin("gemma4");
  out.require_activation({"gelu_pytorch_tanh"});
  const bool values_are_keys = out.config.bool_or("attention_k_eq_v", false),
             has_experts = out.config.bool_or("enable_moe_block", false);
  // "vision": images' tokens see one another. Text is causal with it and without.
  const Json* both_ways = out.config.find("use_bidirectional_attention");
  if (both_ways != nullptr && !(both_ways->as_bool() != nullptr && !*both_ways->as_bool()) &&
      !(both_ways->as_string() != nullptr && *both_ways->as_string() == "vision"))
    out.config.refuse(
        "use_bidirectional_attention",
        fmt::format("= {} is not supported: expected null, false or \"vision\"", both_ways->describe()));
  const uint32_t n_layers = out.n_layers();
  const double shared = out.number("num_kv_shared_layers").value_or(0);
  if (!(shared >= 0 && shared < n_layers && shared == std::floor(shared)))
    out.config.refuse("num_kv_shared_layers",
                      fmt::format("must be an integer from 0 to {}, found {}", n_layers - 1, shared));
  const uint32_t first_shared = n_layers - static_cast<uint32_t>(shared);
  const bool double_wide = out.config.bool_or("use_double_wide_mlp", false) && first_shared < n_layers;
  const ModelExport::Size usual_hidden = out.hidden,
                          wide_hidden = {2 * out.hidden.value, "2 * " + out.hidden.words};
  if (double_wide) {
    std::vector<int32_t> lengths(n_layers, static_cast<int32_t>(usual_hidden.value));
    std::fill(lengths.begin() + first_shared, lengths.end(), static_cast<int32_t>(wide_hidden.value));
    out.metadata().set_int32s("gemma4.feed_forward_length", lengths);
  }
  if (const auto cap = out.number("final_logit_softcapping")) out.f32("final_logit_softcapping", *cap);
  std::vector<bool> windowed = out.window_layers(6);
  windowed.back() = false;  // whatever its type is, as in transformers
  out.bools("attention.sliding_window_pattern", windowed);
  const auto [global, global_kv_heads] = global_sizes(out, windowed, values_are_keys);
  if (global % 2 != 0 || global > 1024)
    out.config.refuse("global_head_dim", fmt::format("= {}: supported is an even number up to 1024", global));
  if (out.sizes.n_heads % global_kv_heads != 0)
    out.config.refuse(
        "num_global_key_value_heads",
        fmt::format("= {} does not divide num_attention_heads = {}", global_kv_heads, out.sizes.n_heads));
  if (global_kv_heads != out.sizes.n_kv_heads) {
    std::vector<int32_t> kv_heads;
    kv_heads.reserve(windowed.size());
    for (const bool window : windowed)
      kv_heads.push_back(static_cast<int32_t>(window ? out.sizes.n_kv_heads : global_kv_heads));
    out.metadata().set_int32s("gemma4.attention.head_count_kv", kv_heads);
  }
  out.u32("attention.key_length", global);
  out.u32("attention.value_length", global);
  out.u32("attention.key_length_swa", out.sizes.head_dim);
  out.u32("attention.value_length_swa", out.sizes.head_dim);
  out.u32("attention.shared_kv_layers", n_layers - first_shared);

  // Layers without a window rotate a part of the pairs, by the frequencies of all: others by (almost)
  // nothing.
  const Rotation rotation = read_rotation(out);
  const auto n_rotated = static_cast<size_t>(rotation.part * global / 2);
  out.f32("rope.freq_base", rotation.base);
  out.f32("rope.freq_base_swa", rotation.window_base);
  out.u32("rope.dimension_count", global);
  out.u32("rope.dimension_count_swa", out.sizes.head_dim);
  std::vector<float> factors(global / 2, 1e30f);
  std::fill_n(factors.begin(), n_rotated, static_cast<float>(rotation.factor));
  out.computed("rope_freqs.weight", std::move(factors));

  uint32_t n_experts = 0, expert_rows = 0;
  for (const char* key : {"num_experts", "top_k_experts", "moe_intermediate_size"}) out.config.find(key);
  if (has_experts) {
    n_experts = out.config.require_uint("num_experts", 1 << 12);
    expert_rows = out.config.require_uint("moe_intermediate_size", 1 << 20);
    out.u32("expert_count", n_experts);
    out.u32("expert_used_count", out.config.require_uint("top_k_experts", n_experts));
    out.u32("expert_feed_forward_length", expert_rows);
  }

  const uint32_t per_layer = static_cast<uint32_t>(out.number("hidden_size_per_layer_input").value_or(0));
  out.u32("embedding_length_per_layer_input", per_layer);
  out.ends();
  const ModelExport::Size input{per_layer, "hidden_size_per_layer_input"},
      all{uint64_t{per_layer} * out.n_layers(), "num_hidden_layers * hidden_size_per_layer_input"};
  if (per_layer != 0) {
    out.matrix("embed_tokens_per_layer", "per_layer_token_embd", out.vocab, all);
    out.matrix("per_layer_model_projection", "per_layer_model_proj", all, out.dim);
    out.vector("per_layer_projection_norm", "per_layer_proj_norm", input);
  }
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    const uint32_t head_dim = windowed[i] ? out.sizes.head_dim : global;
    out.head = {head_dim, "the layer's head_dim"};
    out.query = {uint64_t{out.sizes.n_heads} * head_dim, "num_attention_heads * the layer's head_dim"};
    out.key_value = {uint64_t{windowed[i] ? out.sizes.n_kv_heads : global_kv_heads} * head_dim,
                     "the layer's num_key_value_heads * its head_dim"};
    out.vector("input_layernorm", "attn_norm", out.dim);
    if (i < first_shared) {
      out.attention(/*permuted=*/false, /*values_are_keys=*/values_are_keys && !windowed[i]);
      out.head_norms();
    } else {
      out.matrix("self_attn.q_proj", "attn_q", out.query, out.dim);
      out.bias("self_attn.q_proj", "attn_q", out.query);
      out.matrix("self_attn.o_proj", "attn_output", out.dim, out.query);
      out.bias("self_attn.o_proj", "attn_output", out.dim);
      out.vector("self_attn.q_norm", "attn_q_norm", out.head);
    }
    out.vector("post_attention_layernorm", "post_attention_norm", out.dim);
    out.vector("pre_feedforward_layernorm", "ffn_norm", out.dim);
    out.hidden = double_wide && i >= first_shared ? wide_hidden : usual_hidden;
    out.gated_feed_forward();
    out.vector("post_feedforward_layernorm", "post_ffw_norm", out.dim);
    if (has_experts) experts(out, n_experts, expert_rows);
    out.made({out.source_name("layer_scalar")}, {1}, out.gguf_name("layer_output_scale.weight"), {1},
             picked_elements([](uint64_t e) { return e; }));
    if (per_layer == 0) continue;
    out.matrix("per_layer_input_gate", "inp_gate", input, out.dim);
    out.matrix("per_layer_projection", "proj", out.dim, input);
    out.vector("post_per_layer_input_norm", "post_norm", out.dim);
  }
}

}  // namespace quern
