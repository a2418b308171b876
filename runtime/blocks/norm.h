// RMSNorm or LayerNorm of rows, with the vectors that go with it.
#pragma once

#include <string_view>

#include "runtime/declarations.h"

namespace quern {

enum class NormKind : uint8_t {
  kRms,
  kLayer,  // with a bias where the file has one
};

struct Norm {
  NormKind kind = NormKind::kRms;
  float eps = 0;
  Vector weight, bias;

  // "<name>.weight": [dim].
  void declare(Declarations& parts, std::string_view name, uint64_t dim) {
    parts.vector(std::string(name) + ".weight", dim, &weight);
    if (kind == NormKind::kLayer) parts.vector(std::string(name) + ".bias", dim, &bias, parts.kOptional);
  }
  // y[y_row + t] = norm(x[x_row + t]) for t < n. y may be x.
  void run(Device& device, const DeviceBuffer& x, size_t x_row, size_t n, DeviceBuffer& y,
           size_t y_row) const {
    if (kind == NormKind::kRms)
      device.rms_norm(x, x_row, n, *weight, eps, y, y_row);
    else
      device.layer_norm(x, x_row, n, *weight, bias.get(), eps, y, y_row);
  }
};

}  // namespace quern
