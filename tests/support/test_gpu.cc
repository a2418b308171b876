#include "tests/support/test_gpu.h"

#include <cstdlib>
#include <stdexcept>

#include "kernels/cuda/driver.h"

namespace quern::test {
namespace {

// What is behind it stays open, and belongs to all.
class SharedGpu final : public cuda::Gpu {
 public:
  explicit SharedGpu(cuda::Gpu& gpu) : gpu_(gpu) {}
  std::string name() const override { return gpu_.name(); }
  std::string driver() const override { return gpu_.driver(); }
  Memory memory() override { return gpu_.memory(); }
  void* allocate(uint64_t n_bytes, std::string_view what) override { return gpu_.allocate(n_bytes, what); }
  void release(void* memory) noexcept override { gpu_.release(memory); }
  void clear(void* memory, uint64_t n_bytes) override { gpu_.clear(memory, n_bytes); }
  void upload(void* to, const void* from, uint64_t n_bytes) override { gpu_.upload(to, from, n_bytes); }
  void download(void* to, const void* from, uint64_t n_bytes) override { gpu_.download(to, from, n_bytes); }
  void launch(cuda::Kernel kernel, const cuda::LaunchShape& shape, const void* args,
              size_t n_bytes) override {
    gpu_.launch(kernel, shape, args, n_bytes);
  }
  void* make_graph(std::span<const Launch> launches) override { return gpu_.make_graph(launches); }
  void launch_graph(void* graph) override { gpu_.launch_graph(graph); }
  void release_graph(void* graph) noexcept override { gpu_.release_graph(graph); }

 private:
  cuda::Gpu& gpu_;
};

cuda::Gpu& open_gpu(int index) {
  std::string why;
  const cuda::Driver* const driver = cuda::find_driver(&why);
  if (driver == nullptr || cuda::count_gpus(*driver, &why) <= index)
    throw std::runtime_error("QUERN_TEST_GPU: no such GPU: " + why);
  return *cuda::make_driver_gpu(*driver, index, cuda::device_code()).release();
}

}  // namespace

std::string test_gpu_name() {
  const char* const name = std::getenv("QUERN_TEST_GPU");
  return name == nullptr || *name == '\0' ? "emulated" : name;
}

std::unique_ptr<cuda::Gpu> make_test_gpu(uint64_t memory) {
  const std::string name = test_gpu_name();
  if (name == "emulated") return cuda::make_emulated_gpu(memory);
  static cuda::Gpu& gpu = open_gpu(std::stoi(name));  // until the process ends
  return std::make_unique<SharedGpu>(gpu);
}

}  // namespace quern::test
