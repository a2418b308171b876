// Arcee's AFM: Llama's attention, and a feed-forward network of one matrix up and one down.
#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {

void describe_arcee(ModelExport& out) {
  out.begin("arcee");
  out.rope({});
  out.require_activation({"relu2"});
  out.ends();
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("input_layernorm", "attn_norm", out.dim);
    out.attention(/*permuted=*/true);
    out.vector("post_attention_layernorm", "ffn_norm", out.dim);
    out.matrix("mlp.up_proj", "ffn_up", out.hidden, out.dim);
    out.bias("mlp.up_proj", "ffn_up", out.hidden);
    out.matrix("mlp.down_proj", "ffn_down", out.dim, out.hidden);
    out.bias("mlp.down_proj", "ffn_down", out.dim);
  }
}

}  // namespace quern
