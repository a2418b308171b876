// DeepSeek V2 and its relatives: attention over compressed latents (MLA), in its absorbed form: one KV head
// whose key is a rotated part and the latent, and whose value is the latent.
//
// DeepSeek-AI, "DeepSeek-V2", 2024, sections 2.1 and 2.2; "DeepSeek-V3", 2024, section 2.1.2 for the router.
#include <cmath>

#include "kernels/math_f64.h"
#include "runtime/arch/arch.h"
#include "runtime/blocks/experts.h"
#include "runtime/blocks/feed_forward.h"
#include "runtime/blocks/norm.h"
#include "runtime/hparam_reader.h"
#include "runtime/network.h"

namespace quern {
namespace {

class DeepSeek2 final : public Network {
 public:
  explicit DeepSeek2(HParamReader& keys)
      : Network(read_model_sizes(keys, "attention.layer_norm_rms_epsilon"), NormKind::kRms),
        layers_(hparams_.n_layers) {
    hparams_.hidden_dim = keys.require_uint("feed_forward_length", 1, kMaxDim);
    hparams_.n_heads = keys.require_uint("attention.head_count", 1, kMaxHeads);
    hparams_.n_kv_heads = keys.uint_or("attention.head_count_kv", 1, 1, 1);
    q_rank_ = keys.uint_or("attention.q_lora_rank", 0, 0, kMaxDim);
    latent_ = keys.require_uint("attention.kv_lora_rank", 1, kMaxHeadDim);
    const uint32_t key_dim = keys.require_uint("attention.key_length_mla", 2, kMaxHeadDim);
    value_dim_ = keys.require_uint("attention.value_length_mla", 1, kMaxHeadDim);
    rotary_ = keys.require_uint("rope.dimension_count", 2, key_dim - 1);
    plain_ = key_dim - rotary_;
    hparams_.head_dim = rotary_ + latent_;
    keys.uint_or("attention.key_length", hparams_.head_dim, hparams_.head_dim, hparams_.head_dim);
    keys.uint_or("attention.value_length", latent_, latent_, latent_);
    rope_.read(keys, rotary_, /*partial=*/false);
    shape_ = {hparams_.n_heads, 1, hparams_.head_dim};
    shape_.scale = 1 / std::sqrt(static_cast<double>(key_dim));
    // YaRN's temperature acts on whole scores here, not on what is rotated alone.
    const double log_multiplier = keys.float_or_zero("rope.scaling.yarn_log_multiplier", 0);
    if (rope_.scaling == RopeSettings::Scaling::kYarn && log_multiplier != 0 && rope_.factor > 1) {
      const double magnitude = 1 + log_multiplier * ln(rope_.factor);
      shape_.scale *= magnitude * magnitude;
      rope_.magnitude = keys.float_or("rope.scaling.yarn_attn_factor", 1);
    }

    n_dense_ = keys.uint_or("leading_dense_block_count", 0, 0, hparams_.n_layers);
    const auto latent_eps = static_cast<float>(
        keys.gguf().float_or("quern.attention.latent_norm_epsilon", static_cast<double>(hparams_.norm_eps)));
    for (Layer& l : layers_) {
      l.attention_norm.eps = l.feed_forward_norm.eps = hparams_.norm_eps;
      l.q_norm.eps = l.kv_norm.eps = latent_eps;
    }
    if (n_dense_ == hparams_.n_layers) {
      keys.ignore({"expert_count", "expert_used_count", "expert_shared_count", "expert_feed_forward_length",
                   "expert_weights_scale", "expert_weights_norm", "expert_gating_func", "expert_group_count",
                   "expert_group_used_count"});
      return;
    }
    expert_dim_ = keys.require_uint("expert_feed_forward_length", 1, kMaxDim);
    shared_dim_ = expert_dim_ * keys.uint_or("expert_shared_count", 0, 0, 64);
    constexpr uint32_t kSigmoid = 2;
    const uint32_t gating = keys.uint_or("expert_gating_func", 1, 1, 2);
    for (size_t i = n_dense_; i < layers_.size(); ++i) {
      ExpertsBlock& experts = layers_[i].experts;
      read_expert_counts(keys, &experts.n_experts, &experts.n_used);
      experts.rule.score = gating == kSigmoid ? RouterScore::kSigmoid : RouterScore::kSoftmax;
      read_expert_groups(keys, experts.n_experts, experts.n_used, &experts.rule);
      experts.rule.normalise = keys.bool_or("expert_weights_norm", false);
      experts.rule.scale = static_cast<float>(keys.float_or("expert_weights_scale", 1));
    }
  }

