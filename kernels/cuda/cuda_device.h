// A GPU as a Device: the CPU's bits (arithmetic.md), whatever runs its kernels.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/device.h"

namespace quern::cuda {

class Gpu;

// What it cannot do: recurrent layers (convolve, delta_rule), and matrices of formats that can_multiply()
// denies. Matrices are copied whole into the GPU's memory, as panels. Buffers, caches and scratch are taken
// when they are allocated or reserved, and never grow afterwards within what was reserved.
class CudaDevice : public Device {
 public:
  virtual bool can_multiply(DType dtype) const = 0;
  virtual uint64_t free_memory() = 0;
  virtual uint64_t total_memory() = 0;
  virtual std::string driver() const = 0;  // its version; empty: none
};

std::unique_ptr<CudaDevice> make_cuda_device(std::unique_ptr<Gpu> gpu);

}  // namespace quern::cuda
