// Gemma 4, dense: layers with a window have heads of another size; norms are stored as they are.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {
namespace {

// head_dim of the layers without a window: global_head_dim, or, as transformers writes it, per_layer_config.
uint32_t global_head_dim(ModelExport& out, const std::vector<bool>& windowed) {
  if (out.config.find("global_head_dim") != nullptr) return out.config.require_uint("global_head_dim", 1024);
  uint32_t head_dim = out.sizes.head_dim;
  const Json* layers = out.config.find("per_layer_config");
  if (layers == nullptr || layers->as_object() == nullptr) return head_dim;
  for (const auto& [index, layer] : *layers->as_object())
    for (const auto& [key, value] : *layer.as_object()) {
      const size_t i = static_cast<size_t>(std::strtoul(index.c_str(), nullptr, 10));
      const uint64_t* number = value.as_uint();
      if (key != "head_dim" || number == nullptr || *number < 2 || *number > 1024 || i >= windowed.size() ||
          windowed[i])
        out.config.refuse("per_layer_config", "holds " + layer.describe() + ", which is not supported");
      head_dim = static_cast<uint32_t>(*number);
    }
  return head_dim;
}

}  // namespace

void describe_gemma4(ModelExport& out) {
  out.begin("gemma4");
  out.require_activation({"gelu_pytorch_tanh"});
  out.require("attention_k_eq_v", false, false);
  out.require("enable_moe_block", false, false);
  out.require("use_bidirectional_attention", false, false);
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
  const std::vector<bool> windowed = out.window_layers(6);
  out.bools("attention.sliding_window_pattern", windowed);
  const uint32_t global = global_head_dim(out, windowed);
  out.u32("attention.key_length", global);
  out.u32("attention.value_length", global);
  out.u32("attention.key_length_swa", out.sizes.head_dim);
  out.u32("attention.value_length_swa", out.sizes.head_dim);
  out.u32("attention.shared_kv_layers", n_layers - first_shared);

  // Layers without a window rotate a part of the pairs, by the frequencies of all: others by (almost)
  // nothing.
  double base = 1e6, window_base = 1e4, part = 0.25;
  if (const Json* parameters = out.config.find("rope_parameters")) {
    const Json &full = (*parameters)["full_attention"], &window = (*parameters)["sliding_attention"];
    base = full["rope_theta"].as_number().value_or(base);
    window_base = window["rope_theta"].as_number().value_or(window_base);
    part = full["partial_rotary_factor"].as_number().value_or(part);
    if (full["rope_type"].as_string() == nullptr || *full["rope_type"].as_string() != "proportional" ||
        (window["rope_type"].as_string() != nullptr && *window["rope_type"].as_string() != "default"))
      out.config.refuse(
          "rope_parameters",
          "= " + parameters->describe() +
              " is not supported: expected proportional full_attention and default sliding_attention");
  }
  out.f32("rope.freq_base", base);
  out.f32("rope.freq_base_swa", window_base);
  out.u32("rope.dimension_count", global);
  out.u32("rope.dimension_count_swa", out.sizes.head_dim);
  std::vector<float> factors(global / 2, 1e30f);
  std::fill_n(factors.begin(), static_cast<size_t>(global * part / 2), 1.0f);
  out.computed("rope_freqs.weight", std::move(factors));

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
    out.key_value = {uint64_t{out.sizes.n_kv_heads} * head_dim, "num_key_value_heads * the layer's head_dim"};
    out.vector("input_layernorm", "attn_norm", out.dim);
    if (i < first_shared) {
      out.attention(/*permuted=*/false);
      out.head_norms();
    } else {
      out.matrix("self_attn.q_proj", "attn_q", out.query, out.dim);
      out.matrix("self_attn.o_proj", "attn_output", out.dim, out.query);
      out.vector("self_attn.q_norm", "attn_q_norm", out.head);
    }
    out.vector("post_attention_layernorm", "post_attention_norm", out.dim);
    out.vector("pre_feedforward_layernorm", "ffn_norm", out.dim);
    out.hidden = double_wide && i >= first_shared ? wide_hidden : usual_hidden;
    out.gated_feed_forward();
    out.vector("post_feedforward_layernorm", "post_ffw_norm", out.dim);
    out.made({out.source_name("layer_scalar")}, {1}, out.gguf_name("layer_output_scale.weight"), {1},
             picked_elements([](uint64_t e) { return e; }));
    if (per_layer == 0) continue;
    out.matrix("per_layer_input_gate", "inp_gate", input, out.dim);
    out.matrix("per_layer_projection", "proj", out.dim, input);
    out.vector("post_per_layer_input_norm", "post_norm", out.dim);
  }
}

}  // namespace quern
