// Gemma 4: Gemma 3's layer with heads of two sizes and a norm of V. In the small models an embedding of each
// token for each layer, and last layers that read the keys and values of earlier ones; in the large ones
// values that are keys in layers without a window, and a mixture of experts beside the feed-forward network.
//
// Gemma Team, "Gemma 3n" and "Gemma 4" model cards, 2025 and 2026; the layer is that of the published code.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "runtime/arch/arch.h"
#include "runtime/decoder.h"

namespace quern {
namespace {

class Gemma4 final : public Decoder {
 public:
  explicit Gemma4(HParamReader& keys) : Gemma4(keys, {}, {}) {}

  // A layer that reads another's cache has no KV heads of its own.
  AttentionShape attention(size_t layer) const override {
    AttentionShape shape = Decoder::attention(layer);
    if (extras_[layer].kv_source) shape.n_kv_heads = 0;
    return shape;
  }

  std::vector<Rope> ropes(uint64_t context) const override {
    return {rope_.make(context), window_rope_.make(context)};
  }

  void declare(Declarations& parts) override {
    if (per_layer_dim_ != 0) {
      const uint64_t all = uint64_t{per_layer_dim_} * hparams_.n_layers;
      parts.embedding("per_layer_token_embd.weight", hparams_.vocab_size, all, &per_layer_embd_);
      parts.matrix("per_layer_model_proj.weight", all, hparams_.dim, &per_layer_projection_);
      parts.vector("per_layer_proj_norm.weight", per_layer_dim_, &per_layer_norm_);
      inputs_ = parts.buffer("per_layer_inputs", all);
      embedded_ = parts.buffer("per_layer_embedded", all);
      input_ = parts.buffer("per_layer_input", per_layer_dim_);
      gate_ = parts.buffer("per_layer_gate", per_layer_dim_);
    }
    Decoder::declare(parts);
  }

  void declare_layer(Declarations& parts, DecoderLayer& l) override {
    Extras& e = extras_[parts.layer()];
    l.attention_norm.declare(parts, "attn_norm", hparams_.dim);
    if (e.kv_source) {
      declare_queries(parts, l.attention);
    } else {
      const bool has_window = l.attention.shape.window != 0;
      l.attention.declare(parts, hparams_.dim,
                          /*values_are_keys=*/!has_window && !parts.holds("attn_v.weight"));
      l.attention.declare_head_norms(parts, hparams_.norm_eps);
    }
    l.feed_forward_norm.declare(parts, "ffn_norm", hparams_.dim);
    l.feed_forward.declare(parts, hparams_.dim, hidden_dims_[parts.layer()]);
    for (Norm* norm : {&e.after_attention, &e.after_feed_forward, &e.after_input})
      norm->eps = hparams_.norm_eps;
    e.after_attention.declare(parts, "post_attention_norm", hparams_.dim);
    e.after_feed_forward.declare(parts, "post_ffw_norm", hparams_.dim);
    parts.values("layer_output_scale.weight", 1, &e.scale, parts.kOptional);
    if (l.experts.n_experts != 0) declare_experts(parts, l.experts, e);
    if (per_layer_dim_ == 0) return;
    parts.matrix("inp_gate.weight", per_layer_dim_, hparams_.dim, &e.input_gate);
    parts.matrix("proj.weight", hparams_.dim, per_layer_dim_, &e.input_projection);
    e.after_input.declare(parts, "post_norm", hparams_.dim);
  }

  // inputs = (norm(projection of x / sqrt(dim)) + embeddings * sqrt(per_layer_dim)) / sqrt(2).
  void embed(std::span<const int32_t> ids, const Pass& pass) const override {
    Decoder::embed(ids, pass);
    if (per_layer_dim_ == 0) return;
    Device& device = pass.device;
    const Device::Product product{per_layer_projection_.get(), &pass[inputs_]};
    device.matmul(pass[x_], pass.n, {&product, 1}, /*add=*/false);
    device.scale(pass[inputs_], static_cast<float>(1 / std::sqrt(static_cast<double>(hparams_.dim))), pass.n);
    device.norm_heads(pass[inputs_], pass.n, *per_layer_norm_, hparams_.norm_eps);
    device.embed(*per_layer_embd_, ids, pass[embedded_]);
    device.add(pass[inputs_], pass[embedded_],
               static_cast<float>(std::sqrt(static_cast<double>(per_layer_dim_))), pass.n);
    device.scale(pass[inputs_], static_cast<float>(std::sqrt(0.5)), pass.n);
  }

