// Llama, Mistral, Mixtral and the models that share their layer.
#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {
namespace {

// Norm, attention, norm, and what `rest` adds.
template <class Rest>
void layers(ModelExport& out, bool permuted, Rest&& rest) {
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.attention(permuted);
    out.vector("post_attention_layernorm", "ffn_norm", out.dim);
    rest();
  }
}

void dense_layers(ModelExport& out, bool permuted) {
  layers(out, permuted, [&] { out.gated_feed_forward(); });
}

// The window that transformers applies to all layers; `llama` has none as others understand it, hence the key
// of our own.
void window(ModelExport& out) {
  if (!out.sizes.sliding_window) return;
  out.u32("attention.sliding_window", *out.sizes.sliding_window);
  out.u32_of_quern("attention.sliding_window", *out.sizes.sliding_window);
}

}  // namespace

void describe_llama(ModelExport& out) {
  out.begin("llama");
  out.rope({});
  window(out);
  out.ends();
  dense_layers(out, /*permuted=*/true);
}

void describe_mixtral(ModelExport& out) {
  out.begin("llama");
  out.rope({});
  window(out);
  const uint32_t n_experts = out.config.require_uint("num_local_experts", 1 << 12);
  out.u32("expert_count", n_experts);
  out.u32("expert_used_count", out.config.require_uint("num_experts_per_tok", n_experts));
  out.ends();
  layers(out, /*permuted=*/true, [&] {
    out.experts("block_sparse_moe", n_experts, out.hidden, {"w1", "w3", "w2"});
  });
}

void describe_ministral3(ModelExport& out) {
  out.begin("mistral3");
  out.rope({.yarn_log_multiplier = true});
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* parameters = out.config.find(key);
    const Json* beta = parameters == nullptr ? nullptr : parameters->find("llama_4_scaling_beta");
    if (beta == nullptr || !beta->as_number()) continue;
    out.f32("attention.temperature_scale", *beta->as_number());
    break;
  }
  out.ends();
  dense_layers(out, /*permuted=*/true);
}

void describe_granite(ModelExport& out) {
  out.begin("granite");
  out.rope({});
  if (const auto scale = out.number("attention_multiplier")) out.f32("attention.scale", *scale);
  if (const auto scale = out.number("embedding_multiplier")) out.f32("embedding_scale", *scale);
  if (const auto scale = out.number("residual_multiplier")) out.f32("residual_scale", *scale);
  if (const auto scale = out.number("logits_scaling")) out.f32("logit_scale", *scale);
  out.ends();
  dense_layers(out, /*permuted=*/true);
}

void describe_smollm3(ModelExport& out) {
  out.begin("smollm3");
  out.rope({});
  std::vector<bool> rotated;
  for (uint32_t i = 0; i < out.n_layers(); ++i) rotated.push_back((i + 1) % 4 != 0);
  const std::vector<bool> usual = rotated;
  if (const Json* flags = out.config.find("no_rope_layers")) {
    if (flags->as_array() == nullptr || flags->size() != rotated.size())
      out.config.refuse("no_rope_layers", "must be an array with a number for each layer");
    for (size_t i = 0; i < rotated.size(); ++i) rotated[i] = (*flags)[i].as_number() != 0.0;  // 1: rotated
  } else {
    const uint32_t period = out.config.uint_or("no_rope_layer_interval", 4, 1 << 16);
    for (uint32_t i = 0; i < out.n_layers(); ++i) rotated[i] = (i + 1) % period != 0;
  }
  if (rotated != usual) out.bools("attention.rope_pattern", rotated);
  out.require("use_sliding_window", false, false);
  out.ends();
  dense_layers(out, /*permuted=*/true);
}

void describe_ernie4_5(ModelExport& out) {
  out.begin("ernie4_5");
  out.rope({});
  out.ends();
  dense_layers(out, /*permuted=*/false);
}

void describe_seed_oss(ModelExport& out) {
  out.begin("seed_oss");
  out.rope({});
  out.config.find("attention_out_bias");  // the tensors tell
  out.ends();
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.attention(/*permuted=*/false);
    out.vector("post_attention_layernorm", "post_attention_norm", out.dim);
    out.gated_feed_forward();
  }
}

}  // namespace quern
