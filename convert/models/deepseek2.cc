// DeepSeek V2 and V3 and GLM-4.7 Flash: the matrix that makes keys and values of latents is cut into one for
// keys, transposed, and one for values, as attention over latents wants them.
#include <algorithm>
#include <cmath>

#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {
namespace {

struct LatentSizes {
  uint64_t n_heads, q_rank, latent, plain, rotary, value;
};

LatentSizes read_latent_sizes(ModelExport& out) {
  const auto size = [&](const char* key) { return uint64_t{out.config.require_uint(key, 1 << 16)}; };
  LatentSizes s{out.sizes.n_heads,        0,
                size("kv_lora_rank"),     size("qk_nope_head_dim"),
                size("qk_rope_head_dim"), size("v_head_dim")};
  if (out.config.find("q_lora_rank") != nullptr) s.q_rank = size("q_lora_rank");
  out.config.find("qk_head_dim");  // their sum
  return s;
}

// The first layers, which have no experts.
uint32_t dense_layers(ModelExport& out, uint32_t fallback) {
  const auto n = out.number("first_k_dense_replace");
  if (n && !(*n >= 0 && *n == std::floor(*n)))
    out.config.refuse("first_k_dense_replace", fmt::format("must be an integer >= 0, found {}", *n));
  return static_cast<uint32_t>(std::min<double>(n.value_or(fallback), out.n_layers()));
}

void require_score(ModelExport& out, const char* expected) {
  const Json* score = out.config.find("scoring_func");
  if (score != nullptr && (score->as_string() == nullptr || *score->as_string() != expected))
    out.config.refuse("scoring_func", fmt::format("= {} is not supported here: expected \"{}\"",
                                                  score->describe(), expected));
  if (out.number("moe_layer_freq").value_or(1) != 1)
    out.config.refuse("moe_layer_freq", "must be 1: all layers behind the dense ones have experts");
}

// grouped: experts are chosen among the best of n_group groups.
void write_keys(ModelExport& out, const LatentSizes& s, bool sigmoid, bool grouped) {
  out.u32("attention.head_count_kv", 1);
  out.u32("attention.key_length", s.latent + s.rotary);
  out.u32("attention.value_length", s.latent);
  out.u32("attention.key_length_mla", s.plain + s.rotary);
  out.u32("attention.value_length_mla", s.value);
  out.u32("attention.kv_lora_rank", s.latent);
  if (s.q_rank != 0) out.u32("attention.q_lora_rank", s.q_rank);
  require_score(out, sigmoid ? "sigmoid" : "softmax");
  // The published code normalises latents with an epsilon of its own.
  constexpr double kLatentEpsilon = 1e-6;
  if (out.sizes.rms_norm_eps != kLatentEpsilon)
    out.f32_of_quern("attention.latent_norm_epsilon", kLatentEpsilon);
  out.rope({.latents = true, .rotary_dim = static_cast<uint32_t>(s.rotary)});
  out.require("rope_interleave", true, true);
  const uint32_t n_experts = out.config.require_uint("n_routed_experts", 1 << 12);
  const uint32_t n_groups = out.config.uint_or("n_group", 1, n_experts);
  const uint32_t n_groups_used = out.config.uint_or("topk_group", 1, n_groups);
  if (n_groups > 1 && grouped) {
    if (n_experts % n_groups != 0 || (sigmoid && n_experts / n_groups < 2))
      out.config.refuse("n_group", fmt::format("= {} does not fit {} experts", n_groups, n_experts));
    out.u32("expert_group_count", n_groups);
    out.u32("expert_group_used_count", n_groups_used);
  }
  out.u32("expert_count", n_experts);
  out.u32("expert_used_count", out.config.require_uint("num_experts_per_tok", n_experts));
  out.u32("expert_shared_count", out.config.uint_or("n_shared_experts", 0, 64));
  out.u32("expert_feed_forward_length", out.config.require_uint("moe_intermediate_size", 1 << 20));
  out.f32("expert_weights_scale", out.number("routed_scaling_factor").value_or(1));
  // With softmax, DeepSeek's own code then leaves the scale out, and transformers does not normalise.
  if (!sigmoid) out.require("norm_topk_prob", false, false);
  out.boolean("expert_weights_norm", out.config.bool_or("norm_topk_prob", sigmoid));
  out.u32("expert_gating_func", sigmoid ? 2 : 1);
}

void write_tensors(ModelExport& out, const LatentSizes& s, uint32_t n_dense, bool has_choice_bias) {
  out.u32("leading_dense_block_count", n_dense);
  const ModelExport::Size queries{s.n_heads * (s.plain + s.rotary), "num_attention_heads * qk_head_dim"},
      q_rank{s.q_rank, "q_lora_rank"}, latent{s.latent, "kv_lora_rank"},
      kv{s.latent + s.rotary, "kv_lora_rank + qk_rope_head_dim"},
      values{s.n_heads * s.value, "num_attention_heads * v_head_dim"},
      rows{out.config.require_uint("moe_intermediate_size", 1 << 20), "moe_intermediate_size"};
  const uint32_t n_experts = out.config.require_uint("n_routed_experts", 1 << 12);
  const ModelExport::Size shared{rows.value * out.config.uint_or("n_shared_experts", 0, 64),
                                 "n_shared_experts * moe_intermediate_size"};
  out.ends();
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    if (s.q_rank == 0) {
      out.matrix("self_attn.q_proj", "attn_q", queries, out.dim);
    } else {
      out.matrix("self_attn.q_a_proj", "attn_q_a", q_rank, out.dim);
      out.bias("self_attn.q_a_proj", "attn_q_a", q_rank);
      out.vector("self_attn.q_a_layernorm", "attn_q_a_norm", q_rank);
      out.matrix("self_attn.q_b_proj", "attn_q_b", queries, q_rank);
    }
    out.matrix("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa", kv, out.dim);
    out.bias("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa", kv);
    out.vector("self_attn.kv_a_layernorm", "attn_kv_a_norm", latent);
    const uint64_t both = s.plain + s.value;
    const Shape source{s.n_heads * both, s.latent};
    const std::string name = out.source_name("self_attn.kv_b_proj.weight");
    out.made({name}, source, out.gguf_name("attn_k_b.weight"), {s.n_heads, s.latent, s.plain},
             picked_elements([s, both](uint64_t e) {
               const uint64_t head = e / (s.latent * s.plain), c = e / s.plain % s.latent;
               return (head * both + e % s.plain) * s.latent + c;
             }));
    out.made({name}, source, out.gguf_name("attn_v_b.weight"), {s.n_heads, s.value, s.latent},
             picked_rows([s, both](uint64_t row) { return row / s.value * both + s.plain + row % s.value; }));
    out.matrix("self_attn.o_proj", "attn_output", out.dim, values);
    out.bias("self_attn.o_proj", "attn_output", out.dim);
    out.vector("post_attention_layernorm", "ffn_norm", out.dim);
    if (i < n_dense) {
      out.gated_feed_forward();
      continue;
    }
    out.experts("mlp", n_experts, rows);
    if (has_choice_bias)
      out.made({out.source_name("mlp.gate.e_score_correction_bias")}, {n_experts},
               out.gguf_name("exp_probs_b.bias"), {n_experts}, picked_elements([](uint64_t e) { return e; }));
    if (shared.value == 0) continue;
    out.shared_expert("mlp.shared_experts", shared);
  }
}

}  // namespace