  void layer(size_t index, Pass& pass) const override {
    const DecoderLayer& l = layers_[index];
    const Extras& e = extras_[index];
    Device& device = pass.device;
    normalise(l.attention_norm, x_, h_, pass);
    if (e.kv_source)
      attend_shared(index, pass);
    else
      attend(index, h_, h_, /*add=*/false, pass);
    normalise(e.after_attention, h_, h_, pass);
    device.add(pass[x_], pass[h_], 1, pass.n);
    normalise(l.feed_forward_norm, x_, h_, pass);
    l.feed_forward.run(pass[h_], pass[h_], /*add=*/false, pass);
    if (l.experts.n_experts != 0) add_experts(index, pass);
    normalise(e.after_feed_forward, h_, h_, pass);
    device.add(pass[x_], pass[h_], 1, pass.n);
    if (per_layer_dim_ != 0) {
      // x += norm(W (gelu(W_gate x) * input of this layer)).
      const Device::Product to_gate{e.input_gate.get(), &pass[gate_]},
          from_gate{e.input_projection.get(), &pass[h_]};
      device.matmul(pass[x_], pass.n, {&to_gate, 1}, /*add=*/false);
      device.copy_columns(pass[inputs_], {index * per_layer_dim_, size_t{per_layer_dim_} * hparams_.n_layers},
                          per_layer_dim_, pass.n, pass[input_], {0, per_layer_dim_});
      device.activate(Activation::kGeglu, pass[gate_], &pass[input_], pass.n);
      device.matmul(pass[gate_], pass.n, {&from_gate, 1}, /*add=*/false);
      normalise(e.after_input, h_, h_, pass);
      device.add(pass[x_], pass[h_], 1, pass.n);
    }
    if (!e.scale.empty()) device.scale(pass[x_], e.scale[0], pass.n);
  }

 private:
  Gemma4(HParamReader& keys, std::vector<uint32_t> hidden_dims, std::vector<uint32_t> kv_heads)
      : Decoder(keys, {.pairs = RopePairs::kHalves, .hidden_dims = &hidden_dims, .kv_heads = &kv_heads}),
        extras_(hparams_.n_layers),
        hidden_dims_(std::move(hidden_dims)),
        per_layer_dim_(keys.uint_or("embedding_length_per_layer_input", 0, 0, kMaxDim)) {
    embedding_scale_ = static_cast<float>(std::sqrt(static_cast<double>(hparams_.dim)));
    logit_cap_ = static_cast<float>(keys.float_or_zero("final_logit_softcapping", 0));
    const std::vector<bool> windowed = read_window_layers(keys, 6);
    const uint32_t window_dim = keys.uint_or("attention.key_length_swa", hparams_.head_dim, 2, kMaxHeadDim);
    if (keys.uint_or("attention.value_length_swa", window_dim, 2, kMaxHeadDim) != window_dim)
      keys.refuse("attention.value_length_swa", "differs from key_length_swa: not supported");
    window_rope_.pairs = rope_.pairs;
    window_rope_.base = read_rope_base(keys, "rope.freq_base_swa");
    window_rope_.rotary_dim = keys.uint_or("rope.dimension_count_swa", window_dim, 2, window_dim);
    for (size_t i = 0; i < layers_.size(); ++i) {
      AttentionBlock& attention = layers_[i].attention;
      attention.shape.n_kv_heads = kv_heads[i];
      attention.shape.scale = 1;
      attention.normalise_v = true;
      attention.rope = windowed[i] ? 1 : 0;
      if (windowed[i]) attention.shape.head_dim = window_dim;
      layers_[i].feed_forward.activation = Activation::kGeglu;
    }
    if (keys.uint_or("expert_count", 0, 0, UINT32_MAX) != 0) {
      expert_dim_ = keys.same_for_layers("expert_feed_forward_length", hparams_.n_layers, 1, kMaxDim);
      for (DecoderLayer& l : layers_) {
        read_expert_counts(keys, &l.experts.n_experts, &l.experts.n_used);
        l.experts.rule.normalise = true;
        l.experts.activation = Activation::kGeglu;
      }
    }
    const std::string_view shared_key = "attention.shared_kv_layers";
    const size_t first_shared =
        layers_.size() - keys.uint_or(shared_key, 0, 0, std::max<size_t>(layers_.size(), 1) - 1);
    for (size_t i = first_shared; i < layers_.size(); ++i) {
      size_t source = first_shared;
      while (source > 0 && windowed[source - 1] != windowed[i]) --source;
      if (source == 0)
        keys.refuse(shared_key, fmt::format("is {}, but before layer {} none of its kind keeps keys",
                                            layers_.size() - first_shared, i));
      extras_[i].kv_source = source - 1;
    }
  }

