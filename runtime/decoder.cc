#include "runtime/decoder.h"

namespace quern {
namespace {

std::string_view epsilon_key(NormKind norm) {
  return norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
}

}  // namespace

Decoder::Decoder(HParamReader& keys, const DecoderTraits& traits)
    : Network(read_common_hparams(keys, epsilon_key(traits.norm), traits.attends, traits.hidden_dims,
                                  traits.kv_heads),
              traits.norm),
      traits_(traits) {
  if (traits.rotates) rope_.read(keys, hparams_.head_dim, traits.partial_rotation);
  rope_.pairs = traits.pairs;
  layers_.resize(hparams_.n_layers);
  for (DecoderLayer& l : layers_) {
    for (Norm* norm :
         {&l.attention_norm, &l.feed_forward_norm, &l.attention_norm_behind, &l.feed_forward_norm_behind}) {
      norm->kind = traits.norm;
      norm->eps = hparams_.norm_eps;
    }
    l.attention.shape = {hparams_.n_heads, hparams_.n_kv_heads, hparams_.head_dim};
    l.attention.pairs = traits.pairs;
    if (traits.rotates) l.attention.rope = 0;
  }
}

void Decoder::declare(Declarations& parts) {
  declare_ends(parts, traits_.output_norm);
  rope_.declare(parts);
  for (size_t i = 0; i < layers_.size(); ++i) {
    parts.layer(i);
    declare_layer(parts, layers_[i]);
  }
}

void Decoder::declare_layer(Declarations& parts, DecoderLayer& l) {
  const bool before = traits_.norms != NormPlaces::kBehind, behind = traits_.norms != NormPlaces::kBefore;
  if (before) l.attention_norm.declare(parts, "attn_norm", hparams_.dim);
  l.attention.declare(parts, hparams_.dim);
  if (behind) l.attention_norm_behind.declare(parts, "post_attention_norm", hparams_.dim);
  if (before) l.feed_forward_norm.declare(parts, "ffn_norm", hparams_.dim);
  if (l.experts.n_experts == 0) l.feed_forward.declare(parts, hparams_.dim, hparams_.hidden_dim);
  if (behind) l.feed_forward_norm_behind.declare(parts, "post_ffw_norm", hparams_.dim);
}

std::vector<Rope> Decoder::ropes(uint64_t context) const {
  if (!traits_.rotates) return {};
  return {rope_.make(context)};
}

void Decoder::feed_forward(size_t index, BufferId x, BufferId y, bool add, const Pass& pass) const {
  const DecoderLayer& l = layers_[index];
  if (l.experts.n_experts != 0)
    l.experts.run(pass[x], pass[y], add, pass);
  else
    l.feed_forward.run(pass[x], pass[y], add, pass);
}

void Decoder::layer(size_t index, Pass& pass) const {
  const DecoderLayer& l = layers_[index];
  const bool before = traits_.norms != NormPlaces::kBehind, behind = traits_.norms != NormPlaces::kBefore;
  const auto half = [&](const Norm& norm_before, const Norm& norm_behind, auto&& run) {
    if (before) normalise(norm_before, x_, h_, pass);
    run(before ? h_ : x_, behind ? h_ : x_, /*add=*/!behind);
    if (!behind) return;
    normalise(norm_behind, h_, h_, pass);
    pass.device.add(pass[x_], pass[h_], 1, pass.n);
  };
  half(l.attention_norm, l.attention_norm_behind,
       [&](BufferId x, BufferId y, bool add) { attend(index, x, y, add, pass); });
  if (index + 1 == layers_.size()) drop_rows(pass);
  if (pass.n == 0) return;
  half(l.feed_forward_norm, l.feed_forward_norm_behind,
       [&](BufferId x, BufferId y, bool add) { feed_forward(index, x, y, add, pass); });
}

std::vector<bool> Decoder::read_window_layers(HParamReader& keys, uint32_t period) {
  const std::string_view key = "attention.sliding_window_pattern";
  std::vector<bool> marked(layers_.size());
  for (size_t i = 0; i < marked.size(); ++i) marked[i] = period != 0 && (i + 1) % period != 0;
  if (const GgufValue* value = keys.find(key)) {
    const auto pattern = value->as_bools();
    if (pattern && pattern->size() == marked.size())
      marked = *pattern;
    else if (const auto every = value->as_uint(); every && *every >= 1)
      for (size_t i = 0; i < marked.size(); ++i) marked[i] = (i + 1) % *every != 0;
    else
      keys.refuse(key,
                  fmt::format("expected {} booleans (one for each layer), or a number >= 1", marked.size()));
  }
  const uint32_t window = keys.uint_or("attention.sliding_window", 0, 0, UINT32_MAX);
  for (size_t i = 0; i < marked.size(); ++i) {
    marked[i] = marked[i] && window != 0;
    if (marked[i]) layers_[i].attention.shape.window = window;
  }
  return marked;
}

}  // namespace quern
