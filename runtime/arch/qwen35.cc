// Qwen3.5: the gated delta rule in most layers, gated attention in the others; dense or with experts.
//
// Yang et al., "Gated Delta Networks: Improving Mamba2 with Delta Rule", 2024; Qwen Team, "Qwen3-Next", 2025.
#include "runtime/arch/arch.h"
#include "runtime/arch/shared_expert.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Qwen35 : public Decoder {
 public:
  explicit Qwen35(HParamReader& keys)
      : Decoder(keys, {.pairs = RopePairs::kHalves, .partial_rotation = true}),
        kernel_(keys.require_uint("ssm.conv_kernel", 1, 64)),
        recurrent_(hparams_.n_layers),
        linear_(hparams_.n_layers) {
    keys.ignore({"rope.dimension_sections"});  // of images; of text all positions are the same
    delta_.k_dim = keys.require_uint("ssm.state_size", 1, kMaxHeadDim);
    delta_.n_k_heads = keys.require_uint("ssm.group_count", 1, kMaxHeads);
    delta_.n_v_heads = keys.require_uint("ssm.time_step_rank", 1, kMaxHeads);
    const uint32_t inner = keys.require_uint("ssm.inner_size", 1, kMaxDim);
    if (inner % delta_.n_v_heads != 0 || delta_.n_v_heads % delta_.n_k_heads != 0)
      keys.refuse("ssm.time_step_rank",
                  fmt::format("expected a multiple of group_count ({}) and a divisor of "
                              "inner_size ({}), found {}",
                              delta_.n_k_heads, inner, delta_.n_v_heads));
    delta_.v_dim = inner / delta_.n_v_heads;
    delta_.state_begin = (kernel_ - 1) * qkv_dim();
    const uint32_t interval = keys.uint_or("full_attention_interval", 4, 1, kMaxLayers);
    for (size_t i = 0; i < recurrent_.size(); ++i) recurrent_[i] = (i + 1) % interval != 0;
    const std::string_view key = "attention.recurrent_layers";
    if (const GgufValue* value = keys.find(key)) {
      const auto flags = value->as_bools();
      if (!flags || flags->size() != recurrent_.size())
        keys.refuse(key, fmt::format("expected {} booleans, one for each layer", recurrent_.size()));
      recurrent_ = *flags;
    }
  }

  AttentionShape attention(size_t layer) const override {
    return recurrent_[layer] ? AttentionShape{} : Decoder::attention(layer);
  }
  uint64_t state_floats(size_t layer) const override {
    return recurrent_[layer] ? delta_.state_begin + delta_.n_v_heads * delta_.k_dim * delta_.v_dim : 0;
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    const uint64_t dim = hparams_.dim;
    l.attention_norm.declare(parts, "attn_norm", dim);
    if (recurrent_[parts.layer()])
      declare_linear(parts, linear_[parts.layer()]);
    else
      declare_attention(parts, l.attention);
    l.feed_forward_norm.declare(parts, "post_attention_norm", dim);
    if (l.experts.n_experts == 0) l.feed_forward.declare(parts, dim, hparams_.hidden_dim);
  }

  void layer(size_t index, Pass& pass) const override {
    const DecoderLayer& l = layers_[index];
    normalise(l.attention_norm, x_, h_, pass);
    if (recurrent_[index])
      run_linear(index, pass);
    else
      run_attention(index, pass);
    normalise(l.feed_forward_norm, x_, h_, pass);
    feed_forward(index, h_, x_, /*add=*/true, pass);
  }

 private:
  struct Linear {
    Matrix w_qkv, w_z;         // [qkv_dim, dim], [value_dim, dim]
    Matrix w_beta, w_alpha;    // [n_v_heads, dim]
    Vector taps, a, dt, norm;  // [qkv_dim * kernel], [n_v_heads], [n_v_heads], [v_dim]
    Matrix w_out;              // [dim, value_dim]
  };

  uint64_t qkv_dim() const { return 2 * delta_.n_k_heads * delta_.k_dim + delta_.n_v_heads * delta_.v_dim; }

  void declare_linear(Declarations& parts, Linear& w) {
    const uint64_t dim = hparams_.dim, value_dim = delta_.n_v_heads * delta_.v_dim;
    parts.matrix("attn_qkv.weight", qkv_dim(), dim, &w.w_qkv);
    parts.matrix("attn_gate.weight", value_dim, dim, &w.w_z);
    parts.matrix("ssm_beta.weight", delta_.n_v_heads, dim, &w.w_beta);
    parts.matrix("ssm_alpha.weight", delta_.n_v_heads, dim, &w.w_alpha);
    parts.vectors("ssm_conv1d.weight", qkv_dim(), kernel_, &w.taps);
    parts.vector("ssm_a", delta_.n_v_heads, &w.a);
    parts.vector("ssm_dt.bias", delta_.n_v_heads, &w.dt);
    parts.vector("ssm_norm.weight", delta_.v_dim, &w.norm);
    parts.matrix("ssm_out.weight", dim, value_dim, &w.w_out);
    qkv_ = parts.buffer("linear_qkv", qkv_dim());
    mixed_ = parts.buffer("linear_mixed", qkv_dim());
    z_ = parts.buffer("linear_z", value_dim);
    out_ = parts.buffer("linear_out", value_dim);
    beta_ = parts.buffer("beta", delta_.n_v_heads);
    alpha_ = parts.buffer("alpha", delta_.n_v_heads);
  }

  void run_linear(size_t index, const Pass& pass) const {
    const Linear& w = linear_[index];
    Device& device = pass.device;
    const Device::Product inputs[] = {{w.w_qkv.get(), &pass[qkv_]},
                                      {w.w_z.get(), &pass[z_]},
                                      {w.w_beta.get(), &pass[beta_]},
                                      {w.w_alpha.get(), &pass[alpha_]}};
    device.matmul(pass[h_], pass.n, inputs, /*add=*/false);
    device.convolve(index, pass.sequences, *w.taps, nullptr, kernel_, 0, pass[qkv_], pass[mixed_]);
    device.activate(Activation::kSilu, pass[mixed_], nullptr, pass.n);
    device.delta_rule(delta_, index, pass.sequences, pass[mixed_], pass[beta_], pass[alpha_], *w.a, *w.dt,
                      pass[out_]);
    device.norm_heads(pass[out_], pass.n, *w.norm, hparams_.norm_eps);
    device.activate(Activation::kSwiglu, pass[z_], &pass[out_], pass.n);
    const Device::Product out{w.w_out.get(), &pass[x_]};
    device.matmul(pass[z_], pass.n, {&out, 1}, /*add=*/true);
  }

  // Of each head, the query stands before its gate.
  void declare_attention(Declarations& parts, AttentionBlock& a) {
    const uint64_t dim = hparams_.dim, q_dim = a.shape.n_heads * a.shape.head_dim,
                   kv_dim = a.shape.n_kv_heads * a.shape.head_dim;
    parts.matrix("attn_q.weight", 2 * q_dim, dim, &a.wq);
    parts.matrix("attn_k.weight", kv_dim, dim, &a.wk);
    parts.matrix("attn_v.weight", kv_dim, dim, &a.wv);
    parts.matrix("attn_output.weight", dim, q_dim, &a.wo);
    parts.vector("attn_q.bias", 2 * q_dim, &a.bq, parts.kOptional);
    parts.vector("attn_k.bias", kv_dim, &a.bk, parts.kOptional);
    parts.vector("attn_v.bias", kv_dim, &a.bv, parts.kOptional);
    parts.vector("attn_output.bias", dim, &a.bo, parts.kOptional);
    a.declare_head_norms(parts, hparams_.norm_eps);
    a.q = parts.buffer("q", q_dim);
    a.k = parts.buffer("k", kv_dim);
    a.v = parts.buffer("v", kv_dim);
    a.out = parts.buffer("attention_out", q_dim);
    both_ = parts.buffer("q_and_gate", 2 * q_dim);
    gate_ = parts.buffer("attention_gate", q_dim);
  }

  void run_attention(size_t index, const Pass& pass) const {
    const AttentionBlock& a = layers_[index].attention;
    Device& device = pass.device;
    const size_t head_dim = a.shape.head_dim;
    const Device::Product inputs[] = {{a.wq.get(), &pass[both_], a.bq.get()},
                                      {a.wk.get(), &pass[a.k], a.bk.get()},
                                      {a.wv.get(), &pass[a.v], a.bv.get()}};
    device.matmul(pass[h_], pass.n, inputs, /*add=*/false);
    device.copy_columns(pass[both_], {0, 2 * head_dim}, head_dim, pass.n, pass[a.q], {0, head_dim});
    device.copy_columns(pass[both_], {head_dim, 2 * head_dim}, head_dim, pass.n, pass[gate_], {0, head_dim});
    const HeadSteps steps{.q_norm = a.q_norm.get(),
                          .k_norm = a.k_norm.get(),
                          .eps = a.norm_eps,
                          .rope = pass.rope_tables[0].get(),
                          .pairs = a.pairs};
    device.store_heads(a.shape, index, pass.sequences, steps, pass[a.q], pass[a.k], pass[a.v]);
    device.attention(a.shape, index, pass.sequences, pass[a.q], pass[a.out]);
    device.activate(Activation::kSigmoid, pass[gate_], &pass[a.out], pass.n);
    const Device::Product out{a.wo.get(), &pass[x_], a.bo.get()};
    device.matmul(pass[gate_], pass.n, {&out, 1}, /*add=*/true);
  }

  uint32_t kernel_;
  DeltaShape delta_{};
  std::vector<bool> recurrent_;  // of each layer
  std::vector<Linear> linear_;
  BufferId qkv_ = 0, mixed_ = 0, z_ = 0, out_ = 0, beta_ = 0, alpha_ = 0, both_ = 0, gate_ = 0;
};

class Qwen35Moe final : public WithSharedExpert<Qwen35> {
 public:
  explicit Qwen35Moe(HParamReader& keys) : WithSharedExpert(keys, /*normalise=*/true) {}
};

}  // namespace

const Architecture kQwen35{"qwen35", make_network<Qwen35>};
const Architecture kQwen35Moe{"qwen35moe", make_network<Qwen35Moe>};

}  // namespace quern
