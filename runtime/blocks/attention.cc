#include "runtime/blocks/attention.h"

namespace quern {

void AttentionBlock::declare(Declarations& parts, uint64_t dim, bool values_are_keys) {
  const uint64_t q_dim = shape.n_heads * shape.head_dim, kv_dim = shape.n_kv_heads * shape.head_dim;
  if (parts.holds("attn_qkv.weight")) {
    parts.stacked("attn_qkv.weight", {{q_dim, &wq}, {kv_dim, &wk}, {kv_dim, &wv}}, dim);
    parts.stacked_vectors("attn_qkv.bias", {{q_dim, &bq}, {kv_dim, &bk}, {kv_dim, &bv}}, parts.kOptional);
  } else {
    parts.matrix("attn_q.weight", q_dim, dim, &wq);
    parts.matrix("attn_k.weight", kv_dim, dim, &wk);
    parts.vector("attn_q.bias", q_dim, &bq, parts.kOptional);
    parts.vector("attn_k.bias", kv_dim, &bk, parts.kOptional);
    if (!values_are_keys) {
      parts.matrix("attn_v.weight", kv_dim, dim, &wv);
      parts.vector("attn_v.bias", kv_dim, &bv, parts.kOptional);
    }
  }
  parts.matrix("attn_output.weight", dim, q_dim, &wo);
  parts.vector("attn_output.bias", dim, &bo, parts.kOptional);
  q = parts.buffer("q", q_dim);
  k = parts.buffer("k", kv_dim);
  v = parts.buffer("v", kv_dim);
  out = parts.buffer("attention_out", q_dim);
}

void AttentionBlock::declare_head_norms(Declarations& parts, float eps) {
  parts.vector("attn_q_norm.weight", shape.head_dim, &q_norm);
  parts.vector("attn_k_norm.weight", shape.head_dim, &k_norm);
  norm_eps = eps;
}

void AttentionBlock::declare_whole_norms(Declarations& parts, float eps) {
  parts.vector("attn_q_norm.weight", shape.n_heads * shape.head_dim, &q_norm);
  parts.vector("attn_k_norm.weight", shape.n_kv_heads * shape.head_dim, &k_norm);
  norm_eps = eps;
  norms_are_whole_ = true;
}

void AttentionBlock::run(size_t layer, const DeviceBuffer& x, DeviceBuffer& y, bool add,
                         const Pass& pass) const {
  project(x, pass);
  if (norms_are_whole_) normalise_whole(pass);
  finish(layer, y, add, pass);
}

void AttentionBlock::project(const DeviceBuffer& x, const Pass& pass) const {
  const Device::Product qkv[] = {
      {wq.get(), &pass[q], bq.get()}, {wk.get(), &pass[k], bk.get()}, {wv.get(), &pass[v], bv.get()}};
  const bool has_values = wv != nullptr;
  pass.device.matmul(x, pass.n, std::span(qkv).first(has_values ? 3 : 2), /*add=*/false);
  const size_t width = shape.n_kv_heads * shape.head_dim;
  if (!has_values) pass.device.copy_columns(pass[k], {0, width}, width, pass.n, pass[v], {0, width});
}

void AttentionBlock::normalise_whole(const Pass& pass) const {
  pass.device.rms_norm(pass[q], 0, pass.n, *q_norm, norm_eps, pass[q], 0);
  pass.device.rms_norm(pass[k], 0, pass.n, *k_norm, norm_eps, pass[k], 0);
}

void AttentionBlock::finish(size_t layer, DeviceBuffer& y, bool add, const Pass& pass) const {
  HeadSteps steps{.eps = norm_eps, .pairs = pairs};
  if (!norms_are_whole_) {
    steps.q_norm = q_norm.get();
    steps.k_norm = k_norm.get();
  }
  if (rope) steps.rope = pass.rope_tables[*rope].get();
  steps.normalise_v = normalise_v;
  if (scale_queries) steps.q_scale = pass.query_scales;
  pass.device.store_heads(shape, layer, pass.sequences, steps, pass[q], pass[k], pass[v]);
  pass.device.attention(shape, layer, pass.sequences, pass[q], pass[out], sinks.get());
  const Device::Product product{wo.get(), &y, bo.get()};
  pass.device.matmul(pass[out], pass.n, {&product, 1}, add);
}

}  // namespace quern
