// The feed-forward network: y = W_down act(W_gate x, W_up x), or W_down act(W_up x) where it is not gated.
#pragma once

#include <string_view>

#include "runtime/declarations.h"
#include "runtime/network.h"

namespace quern {

struct FeedForwardBlock {
  Activation activation = Activation::kSwiglu;
  Matrix w_gate, w_up;          // [hidden_dim, dim]; w_gate: where it is gated
  Matrix w_down;                // [dim, hidden_dim]
  Vector b_gate, b_up, b_down;  // where the file has them
  BufferId gate = 0, up = 0;

  // ffn_gate<suffix>, ffn_up<suffix>, ffn_down<suffix> of the declared layer. Where the file has no ffn_gate
  // of a gated network, ffn_up holds both, the gate first. Set `activation` first.
  void declare(Declarations& parts, uint64_t dim, uint64_t hidden_dim, std::string_view suffix = "");
  // y = of x; y = y + it with `add`.
  void run(const DeviceBuffer& x, DeviceBuffer& y, bool add, const Pass& pass) const;
};

}  // namespace quern
