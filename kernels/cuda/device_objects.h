// What a CudaDevice gives out: rows of activations, matrices, KV caches and routes, in a GPU's memory.
// Private to cuda_device.cc. Each is taken whole when it is made (kResource where there is no room for it)
// and used by one thread at a time; its Gpu outlives it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cpu_router.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kernel_args.h"
#include "kernels/device.h"

namespace quern::cuda {

// The kernels of a format, one behind the other in Kernel. Quantized: few_1, few_2, few_4, few_8, many,
// gather; floats: float_1, float_8, gather.
struct FormatKernels {
  DType dtype;
  bool is_float;
  Kernel first;
  Kernel at(size_t i) const { return static_cast<Kernel>(static_cast<size_t>(first) + i); }
  Kernel gather() const { return at(is_float ? 2 : 5); }
};
const FormatKernels* find_kernels(DType dtype);  // null: there are none

class CudaBuffer final : public DeviceBuffer {
 public:
  CudaBuffer(Gpu& gpu, size_t rows, size_t width)
      : DeviceBuffer(rows, width),
        memory_(gpu, uint64_t{rows} * width * sizeof(float), "a buffer of activations") {}
  float* row(size_t i) const { return memory_.as<float>() + i * width(); }

 private:
  GpuMemory memory_;
};

class CudaMatrix final : public DeviceMatrix {
 public:
  // A copy of the tensor, which is read front to back; done: of its bytes that are read no more.
  CudaMatrix(Gpu& gpu, const TensorView& tensor, const FormatKernels& of_format, const SourceDone& done);
  const FormatKernels& kernels;
  const float factor;  // of its products
  const GpuMemory panels;
};

// Layer after layer: [segment][KV head][tile][keys, values].
class CudaKvCache final : public DeviceKvCache {
 public:
  CudaKvCache(Gpu& gpu, const KvShape& shape);
  // UINT64_MAX: more than there can be.
  static uint64_t bytes(const KvShape& shape);
  const KvShape& shape() const { return shape_; }
  const KvPlace& place(size_t layer) const { return places_[layer]; }

 private:
  const KvShape shape_;
  GpuMemory memory_;
  std::vector<KvPlace> places_;
};

// The choices, on the host as the CPU's; of them on the GPU what kernels read.
class CudaRouting final : public DeviceRouting {
 public:
  CudaRouting(Gpu& gpu, size_t max_rows, size_t n_experts, size_t n_used);
  CpuRouting host;
  GpuMemory row, place, weight;  // [rows, n_used]
};

}  // namespace quern::cuda
