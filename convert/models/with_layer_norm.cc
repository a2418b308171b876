// Models with LayerNorm: Command R7B, StarCoder2, StableLM, Nemotron.
#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {
namespace {

void norm(ModelExport& out, std::string_view source, std::string_view gguf) {
  out.vector(source, gguf, out.dim);
  out.bias(source, gguf, out.dim);
}

}  // namespace

void describe_cohere2(ModelExport& out) {
  out.begin("cohere2", ModelExport::kLayer);
  out.rope({});
  out.f32("logit_scale", out.number("logit_scale").value_or(1));
  out.require("use_qk_norm", false, false);
  out.window_layers(4, /*names_period=*/true);
  out.ends();
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.attention(/*permuted=*/false);
    out.gated_feed_forward();
  }
}

void describe_starcoder2(ModelExport& out) {
  out.begin("starcoder2", ModelExport::kLayer);
  out.rope({});
  out.require_activation({"gelu_pytorch_tanh", "gelu_new"});
  if (out.sizes.sliding_window) out.u32("attention.sliding_window", *out.sizes.sliding_window);
  out.ends();
  out.bias("norm", "output_norm", out.dim);
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    norm(out, "input_layernorm", "attn_norm");
    out.attention(/*permuted=*/false);
    norm(out, "post_attention_layernorm", "ffn_norm");
    out.matrix("mlp.c_fc", "ffn_up", out.hidden, out.dim);
    out.bias("mlp.c_fc", "ffn_up", out.hidden);
    out.matrix("mlp.c_proj", "ffn_down", out.dim, out.hidden);
    out.bias("mlp.c_proj", "ffn_down", out.dim);
  }
}

void describe_stablelm(ModelExport& out) {
  out.begin("stablelm", ModelExport::kLayer);
  out.rope({.partial = true, .default_partial = 0.25});
  const bool parallel = out.config.bool_or("use_parallel_residual", false);
  const bool head_norms = out.config.bool_or("qk_layernorm", false);
  out.boolean("use_parallel_residual", parallel);
  out.config.find("use_qkv_bias");  // the tensors tell
  out.ends();
  out.bias("norm", "output_norm", out.dim);
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    norm(out, "input_layernorm", "attn_norm");
    out.attention(/*permuted=*/false);
    if (head_norms) {
      const auto of_heads = [&](const char* source, const char* gguf, uint64_t n_heads) {
        std::vector<std::string> sources;
        for (uint64_t h = 0; h < n_heads; ++h)
          sources.push_back(out.source_name(fmt::format("self_attn.{}.norms.{}.weight", source, h)));
        out.made(std::move(sources), {out.head.value}, out.gguf_name(gguf), {n_heads, out.head.value},
                 stacked(1));
      };
      of_heads("q_layernorm", "attn_q_norm.weight", out.sizes.n_heads);
      of_heads("k_layernorm", "attn_k_norm.weight", out.sizes.n_kv_heads);
    }
    if (!parallel) norm(out, "post_attention_layernorm", "ffn_norm");
    out.gated_feed_forward();
  }
}

// Norms are stored less one.
void describe_nemotron(ModelExport& out) {
  out.begin("nemotron", ModelExport::kLayer);
  out.rope({.partial = true, .default_partial = 0.5});
  out.require_activation({"relu2"});
  out.ends();
  out.change_norm_of_ends(plus_one());
  out.bias("norm", "output_norm", out.dim);
  const auto shifted = [&](const char* source, const char* gguf) {
    out.vector(source, gguf, out.dim);
    out.add_one_to_last();
    out.bias(source, gguf, out.dim);
  };
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    shifted("input_layernorm", "attn_norm");
    out.attention(/*permuted=*/false);
    shifted("post_attention_layernorm", "ffn_norm");
    out.matrix("mlp.up_proj", "ffn_up", out.hidden, out.dim);
    out.bias("mlp.up_proj", "ffn_up", out.hidden);
    out.matrix("mlp.down_proj", "ffn_down", out.dim, out.hidden);
    out.bias("mlp.down_proj", "ffn_down", out.dim);
  }
}

}  // namespace quern
