// Qwen2 and Qwen3, dense.
#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {
namespace {

// Those of layer_types, or of the layers from max_window_layers on; with use_sliding_window alone.
void windows(ModelExport& out) {
  out.config.find("sliding_window");
  if (!out.config.bool_or("use_sliding_window", false)) return;
  if (out.config.find("layer_types") != nullptr) {
    out.window_layers(0);
    return;
  }
  const double first = out.number("max_window_layers").value_or(28);
  std::vector<bool> windowed;
  for (uint32_t i = 0; i < out.n_layers(); ++i) windowed.push_back(i >= first);
  if (!windowed.back()) return;
  out.u32("attention.sliding_window", out.config.require_uint("sliding_window", UINT32_MAX));
  out.bools("attention.sliding_window_pattern", windowed);
}

void describe(ModelExport& out, std::string_view architecture, bool head_norms) {
  out.begin(architecture);
  out.rope({});
  windows(out);
  out.ends();
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.attention(/*permuted=*/false);
    if (head_norms) out.head_norms();
    out.vector("post_attention_layernorm", "ffn_norm", out.dim);
    out.gated_feed_forward();
  }
}

}  // namespace

void describe_qwen2(ModelExport& out) { describe(out, "qwen2", /*head_norms=*/false); }
void describe_qwen3(ModelExport& out) { describe(out, "qwen3", /*head_norms=*/true); }

}  // namespace quern