void describe_deepseek2(ModelExport& out) {
  out.begin("deepseek2");
  const LatentSizes s = read_latent_sizes(out);
  const Json* method = out.config.find("topk_method");
  const auto is = [&](const char* name) {
    return method != nullptr && method->as_string() != nullptr && *method->as_string() == name;
  };
  const bool grouped = is("group_limited_greedy");
  if (method != nullptr && !grouped && !is("greedy"))
    out.config.refuse(
        "topk_method",
        "= " + method->describe() + " is not supported: expected \"greedy\" or \"group_limited_greedy\"");
  write_keys(out, s, /*sigmoid=*/false, grouped);
  write_tensors(out, s, dense_layers(out, 0), /*has_choice_bias=*/false);
}

void describe_deepseek3(ModelExport& out) {
  out.begin("deepseek2");
  const LatentSizes s = read_latent_sizes(out);
  write_keys(out, s, /*sigmoid=*/true, /*grouped=*/true);
  write_tensors(out, s, dense_layers(out, 3), /*has_choice_bias=*/true);
}

void describe_glm4_moe_lite(ModelExport& out) {
  out.begin("deepseek2");
  const LatentSizes s = read_latent_sizes(out);
  write_keys(out, s, /*sigmoid=*/true, /*grouped=*/true);
  uint32_t n_dense = 0;
  const Json* types = out.config.find("mlp_layer_types");
  if (types != nullptr && types->as_array() != nullptr) {
    const Json::Array& kinds = *types->as_array();
    const auto is = [&](size_t i, const char* kind) {
      return kinds[i].as_string() != nullptr && *kinds[i].as_string() == kind;
    };
    while (n_dense < kinds.size() && is(n_dense, "dense")) ++n_dense;
    for (size_t i = n_dense; i < kinds.size(); ++i)
      if (!is(i, "sparse"))
        out.config.refuse("mlp_layer_types", "must be some \"dense\" and then \"sparse\"");
  } else {
    n_dense = dense_layers(out, 1);
  }
  write_tensors(out, s, n_dense, /*has_choice_bias=*/true);
}

}  // namespace quern
