#include "runtime/blocks/shared_expert.h"

namespace quern {

void GatedSharedExpert::declare(Declarations& parts, uint64_t dim, uint64_t hidden_dim) {
  parts.matrix("ffn_gate_inp_shexp.weight", 1, dim, &w);
  network.declare(parts, dim, hidden_dim, "_shexp");
  gate = parts.buffer("shared_gate", 1);
  out = parts.buffer("shared_out", dim);
}

void GatedSharedExpert::add(const DeviceBuffer& x, DeviceBuffer& y, const Pass& pass) const {
  const Device::Product product{w.get(), &pass[gate]};
  pass.device.matmul(x, pass.n, {&product, 1}, /*add=*/false);
  network.run(x, pass[out], /*add=*/false, pass);
  pass.device.add_gated(y, pass[out], pass[gate], pass.n);
}

}  // namespace quern
