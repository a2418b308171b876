// LFM2: which layers attend, GGUF says by the number of their KV heads.
#include <cmath>

#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {
namespace {

// What the checkpoint has of intermediate_size (of old: block_ff_dim, which counts where both are there): two
// thirds of it, times a factor, rounded up to a multiple.
void set_hidden(ModelExport& out) {
  const bool is_old = out.config.find("block_ff_dim") != nullptr;
  double n =
      static_cast<double>(is_old ? out.config.require_uint("block_ff_dim", 1 << 20) : out.sizes.hidden_dim);
  std::string words = is_old ? "block_ff_dim" : "intermediate_size";
  const auto factor = out.number("block_ffn_dim_multiplier");
  const double multiple = out.config.uint_or("block_multiple_of", 256, 1 << 20);
  if (out.config.bool_or("block_auto_adjust_ff_dim", true)) {
    n = std::floor(factor.value_or(1) * std::floor(2 * n / 3));
    n = multiple * std::ceil(n / multiple);
    words += ", adjusted";
  }
  if (!(n >= 1 && n <= 1 << 20))
    out.config.refuse("block_ffn_dim_multiplier", fmt::format("makes a feed-forward network of {} rows", n));
  out.hidden = {static_cast<uint64_t>(n), words};
  out.u32("feed_forward_length", out.hidden.value);
}

// Which layers attend, by layer_types or, of old, full_attn_idxs; without both all do.
std::vector<bool> attending_layers(ModelExport& out) {
  std::vector<bool> attends(out.n_layers(), true);
  if (const Json* types = out.config.find("layer_types")) {
    if (types->as_array() == nullptr || types->size() != attends.size())
      out.config.refuse("layer_types", "must be an array with a kind for each layer");
    for (size_t i = 0; i < attends.size(); ++i) {
      const std::string* type = (*types)[i].as_string();
      if (type == nullptr || (*type != "conv" && *type != "full_attention"))
        out.config.refuse("layer_types", "holds " + (*types)[i].describe() + ", which is not supported here");
      attends[i] = *type == "full_attention";
    }
    return attends;
  }
  const Json* indices = out.config.find("full_attn_idxs");
  if (indices == nullptr) return attends;
  attends.assign(attends.size(), false);
  for (size_t i = 0; i < indices->size(); ++i) {
    const uint64_t* layer = (*indices)[i].as_uint();
    if (layer == nullptr || *layer >= attends.size())
      out.config.refuse("full_attn_idxs", fmt::format("must be an array of layers from 0 to {}, found {}",
                                                      attends.size() - 1, indices->describe()));
    attends[*layer] = true;
  }
  return attends;
}

}  // namespace

void describe_lfm2(ModelExport& out) {
  out.begin("lfm2");
  out.rope({});
  set_hidden(out);
  const uint32_t kernel = out.config.require_uint("conv_L_cache", 64);
  out.u32("shortconv.l_cache", kernel);
  std::vector<int32_t> kv_heads;
  for (const bool attends : attending_layers(out))
    kv_heads.push_back(attends ? static_cast<int32_t>(out.sizes.n_kv_heads) : 0);
  out.metadata().set_int32s("lfm2.attention.head_count_kv", kv_heads);
  out.ends("embedding_norm", "token_embd_norm");
  const ModelExport::Size three{3 * out.dim.value, "3 * " + out.dim.words}, taps{kernel, "conv_L_cache"};
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    out.vector("operator_norm", "attn_norm", out.dim);
    if (kv_heads[i] == 0) {
      out.matrix("conv.in_proj", "shortconv.in_proj", three, out.dim);
      out.bias("conv.in_proj", "shortconv.in_proj", three);
      out.bias("conv.conv", "shortconv.conv", out.dim);
      out.made({out.source_name("conv.conv.weight")}, {out.dim.value, 1, kernel},
               out.gguf_name("shortconv.conv.weight"), {out.dim.value, kernel},
               picked_rows([](uint64_t row) { return row; }));
      out.matrix("conv.out_proj", "shortconv.out_proj", out.dim, out.dim);
      out.bias("conv.out_proj", "shortconv.out_proj", out.dim);
    } else {
      out.matrix("self_attn.q_proj", "attn_q", out.query, out.dim);
      out.matrix("self_attn.k_proj", "attn_k", out.key_value, out.dim);
      out.matrix("self_attn.v_proj", "attn_v", out.key_value, out.dim);
      out.matrix("self_attn.out_proj", "attn_output", out.dim, out.query);
      out.vector("self_attn.q_layernorm", "attn_q_norm", out.head);
      out.vector("self_attn.k_layernorm", "attn_k_norm", out.head);
    }
    out.vector("ffn_norm", "ffn_norm", out.dim);
    out.matrix("feed_forward.w1", "ffn_gate", out.hidden, out.dim);
    out.matrix("feed_forward.w3", "ffn_up", out.hidden, out.dim);
    out.matrix("feed_forward.w2", "ffn_down", out.dim, out.hidden);
  }
}

}  // namespace quern
