// Phi-3: Q, K and V stand in one tensor, gate and up in another, and stay so.
#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {

void describe_phi3(ModelExport& out) {
  out.begin("phi3");
  out.rope({.partial = true, .longrope = true});
  if (out.sizes.sliding_window) out.u32("attention.sliding_window", *out.sizes.sliding_window);
  out.ends();
  const ModelExport::Size qkv{out.query.value + 2 * out.key_value.value, "query, key and value heads"},
      gate_up{2 * out.hidden.value, "2 * " + out.hidden.words};
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.matrix("self_attn.qkv_proj", "attn_qkv", qkv, out.dim);
    out.matrix("self_attn.o_proj", "attn_output", out.dim, out.query);
    out.vector("post_attention_layernorm", "ffn_norm", out.dim);
    out.matrix("mlp.gate_up_proj", "ffn_up", gate_up, out.dim);
    out.matrix("mlp.down_proj", "ffn_down", out.dim, out.hidden);
  }
}

}  // namespace quern
