// Mixtures of experts: Qwen2, Qwen3, OLMoE, Granite.
#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {
namespace {

uint32_t expert_counts(ModelExport& out, std::initializer_list<const char*> count_keys) {
  for (const char* key : count_keys) {
    if (out.config.find(key) == nullptr) continue;
    const uint32_t n = out.config.require_uint(key, 1 << 12);
    out.u32("expert_count", n);
    out.u32("expert_used_count", out.config.require_uint("num_experts_per_tok", n));
    return n;
  }
  out.config.refuse(*count_keys.begin(), "is missing");
}

// Which layers have experts: every decoder_sparse_step-th, without those of mlp_only_layers. The others have
// a feed-forward network, as their tensors tell.
std::vector<bool> sparse_layers(ModelExport& out) {
  const uint32_t step = out.config.uint_or("decoder_sparse_step", 1, 1 << 16);
  std::vector<bool> sparse;
  for (uint32_t i = 0; i < out.n_layers(); ++i) sparse.push_back((i + 1) % step == 0);
  if (const Json* dense = out.config.find("mlp_only_layers"); dense != nullptr && dense->size() != 0)
    for (size_t i = 0; i < dense->size(); ++i) {
      const uint64_t* layer = (*dense)[i].as_uint();
      if (layer == nullptr)
        out.config.refuse("mlp_only_layers", "must be an array of layers, found " + dense->describe());
      if (*layer < sparse.size()) sparse[*layer] = false;
    }
  out.require("use_sliding_window", false, false);
  out.config.find("sliding_window");
  return sparse;
}

}  // namespace

void describe_qwen2_moe(ModelExport& out) {
  out.begin("qwen2moe");
  out.rope({});
  const std::vector<bool> sparse = sparse_layers(out);
  const uint32_t n_experts = expert_counts(out, {"num_experts", "num_local_experts"});
  const ModelExport::Size rows{out.config.require_uint("moe_intermediate_size", 1 << 20),
                               "moe_intermediate_size"},
      shared{out.config.require_uint("shared_expert_intermediate_size", 1 << 20),
             "shared_expert_intermediate_size"};
  out.u32("expert_feed_forward_length", rows.value);
  out.u32("expert_shared_feed_forward_length", shared.value);
  if (out.config.bool_or("norm_topk_prob", false)) out.boolean("expert_weights_norm", true);
  out.ends();
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.attention(/*permuted=*/false);
    out.vector("post_attention_layernorm", "ffn_norm", out.dim);
    if (!sparse[i]) {
      out.gated_feed_forward();
      continue;
    }
    out.experts("mlp", n_experts, rows);
    out.matrix("mlp.shared_expert_gate", "ffn_gate_inp_shexp", {1, "1"}, out.dim);
    out.shared_expert("mlp.shared_expert", shared);
  }
}

void describe_qwen3_moe(ModelExport& out) {
  out.begin("qwen3moe");
  out.rope({});
  const std::vector<bool> sparse = sparse_layers(out);
  const uint32_t n_experts = expert_counts(out, {"num_experts", "num_local_experts"});
  const ModelExport::Size rows{out.config.require_uint("moe_intermediate_size", 1 << 20),
                               "moe_intermediate_size"};
  out.u32("expert_feed_forward_length", rows.value);
  if (!out.config.bool_or("norm_topk_prob", false)) out.boolean("expert_weights_norm", false);
  out.ends();
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.attention(/*permuted=*/false);
    out.head_norms();
    out.vector("post_attention_layernorm", "ffn_norm", out.dim);
    if (!sparse[i]) {
      out.gated_feed_forward();
      continue;
    }
    out.experts("mlp", n_experts, rows);
  }
}

void describe_olmoe(ModelExport& out) {
  out.begin("olmoe");
  out.rope({});
  const uint32_t n_experts = expert_counts(out, {"num_experts"});
  if (out.config.bool_or("norm_topk_prob", false)) out.boolean("expert_weights_norm", true);
  if (const auto limit = out.number("clip_qkv")) {
    if (!(*limit > 0)) out.config.refuse("clip_qkv", fmt::format("must be > 0, found {}", *limit));
    out.f32("attention.clamp_kqv", *limit);
  }
  out.ends();
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.attention(/*permuted=*/false);
    out.vector("self_attn.q_norm", "attn_q_norm", out.query);
    out.vector("self_attn.k_norm", "attn_k_norm", out.key_value);
    out.vector("post_attention_layernorm", "ffn_norm", out.dim);
    out.experts("mlp", n_experts, out.hidden);
  }
}

// Gate and up stand above one another in each expert.
void describe_granite_moe(ModelExport& out) {
  out.begin("granitemoe");
  out.rope({});
  const uint32_t n_experts = expert_counts(out, {"num_local_experts"});
  if (const auto scale = out.number("attention_multiplier")) out.f32("attention.scale", *scale);
  if (const auto scale = out.number("embedding_multiplier")) out.f32("embedding_scale", *scale);
  if (const auto scale = out.number("residual_multiplier")) out.f32("residual_scale", *scale);
  if (const auto scale = out.number("logits_scaling")) out.f32("logit_scale", *scale);
  out.ends();
  const uint64_t rows = out.hidden.value, dim = out.dim.value;
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.attention(/*permuted=*/true);
    out.vector("post_attention_layernorm", "ffn_norm", out.dim);
    out.matrix("block_sparse_moe.router.layer", "ffn_gate_inp", {n_experts, "num_local_experts"}, out.dim);
    const std::string source = out.source_name("block_sparse_moe.input_linear.weight");
    const auto half = [&](const char* name, uint64_t first) {
      out.made({source}, {n_experts, 2 * rows, dim}, out.gguf_name(name), {n_experts, rows, dim},
               picked_rows([=](uint64_t row) { return row / rows * 2 * rows + first + row % rows; }));
    };
    half("ffn_gate_exps.weight", 0);
    half("ffn_up_exps.weight", rows);
    out.made({out.source_name("block_sparse_moe.output_linear.weight")}, {n_experts, dim, rows},
             out.gguf_name("ffn_down_exps.weight"), {n_experts, dim, rows},
             picked_rows([](uint64_t row) { return row; }));
  }
}

}  // namespace quern
