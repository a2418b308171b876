// Two devices that act as one: what a decorator over Device can do with nothing but its interface.
//
// Layers take turns between the two: each layer's caches and recurrent states, and its matrices, lie on one
// of them. The rows of a matrix of at least 32 rows that is multiplied are split between both, and what comes
// out of the halves is put together column by column. A buffer is on either device or on both; what is needed
// on the other one is downloaded and uploaded. No bit depends on any of that.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/device.h"

namespace quern::test {

// What has happened between them.
struct TwoDevicesCounts {
  uint64_t copied_buffers = 0, split_products = 0;
  uint64_t operations[2] = {0, 0};  // of each device, on its caches
};

// counts: may be null; else must outlive the device.
std::unique_ptr<Device> make_two_devices(std::unique_ptr<Device> first, std::unique_ptr<Device> second,
                                         TwoDevicesCounts* counts);

}  // namespace quern::test
