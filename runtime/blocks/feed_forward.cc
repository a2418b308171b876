#include "runtime/blocks/feed_forward.h"

namespace quern {

void FeedForwardBlock::declare(Declarations& parts, uint64_t dim, uint64_t hidden_dim,
                               std::string_view suffix) {
  const auto name = [&](std::string_view what, std::string_view kind) {
    return fmt::format("ffn_{}{}.{}", what, suffix, kind);
  };
  const bool gated = is_gated(activation);
  if (gated && !parts.holds(name("gate", "weight"))) {
    parts.stacked(name("up", "weight"), {{hidden_dim, &w_gate}, {hidden_dim, &w_up}}, dim);
  } else {
    if (gated) {
      parts.matrix(name("gate", "weight"), hidden_dim, dim, &w_gate);
      parts.vector(name("gate", "bias"), hidden_dim, &b_gate, parts.kOptional);
    }
    parts.matrix(name("up", "weight"), hidden_dim, dim, &w_up);
    parts.vector(name("up", "bias"), hidden_dim, &b_up, parts.kOptional);
  }
  parts.matrix(name("down", "weight"), dim, hidden_dim, &w_down);
  parts.vector(name("down", "bias"), dim, &b_down, parts.kOptional);
  up = parts.buffer("up", hidden_dim);
  gate = gated ? parts.buffer("gate", hidden_dim) : up;
}

void FeedForwardBlock::run(const DeviceBuffer& x, DeviceBuffer& y, bool add, const Pass& pass) const {
  const Device::Product gate_up[] = {{w_gate.get(), &pass[gate], b_gate.get()},
                                     {w_up.get(), &pass[up], b_up.get()}};
  const bool gated = is_gated(activation);
  pass.device.matmul(x, pass.n, std::span(gate_up).subspan(gated ? 0 : 1), /*add=*/false);
  pass.device.activate(activation, pass[gate], gated ? &pass[up] : nullptr, pass.n);
  const Device::Product product{w_down.get(), &y, b_down.get()};
  pass.device.matmul(pass[gate], pass.n, {&product, 1}, add);
}

}  // namespace quern
