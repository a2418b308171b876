// Gemma 1 to 3: norms are stored less one, the output is the embedding.
#include <cmath>

#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {
namespace {

// "gelu" too: old files say so, and mean the form with tanh.
void require_gelu(ModelExport& out) { out.require_activation({"gelu_pytorch_tanh", "gelu_new", "gelu"}); }

void norm(ModelExport& out, std::string_view source, std::string_view gguf, const ModelExport::Size& n) {
  out.vector(source, gguf, n);
  out.add_one_to_last();
}

void ends(ModelExport& out) {
  out.ends();
  // The norm is the one before the last.
  out.change_norm_of_ends(plus_one());
}

void layers(ModelExport& out, bool norms_behind, bool head_norms) {
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    norm(out, "input_layernorm", "attn_norm", out.dim);
    out.attention(/*permuted=*/false);
    if (head_norms) {
      norm(out, "self_attn.q_norm", "attn_q_norm", out.head);
      norm(out, "self_attn.k_norm", "attn_k_norm", out.head);
    }
    if (norms_behind) {
      norm(out, "post_attention_layernorm", "post_attention_norm", out.dim);
      norm(out, "pre_feedforward_layernorm", "ffn_norm", out.dim);
      norm(out, "post_feedforward_layernorm", "post_ffw_norm", out.dim);
    } else {
      norm(out, "post_attention_layernorm", "ffn_norm", out.dim);
    }
    out.gated_feed_forward();
  }
}

// GGUF has no key for it in this family; files of the published models go without.
void attention_scale(ModelExport& out, uint32_t layers_of_27b) {
  const auto scalar = out.number("query_pre_attn_scalar");
  const uint64_t usual =
      out.n_layers() == layers_of_27b ? out.sizes.dim / out.sizes.n_heads : out.sizes.head_dim;
  if (scalar && *scalar != static_cast<double>(usual)) out.f32("attention.scale", 1 / std::sqrt(*scalar));
}

void require_causal(ModelExport& out) { out.require("use_bidirectional_attention", false, false); }

}  // namespace

void describe_gemma(ModelExport& out) {
  out.begin("gemma");
  out.rope({});
  require_gelu(out);
  require_causal(out);
  ends(out);
  layers(out, /*norms_behind=*/false, /*head_norms=*/false);
}

void describe_gemma2(ModelExport& out) {
  out.begin("gemma2");
  out.rope({});
  require_gelu(out);
  require_causal(out);
  attention_scale(out, 46);
  out.f32("attn_logit_softcapping", out.number("attn_logit_softcapping").value_or(0));
  out.f32("final_logit_softcapping", out.number("final_logit_softcapping").value_or(0));
  out.window_layers(2);
  ends(out);
  layers(out, /*norms_behind=*/true, /*head_norms=*/false);
}

void describe_gemma3(ModelExport& out) {
  out.begin("gemma3");
  out.rope({.layer_type = "full_attention"});
  double local = out.number("rope_local_base_freq").value_or(10000);
  if (const Json* parameters = out.config.find("rope_parameters"))
    if (const Json* own = parameters->find("sliding_attention")) {
      if (const Json* theta = own->find("rope_theta"); theta != nullptr && theta->as_number())
        local = *theta->as_number();
      const Json* type = own->find("rope_type");
      if (type != nullptr && type->as_string() != nullptr && *type->as_string() != "default")
        out.config.refuse("rope_parameters", "scales sliding_attention, which is not supported");
    }
  out.f32("rope.freq_base_swa", local);
  require_gelu(out);
  require_causal(out);
  attention_scale(out, 62);
  if (const auto cap = out.number("final_logit_softcapping")) out.f32("final_logit_softcapping", *cap);
  out.window_layers(6, /*names_period=*/true);
  ends(out);
  layers(out, /*norms_behind=*/true, /*head_norms=*/true);
}

}  // namespace quern
