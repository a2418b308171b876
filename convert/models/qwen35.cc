// Qwen3.5: norms are stored less one; value heads stand by key head in a checkpoint and in turn in GGUF.
#include "convert/model_export.h"
#include "convert/models/models.h"

namespace quern {
namespace {

void norm(ModelExport& out, std::string_view source, std::string_view gguf, const ModelExport::Size& n) {
  out.vector(source, gguf, n);
  out.add_one_to_last();
}

struct LinearSizes {
  uint64_t n_k, n_v, k_dim, v_dim, kernel;

  // The checkpoint's place of value head h.
  uint64_t head(uint64_t h) const { return h % n_k * (n_v / n_k) + h / n_k; }
  // Of row r of something with `width` rows for each value head.
  uint64_t row(uint64_t r, uint64_t width) const { return head(r / width) * width + r % width; }
  uint64_t keys() const { return 2 * n_k * k_dim; }
};

void linear_layer(ModelExport& out, const LinearSizes& s) {
  const uint64_t dim = out.dim.value, values = s.n_v * s.v_dim, qkv = s.keys() + values;
  const auto rows = [&](const char* source, const char* gguf, uint64_t n, uint64_t columns, Shape shape,
                        std::function<uint64_t(uint64_t)> map) {
    out.made({out.source_name(source)}, std::move(shape), out.gguf_name(gguf), {n, columns},
             picked_rows(std::move(map)));
  };
  const auto mixed = [s](uint64_t r) { return r < s.keys() ? r : s.keys() + s.row(r - s.keys(), s.v_dim); };
  const auto by_head = [s](uint64_t r) { return s.head(r); };
  rows("linear_attn.in_proj_qkv.weight", "attn_qkv.weight", qkv, dim, {qkv, dim}, mixed);
  rows("linear_attn.in_proj_z.weight", "attn_gate.weight", values, dim, {values, dim},
       [s](uint64_t r) { return s.row(r, s.v_dim); });
  rows("linear_attn.in_proj_b.weight", "ssm_beta.weight", s.n_v, dim, {s.n_v, dim}, by_head);
  rows("linear_attn.in_proj_a.weight", "ssm_alpha.weight", s.n_v, dim, {s.n_v, dim}, by_head);
  rows("linear_attn.conv1d.weight", "ssm_conv1d.weight", qkv, s.kernel, {qkv, 1, s.kernel}, mixed);
  out.made({out.source_name("linear_attn.A_log")}, {s.n_v}, out.gguf_name("ssm_a"), {s.n_v},
           negative_exp(by_head));
  out.made({out.source_name("linear_attn.dt_bias")}, {s.n_v}, out.gguf_name("ssm_dt.bias"), {s.n_v},
           picked_elements(by_head));
  out.vector("linear_attn.norm", "ssm_norm", {s.v_dim, "linear_value_head_dim"});
  std::vector<uint64_t> columns(values);
  for (uint64_t c = 0; c < values; ++c) columns[c] = s.row(c, s.v_dim);
  out.made({out.source_name("linear_attn.out_proj.weight")}, {dim, values}, out.gguf_name("ssm_out.weight"),
           {dim, values}, picked_columns(std::move(columns)));
}

template <class FeedForward>
void describe(ModelExport& out, FeedForward&& feed_forward) {
  out.rope({.partial = true, .default_partial = 0.25, .sections = true});
  const auto size = [&](const char* key) { return out.config.require_uint(key, 1 << 16); };
  const LinearSizes s{size("linear_num_key_heads"), size("linear_num_value_heads"),
                      size("linear_key_head_dim"), size("linear_value_head_dim"),
                      size("linear_conv_kernel_dim")};
  if (s.n_v % s.n_k != 0)
    out.config.refuse("linear_num_value_heads", "must be a multiple of linear_num_key_heads");
  out.u32("ssm.conv_kernel", s.kernel);
  out.u32("ssm.state_size", s.k_dim);
  out.u32("ssm.group_count", s.n_k);
  out.u32("ssm.time_step_rank", s.n_v);
  out.u32("ssm.inner_size", s.n_v * s.v_dim);
  const uint32_t interval = out.config.uint_or("full_attention_interval", 4, 512);
  out.u32("full_attention_interval", interval);
  std::vector<bool> recurrent;
  const Json* types = out.config.find("layer_types");
  if (types != nullptr && (types->as_array() == nullptr || types->size() != out.n_layers()))
    out.config.refuse("layer_types", "must be an array with a kind for each layer");
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    const std::string* type = types == nullptr ? nullptr : (*types)[i].as_string();
    if (types != nullptr && (type == nullptr || (*type != "linear_attention" && *type != "full_attention")))
      out.config.refuse("layer_types", "holds " + (*types)[i].describe() + ", which is not supported here");
    recurrent.push_back(types == nullptr ? (i + 1) % interval != 0 : *type == "linear_attention");
  }
  out.bools("attention.recurrent_layers", recurrent);
  out.ends();
  out.change_norm_of_ends(plus_one());
  const ModelExport::Size gated_query{2 * out.query.value, "2 * " + out.query.words};
  for (uint32_t i = 0; i < out.n_layers(); ++i) {
    out.layer(i);
    norm(out, "input_layernorm", "attn_norm", out.dim);
    if (recurrent[i]) {
      linear_layer(out, s);
    } else {
      const auto projection = [&](const char* source, const char* gguf, const ModelExport::Size& rows,
                                  const ModelExport::Size& columns) {
        out.matrix(source, gguf, rows, columns);
        out.bias(source, gguf, rows);
      };
      projection("self_attn.q_proj", "attn_q", gated_query, out.dim);
      projection("self_attn.k_proj", "attn_k", out.key_value, out.dim);
      projection("self_attn.v_proj", "attn_v", out.key_value, out.dim);
      projection("self_attn.o_proj", "attn_output", out.dim, out.query);
      norm(out, "self_attn.q_norm", "attn_q_norm", out.head);
      norm(out, "self_attn.k_norm", "attn_k_norm", out.head);
    }
    norm(out, "post_attention_layernorm", "post_attention_norm", out.dim);
    feed_forward();
  }
}

}  // namespace

void describe_qwen35(ModelExport& out) {
  out.begin("qwen35");
  describe(out, [&] { out.gated_feed_forward(); });
}

void describe_qwen35_moe(ModelExport& out) {
  out.begin("qwen35moe");
  const uint32_t n_experts = out.config.require_uint("num_experts", 1 << 12);
  out.u32("expert_count", n_experts);
  out.u32("expert_used_count", out.config.require_uint("num_experts_per_tok", n_experts));
  const ModelExport::Size rows{out.config.require_uint("moe_intermediate_size", 1 << 20),
                               "moe_intermediate_size"},
      shared{out.config.require_uint("shared_expert_intermediate_size", 1 << 20),
             "shared_expert_intermediate_size"};
  out.u32("expert_feed_forward_length", rows.value);
  out.u32("expert_shared_feed_forward_length", shared.value);
  describe(out, [&] {
    out.experts("mlp", n_experts, rows);
    out.matrix("mlp.shared_expert_gate", "ffn_gate_inp_shexp", {1, "1"}, out.dim);
    out.shared_expert("mlp.shared_expert", shared);
  });
}

}  // namespace quern
