// Models whose norms stand behind attention and the feed-forward network: OLMo 2, EXAONE 4, GLM-4.
#include <algorithm>

#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {

void describe_olmo2(ModelExport& out) {
  out.begin("olmo2");
  out.rope({});
  out.ends();
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.attention(/*permuted=*/false);
    out.vector("self_attn.q_norm", "attn_q_norm", out.query);
    out.vector("self_attn.k_norm", "attn_k_norm", out.key_value);
    out.vector("post_attention_layernorm", "post_attention_norm", out.dim);
    out.gated_feed_forward();
    out.vector("post_feedforward_layernorm", "post_ffw_norm", out.dim);
  }
}

void describe_exaone4(ModelExport& out) {
  out.begin("exaone4");
  out.rope({});
  const std::vector<bool> windowed = out.window_layers(4, /*names_period=*/true);
  // A window that no layer has still says that these do not encode positions.
  const Json* window = out.config.find("sliding_window");
  if (window != nullptr && std::find(windowed.begin(), windowed.end(), true) == windowed.end()) {
    out.u32("attention.sliding_window", out.config.require_uint("sliding_window", UINT32_MAX));
    out.bools("attention.sliding_window_pattern", windowed);
  }
  out.ends();
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.attention(/*permuted=*/false);
    out.head_norms();
    out.vector("post_attention_layernorm", "post_attention_norm", out.dim);
    out.gated_feed_forward();
    out.vector("post_feedforward_layernorm", "post_ffw_norm", out.dim);
  }
}

void describe_glm4(ModelExport& out) {
  out.begin("glm4");
  out.rope({.partial = true, .default_partial = 0.5});
  out.ends();
  const ModelExport::Size gate_up{2 * out.hidden.value, "2 * " + out.hidden.words};
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.attention(/*permuted=*/false);
    out.vector("post_self_attn_layernorm", "post_attention_norm", out.dim);
    out.vector("post_attention_layernorm", "ffn_norm", out.dim);
    out.matrix("mlp.gate_up_proj", "ffn_up", gate_up, out.dim);
    out.matrix("mlp.down_proj", "ffn_down", out.dim, out.hidden);
    out.vector("post_mlp_layernorm", "post_ffw_norm", out.dim);
  }
}

}  // namespace quern
