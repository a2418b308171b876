// What a CudaDevice needs of whoever runs its kernels: a GPU behind its driver, or the emulation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/cuda/kernel_list.h"

namespace quern::cuda {

struct LaunchShape {
  int x = 1, y = 1, z = 1;  // blocks
  int threads = 32;
  size_t shared_bytes = 0;
  bool operator==(const LaunchShape&) const = default;
};

// One thread at a time. Copies and launches happen in the order of the calls. Errors: kResource where memory
// is not there, kIo where the GPU or its driver fails; what was allocated can still be given back then.
class Gpu {
 public:
  virtual ~Gpu() = default;

  virtual std::string name() const = 0;    // "NVIDIA H200", "emulated"
  virtual std::string driver() const = 0;  // its version; empty: none
  struct Memory {
    uint64_t free, total;  // bytes
  };
  virtual Memory memory() = 0;

  // Aligned to 256 bytes, not initialised. what: for the error ("weights").
  virtual void* allocate(uint64_t n_bytes, std::string_view what) = 0;
  virtual void release(void* memory) noexcept = 0;
  virtual void clear(void* memory, uint64_t n_bytes) = 0;  // zeros
  // `from`, on the host, may change when it returns.
  virtual void upload(void* to, const void* from, uint64_t n_bytes) = 0;
  // Waits for all that was asked for before.
  virtual void download(void* to, const void* from, uint64_t n_bytes) = 0;
  // args: of the kernel's type; copied.
  virtual void launch(Kernel kernel, const LaunchShape& shape, const void* args, size_t n_bytes) = 0;

  // Launches in their order, to be asked for as one and as often as wanted; args are copied. Null: there is
  // no memory for it. What they use must be there whenever they are launched. Before the Gpu goes, a graph
  // goes.
  struct Launch {
    Kernel kernel;
    LaunchShape shape;
    const void* args;
    size_t n_bytes;
  };
  virtual void* make_graph(std::span<const Launch> launches) = 0;
  virtual void launch_graph(void* graph) = 0;
  virtual void release_graph(void* graph) noexcept = 0;
};

// Memory of a GPU. Movable.
class GpuMemory {
 public:
  GpuMemory() = default;
  GpuMemory(Gpu& gpu, uint64_t n_bytes, std::string_view what)
      : gpu_(&gpu), data_(n_bytes == 0 ? nullptr : gpu.allocate(n_bytes, what)), size_(n_bytes) {}
  ~GpuMemory() { reset(); }
  GpuMemory(GpuMemory&& other) noexcept { *this = std::move(other); }
  GpuMemory& operator=(GpuMemory&& other) noexcept {
    if (this == &other) return *this;
    reset();
    gpu_ = other.gpu_;
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  void reset() noexcept {
    if (data_ != nullptr) gpu_->release(data_);
    data_ = nullptr;
    size_ = 0;
  }
  uint64_t size() const { return size_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  Gpu* gpu_ = nullptr;
  void* data_ = nullptr;
  uint64_t size_ = 0;
};

// A GPU whose kernels run on one thread of the CPU (emulation/emulation.h), slowly, to the same bits: for
// tests. memory: bytes that it pretends to have.
std::unique_ptr<Gpu> make_emulated_gpu(uint64_t memory);
// Graphs that this thread has made and launched on emulated GPUs.
struct GraphCounts {
  int made = 0, launched = 0;
};
GraphCounts& graph_counts();

}  // namespace quern::cuda