  struct Extras {
    Norm after_attention, after_feed_forward, after_input;
    Norm after_dense, before_experts, after_experts;  // where the layer has experts
    Vector router_scale;                              // [dim], weights of the norm before their router
    Matrix input_gate, input_projection;              // [per_layer_dim, dim], [dim, per_layer_dim]
    std::vector<float> scale;                         // of what the layer gives; empty: none
    std::optional<size_t> kv_source;  // the layer whose keys and values this one reads; none: its own
  };

  void declare_experts(Declarations& parts, ExpertsBlock& experts, Extras& e) {
    for (Norm* norm : {&e.after_dense, &e.before_experts, &e.after_experts}) norm->eps = hparams_.norm_eps;
    e.after_dense.declare(parts, "post_ffw_norm_1", hparams_.dim);
    e.before_experts.declare(parts, "pre_ffw_norm_2", hparams_.dim);
    e.after_experts.declare(parts, "post_ffw_norm_2", hparams_.dim);
    parts.vector("ffn_gate_inp.scale", hparams_.dim, &e.router_scale);
    experts.declare(parts, hparams_.dim, expert_dim_);
    mixture_ = parts.buffer("mixture", hparams_.dim);
  }

  // h = norm(h) + norm(experts of norm(x)). The router reads x by a norm of its own, over sqrt(dim).
  void add_experts(size_t index, const Pass& pass) const {
    const ExpertsBlock& experts = layers_[index].experts;
    const Extras& e = extras_[index];
    Device& device = pass.device;
    normalise(e.after_dense, h_, h_, pass);
    device.rms_norm(pass[x_], 0, pass.n, *e.router_scale, hparams_.norm_eps, pass[mixture_], 0);
    device.scale(pass[mixture_], static_cast<float>(1 / std::sqrt(static_cast<double>(hparams_.dim))),
                 pass.n);
    experts.choose(pass[mixture_], pass);
    normalise(e.before_experts, x_, mixture_, pass);
    experts.run_chosen(pass[mixture_], pass[mixture_], /*add=*/false, pass);
    normalise(e.after_experts, mixture_, mixture_, pass);
    device.add(pass[h_], pass[mixture_], 1, pass.n);
  }

  void declare_queries(Declarations& parts, AttentionBlock& a) const {
    const uint64_t q_dim = a.shape.n_heads * a.shape.head_dim;
    parts.matrix("attn_q.weight", q_dim, hparams_.dim, &a.wq);
    parts.matrix("attn_output.weight", hparams_.dim, q_dim, &a.wo);
    parts.vector("attn_q.bias", q_dim, &a.bq, parts.kOptional);
    parts.vector("attn_output.bias", hparams_.dim, &a.bo, parts.kOptional);
    parts.vector("attn_q_norm.weight", a.shape.head_dim, &a.q_norm);
    a.norm_eps = hparams_.norm_eps;
    a.q = parts.buffer("q", q_dim);
    a.out = parts.buffer("attention_out", q_dim);
  }

  // h = attention of h over another layer's cache.
  void attend_shared(size_t index, const Pass& pass) const {
    const AttentionBlock& a = layers_[index].attention;
    Device& device = pass.device;
    const Device::Product to_q{a.wq.get(), &pass[a.q], a.bq.get()},
        from_heads{a.wo.get(), &pass[h_], a.bo.get()};
    device.matmul(pass[h_], pass.n, {&to_q, 1}, /*add=*/false);
    const HeadSteps steps{.q_norm = a.q_norm.get(),
                          .eps = a.norm_eps,
                          .rope = pass.rope_tables[*a.rope].get(),
                          .pairs = a.pairs};
    // Without KV heads nothing is stored.
    device.store_heads(attention(index), index, pass.sequences, steps, pass[a.q], pass[a.q], pass[a.q]);
    device.attention(a.shape, *extras_[index].kv_source, pass.sequences, pass[a.q], pass[a.out]);
    device.matmul(pass[a.out], pass.n, {&from_heads, 1}, /*add=*/false);
  }

  RopeSettings window_rope_;
  std::vector<Extras> extras_;
  std::vector<uint32_t> hidden_dims_;  // of each layer
  uint32_t per_layer_dim_;             // 0: no embeddings for layers
  uint64_t expert_dim_ = 0;
  Matrix per_layer_embd_;        // [vocab_size, n_layers * per_layer_dim]
  Matrix per_layer_projection_;  // [n_layers * per_layer_dim, dim]
  Vector per_layer_norm_;        // [per_layer_dim]
  BufferId inputs_ = 0, embedded_ = 0, input_ = 0, gate_ = 0, mixture_ = 0;
};

}  // namespace

const Architecture kGemma4{"gemma4", make_network<Gemma4>};

}  // namespace quern
