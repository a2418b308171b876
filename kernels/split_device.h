// Several devices that act as one: each layer, with its matrices, cache and operations, is on one of them.
//
// A value goes from one device to another, through the host, when it is needed there: the residual stream
// where two layers that follow one another are on different devices, and the tables of a pass. No result
// depends on where layers are.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/device.h"

namespace quern {

// Indices of devices; 0 is the host.
struct LayerPlaces {
  std::vector<size_t> layers;
  size_t output = 0;  // of what stands behind the last layer
};

// What it has copied between its devices.
struct CrossingCounts {
  uint64_t copies = 0, bytes = 0;
};

// devices: the CPU first. What stands before the first layer is there, and so are tables whose rows are only
// read one by one, also of a matrix that is multiplied elsewhere (MatrixUse::kBoth). Bytes that it is asked
// about (matrix_memory, kv_bytes, buffer_bytes, scratch_bytes) are the host's alone. counts: may be null;
// else must outlive it.
std::unique_ptr<Device> make_split_device(std::vector<std::unique_ptr<Device>> devices, LayerPlaces places,
                                          CrossingCounts* counts = nullptr);

}  // namespace quern
