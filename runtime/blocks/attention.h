// Attention with grouped heads, as most decoders have it: x * Wq, Wk, Wv; norms of heads and rotation, where
// a model has them; cache; x * Wo.
#pragma once

#include <optional>

#include "runtime/declarations.h"
#include "runtime/network.h"

namespace quern {

struct AttentionBlock {
  AttentionShape shape{};
  std::optional<size_t> rope;  // index in Network::ropes(); none: positions are not encoded
  RopePairs pairs = RopePairs::kNeighbours;
  bool normalise_v = false;    // heads of V, without weights
  bool scale_queries = false;  // by Network::query_scale of their positions

  Matrix wq;              // [n_heads * head_dim, dim]
  Matrix wk, wv;          // [n_kv_heads * head_dim, dim]
  Matrix wo;              // [dim, n_heads * head_dim]
  Vector bq, bk, bv, bo;  // where the file has them
  Vector q_norm, k_norm;  // [head_dim] of every head, or [n_heads * head_dim] of all together
  Vector sinks;           // [n_heads]
  float norm_eps = 0;
  BufferId q = 0, k = 0, v = 0, out = 0;

  // attn_q, attn_k, attn_v (or all as attn_qkv, where the file has it) and attn_output of the declared layer,
  // and their biases. Set `shape` first. values_are_keys: there is no attn_v, V is K before its norm.
  void declare(Declarations& parts, uint64_t dim, bool values_are_keys = false);
  // attn_q_norm, attn_k_norm.
  void declare_head_norms(Declarations& parts, float eps);
  void declare_whole_norms(Declarations& parts, float eps);
  // y = attention of x as layer `layer`; y = y + it with `add`.
  void run(size_t layer, const DeviceBuffer& x, DeviceBuffer& y, bool add, const Pass& pass) const;
  // Its two halves, for models that do something of their own between them: Q, K and V of x, and all that
  // follows the norms of the whole.
  void project(const DeviceBuffer& x, const Pass& pass) const;
  void finish(size_t layer, DeviceBuffer& y, bool add, const Pass& pass) const;
  void normalise_whole(const Pass& pass) const;

 private:
  bool norms_are_whole_ = false;
};

}  // namespace quern
