// The expert that every token takes, behind a gate: x += sigmoid(w x) * feed_forward(x).
#pragma once

#include "runtime/blocks/feed_forward.h"

namespace quern {

struct GatedSharedExpert {
  FeedForwardBlock network;
  Matrix w;  // [1, dim]
  BufferId gate = 0, out = 0;

  // ffn_gate_inp_shexp, ffn_gate_shexp, ffn_up_shexp, ffn_down_shexp.
  void declare(Declarations& parts, uint64_t dim, uint64_t hidden_dim);
  // y = y + it of x.
  void add(const DeviceBuffer& x, DeviceBuffer& y, const Pass& pass) const;
};

}  // namespace quern
