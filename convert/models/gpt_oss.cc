// gpt-oss: experts are stored with inputs as rows, gate and up in alternating columns; as published, in
// MXFP4, with outputs as rows.
#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {
namespace {

constexpr uint64_t kBlock = 32;  // weights of an MXFP4 block

bool is_mxfp4(ModelExport& out) {
  const Json* config = out.config.find("quantization_config");
  if (config == nullptr) return false;
  const Json* method = config->find("quant_method");
  if (method == nullptr || method->as_string() == nullptr || *method->as_string() != "mxfp4")
    out.config.refuse("quantization_config", "= " + config->describe() + " is not supported: expected mxfp4");
  for (const ModelExport::Size& size : {out.dim, out.hidden})
    if (size.value % kBlock != 0)
      out.config.refuse(size.words,
                        fmt::format("= {} must be a multiple of {} for MXFP4", size.value, kBlock));
  return true;
}

}  // namespace

void describe_gpt_oss(ModelExport& out) {
  out.begin("gpt-oss");
  out.rope({.truncate = false});
  const uint32_t n = out.config.require_uint("num_local_experts", 1 << 12);
  out.u32("expert_count", n);
  out.u32("expert_used_count", out.config.require_uint("num_experts_per_tok", n));
  out.u32("expert_feed_forward_length", out.hidden.value);
  for (const auto& [key, value] : {std::pair("swiglu_alpha", 1.702), {"swiglu_limit", 7.0}})
    if (const auto found = out.number(key); found && *found != value)
      out.config.refuse(key, fmt::format("= {} is not supported: expected {}", *found, value));
  const bool packed = is_mxfp4(out);
  out.window_layers(2);
  out.ends();
  const uint64_t rows = out.hidden.value, dim = out.dim.value;
  const ModelExport::Size heads{out.sizes.n_heads, "num_attention_heads"}, experts{n, "num_local_experts"};
  const auto sources_of = [&](const std::string& name) {
    return std::vector{out.source_name(name + "_blocks"), out.source_name(name + "_scales")};
  };
  const auto shapes_of = [&](uint64_t n_rows, uint64_t columns) {
    return std::vector<Shape>{{n, n_rows, columns / kBlock, kBlock / 2}, {n, n_rows, columns / kBlock}};
  };
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.attention(/*permuted=*/false);
    out.made({out.source_name("self_attn.sinks")}, {heads.value}, out.gguf_name("attn_sinks.weight"),
             {heads.value}, picked_elements([](uint64_t e) { return e; }));
    out.vector("post_attention_layernorm", "post_attention_norm", out.dim);
    out.matrix("mlp.router", "ffn_gate_inp", experts, out.dim);
    out.bias("mlp.router", "ffn_gate_inp", experts);
    const auto half = [&](const std::string& name, uint64_t first) {
      if (packed)
        out.made_of_bytes(sources_of("mlp.experts.gate_up_proj"), shapes_of(2 * rows, dim),
                          out.gguf_name(name + ".weight"), {n, rows, dim},
                          picked_mxfp4_rows([=](uint64_t row) { return 2 * row + first; }));
      else
        out.made({out.source_name("mlp.experts.gate_up_proj")}, {n, dim, 2 * rows},
                 out.gguf_name(name + ".weight"), {n, rows, dim}, transposed(rows, 2 * rows, first, 2));
      out.made({out.source_name("mlp.experts.gate_up_proj_bias")}, {n, 2 * rows},
               out.gguf_name(name + ".bias"), {n, rows},
               picked_elements([=](uint64_t e) { return e / rows * 2 * rows + e % rows * 2 + first; }));
    };
    half("ffn_gate_exps", 0);
    half("ffn_up_exps", 1);
    if (packed)
      out.made_of_bytes(sources_of("mlp.experts.down_proj"), shapes_of(dim, rows),
                        out.gguf_name("ffn_down_exps.weight"), {n, dim, rows},
                        picked_mxfp4_rows([](uint64_t row) { return row; }));
    else
      out.made({out.source_name("mlp.experts.down_proj")}, {n, rows, dim},
               out.gguf_name("ffn_down_exps.weight"), {n, dim, rows}, transposed(dim, dim));
    out.made({out.source_name("mlp.experts.down_proj_bias")}, {n, dim}, out.gguf_name("ffn_down_exps.bias"),
             {n, dim}, picked_elements([](uint64_t e) { return e; }));
  }
}

}  // namespace quern