  AttentionShape attention(size_t) const override { return shape_; }
  std::vector<Rope> ropes(uint64_t context) const override { return {rope_.make(context)}; }
  uint64_t usual_context() const override { return rope_.usual_context(); }

  void declare(Declarations& parts) override {
    declare_ends(parts);
    rope_.declare(parts);
    const uint64_t dim = hparams_.dim, n_heads = hparams_.n_heads;
    const uint64_t q_dim = n_heads * (plain_ + rotary_);
    raw_q_ = parts.buffer("raw_q", q_dim);
    q_ = parts.buffer("q", n_heads * hparams_.head_dim);
    kv_ = parts.buffer("kv", latent_ + rotary_);
    latents_ = parts.buffer("latents", latent_);
    k_ = parts.buffer("k", hparams_.head_dim);
    v_ = parts.buffer("v", hparams_.head_dim);
    out_ = parts.buffer("attention_out", n_heads * hparams_.head_dim);
    values_ = parts.buffer("values", n_heads * value_dim_);
    if (q_rank_ != 0) low_q_ = parts.buffer("low_q", q_rank_);
    for (size_t i = 0; i < layers_.size(); ++i) {
      Layer& l = layers_[i];
      parts.layer(i);
      l.attention_norm.declare(parts, "attn_norm", dim);
      if (q_rank_ == 0) {
        parts.matrix("attn_q.weight", q_dim, dim, &l.wq);
      } else {
        parts.matrix("attn_q_a.weight", q_rank_, dim, &l.wq_a);
        parts.vector("attn_q_a.bias", q_rank_, &l.bq_a, parts.kOptional);
        l.q_norm.declare(parts, "attn_q_a_norm", q_rank_);
        parts.matrix("attn_q_b.weight", q_dim, q_rank_, &l.wq);
      }
      parts.matrix("attn_kv_a_mqa.weight", latent_ + rotary_, dim, &l.wkv);
      parts.vector("attn_kv_a_mqa.bias", latent_ + rotary_, &l.bkv, parts.kOptional);
      l.kv_norm.declare(parts, "attn_kv_a_norm", latent_);
      parts.experts("attn_k_b.weight", n_heads, n_heads, latent_, plain_, &l.wk_b);
      parts.experts("attn_v_b.weight", n_heads, n_heads, value_dim_, latent_, &l.wv_b);
      parts.matrix("attn_output.weight", dim, n_heads * value_dim_, &l.wo);
      parts.vector("attn_output.bias", dim, &l.bo, parts.kOptional);
      l.feed_forward_norm.declare(parts, "ffn_norm", dim);
      if (i < n_dense_) {
        l.feed_forward.declare(parts, dim, hparams_.hidden_dim);
      } else {
        l.experts.declare(parts, dim, expert_dim_);
        if (shared_dim_ != 0) l.feed_forward.declare(parts, dim, shared_dim_, "_shexp");
      }
    }
  }

  void layer(size_t index, Pass& pass) const override {
    const Layer& l = layers_[index];
    DeviceBuffer &x = pass[x_], &h = pass[h_];
    l.attention_norm.run(pass.device, x, 0, pass.n, h, 0);
    attend(index, pass);
    l.feed_forward_norm.run(pass.device, x, 0, pass.n, h, 0);
    if (index < n_dense_) return l.feed_forward.run(h, x, /*add=*/true, pass);
    l.experts.run(h, x, /*add=*/true, pass);
    if (shared_dim_ != 0) l.feed_forward.run(h, x, /*add=*/true, pass);
  }

