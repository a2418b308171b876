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
  // and their biases. Set `shape` first.
  void declare(Declarations& parts, uint64_t dim);
  // attn_q_norm, attn_k_norm.
  void declare_head_norms(Declarations& parts, float eps);
  void declare_whole_norms(Declarations& parts, float eps);
  // y = attention of x as layer `layer`; y = y + it with `add`.
  void run(size_t layer, const DeviceBuffer& x, DeviceBuffer& y, bool add, const Pass& pass) const;

 private:
  bool norms_are_whole_ = false;
};

}  // namespace quern
