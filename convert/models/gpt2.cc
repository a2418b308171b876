// GPT-2, whose matrices are stored with inputs as rows.
#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {

void describe_gpt2(ModelExport& out) {
  out.begin("gpt2", ModelExport::kLayer);
  out.metadata().erase("gpt2.rope.freq_base");  // positions are learned
  out.require_activation({"gelu_new", "gelu_pytorch_tanh"});
  out.require("scale_attn_weights", true, true);
  out.require("scale_attn_by_inverse_layer_idx", false, false);
  out.require("add_cross_attention", false, false);
  out.require("reorder_and_upcast_attn", false, false);
  out.prefixes("transformer.", "transformer.h.");
  const ModelExport::Size positions{out.sizes.context_length, "n_positions"};
  out.matrix("wte", "token_embd", out.vocab, out.dim);
  out.matrix("wpe", "position_embd", positions, out.dim);
  out.vector("ln_f", "output_norm", out.dim);
  out.bias("ln_f", "output_norm", out.dim);
  const ModelExport::Size qkv{3 * out.dim.value, "3 * " + out.dim.words};
  const auto conv = [&](const char* source, const char* gguf, const ModelExport::Size& rows,
                        const ModelExport::Size& columns) {
    out.matrix(source, gguf, rows, columns);
    out.change_last(transposed(rows.value, rows.value), {columns.value, rows.value});
    out.bias(source, gguf, rows);
  };
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("ln_1", "attn_norm", out.dim);
    out.bias("ln_1", "attn_norm", out.dim);
    conv("attn.c_attn", "attn_qkv", qkv, out.dim);
    conv("attn.c_proj", "attn_output", out.dim, out.dim);
    out.vector("ln_2", "ffn_norm", out.dim);
    out.bias("ln_2", "ffn_norm", out.dim);
    conv("mlp.c_fc", "ffn_up", out.hidden, out.dim);
    conv("mlp.c_proj", "ffn_down", out.dim, out.hidden);
  }
}

}  // namespace quern