 private:
  struct Layer {
    Norm attention_norm, feed_forward_norm, q_norm, kv_norm;
    Matrix wq_a, wq;                // [q_rank, dim]; [n_heads * (plain + rotary), q_rank or dim]
    Matrix wkv;                     // [latent + rotary, dim]
    Experts wk_b, wv_b;             // of each head: [latent, plain], [value_dim, latent]
    Matrix wo;                      // [dim, n_heads * value_dim]
    Vector bq_a, bkv, bo;           // their biases; null: none
    FeedForwardBlock feed_forward;  // of dense layers; else the shared expert
    ExpertsBlock experts;
  };

  // x += attention(h). A head's query and key are [rotated part, latent part].
  void attend(size_t index, const Pass& pass) const {
    const Layer& l = layers_[index];
    Device& device = pass.device;
    const DeviceBuffer* q_input = &pass[h_];
    if (q_rank_ != 0) {
      const Device::Product low{l.wq_a.get(), &pass[low_q_], l.bq_a.get()};
      device.matmul(pass[h_], pass.n, {&low, 1}, /*add=*/false);
      l.q_norm.run(device, pass[low_q_], 0, pass.n, pass[low_q_], 0);
      q_input = &pass[low_q_];
    }
    const Device::Product to_q{l.wq.get(), &pass[raw_q_]}, to_kv{l.wkv.get(), &pass[kv_], l.bkv.get()};
    device.matmul(*q_input, pass.n, {&to_q, 1}, /*add=*/false);
    device.matmul(pass[h_], pass.n, {&to_kv, 1}, /*add=*/false);

    const size_t head_dim = hparams_.head_dim, raw_dim = plain_ + rotary_, kv_dim = latent_ + rotary_;
    device.copy_columns(pass[raw_q_], {plain_, raw_dim}, rotary_, pass.n, pass[q_], {0, head_dim});
    device.matmul_columns(pass[raw_q_], {0, raw_dim}, l.wk_b, pass.n, pass[q_], {rotary_, head_dim});
    device.copy_columns(pass[kv_], {0, kv_dim}, latent_, pass.n, pass[latents_], {0, latent_});
    l.kv_norm.run(device, pass[latents_], 0, pass.n, pass[latents_], 0);
    for (const BufferId to : {k_, v_}) {
      device.copy_columns(pass[kv_], {latent_, kv_dim}, rotary_, pass.n, pass[to], {0, head_dim});
      device.copy_columns(pass[latents_], {0, latent_}, latent_, pass.n, pass[to], {rotary_, head_dim});
    }
    const HeadSteps steps{.rope = pass.rope_tables[0].get(), .pairs = RopePairs::kNeighbours};
    device.store_heads(shape_, index, pass.sequences, steps, pass[q_], pass[k_], pass[v_]);
    device.attention(shape_, index, pass.sequences, pass[q_], pass[out_]);
    device.matmul_columns(pass[out_], {rotary_, head_dim}, l.wv_b, pass.n, pass[values_], {0, value_dim_});
    const Device::Product to_x{l.wo.get(), &pass[x_], l.bo.get()};
    device.matmul(pass[values_], pass.n, {&to_x, 1}, /*add=*/true);
  }

  RopeSettings rope_;
  AttentionShape shape_{};
  uint32_t q_rank_ = 0, latent_ = 0, value_dim_ = 0, rotary_ = 0, plain_ = 0;  // plain: what is not rotated
  uint32_t n_dense_ = 0, expert_dim_ = 0, shared_dim_ = 0;
  std::vector<Layer> layers_;
  BufferId raw_q_ = 0, q_ = 0, low_q_ = 0, kv_ = 0, latents_ = 0, k_ = 0, v_ = 0, out_ = 0, values_ = 0;
};

}  // namespace

const Architecture kDeepSeek2{"deepseek2", make_network<DeepSeek2>};

}  // namespace quern
