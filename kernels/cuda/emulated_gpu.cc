#include <cstring>
#include <unordered_map>
#include <vector>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/product_kernels.h"
#include "kernels/cuda/row_kernels.h"
#include "quant/error.h"
#include "quant/format_size.h"
#include "quant/machine/host_memory.h"

namespace quern::cuda {
namespace {

struct EmulatedKernel {
  void (*run)(const void* args);
  int most_threads;
};

constexpr EmulatedKernel kEmulatedKernels[] = {
#define QUERN_CUDA_ROW(name, Args, threads, function) \
  {[](const void* args) { function(*static_cast<const Args*>(args)); }, threads},
    QUERN_CUDA_KERNELS(QUERN_CUDA_ROW)
#undef QUERN_CUDA_ROW
};

class EmulatedGpu final : public Gpu {
 public:
  explicit EmulatedGpu(uint64_t memory) : total_(memory) {}

  std::string name() const override { return "emulated"; }
  std::string driver() const override { return {}; }
  Memory memory() override { return {total_ - used_, total_}; }

  void* allocate(uint64_t n_bytes, std::string_view what) override {
    if (n_bytes > total_ - used_)
      fail(ErrorCode::kResource, "not enough memory on the GPU (emulated) for {}: {} needed, {} free", what,
           format_size(n_bytes), format_size(total_ - used_));
    // Room for what a GPU gives: whole 256 bytes.
    HostMemory memory(n_bytes + 256, what);
    uint8_t* const at = memory.data() + (256 - reinterpret_cast<uintptr_t>(memory.data()) % 256);
    std::memset(at, 0xff, n_bytes);  // NaN: nobody may read what nobody wrote
    used_ += n_bytes;
    blocks_.emplace(at, Block{std::move(memory), n_bytes});
    return at;
  }
  void release(void* memory) noexcept override {
    const auto found = blocks_.find(memory);
    QUERN_CHECK(found != blocks_.end());
    used_ -= found->second.n_bytes;
    std::memset(memory, 0xff, found->second.n_bytes);  // who reads it yet finds NaN
    blocks_.erase(found);
  }
  void clear(void* memory, uint64_t n_bytes) override { std::memset(memory, 0, n_bytes); }
  void upload(void* to, const void* from, uint64_t n_bytes) override { std::memcpy(to, from, n_bytes); }
  void download(void* to, const void* from, uint64_t n_bytes) override { std::memcpy(to, from, n_bytes); }

  void launch(Kernel kernel, const LaunchShape& shape, const void* args, size_t n_bytes) override {
    const EmulatedKernel& row = kEmulatedKernels[static_cast<size_t>(kernel)];
    QUERN_CHECK(n_bytes == kKernelEntries[static_cast<size_t>(kernel)].args_bytes &&
                shape.threads <= row.most_threads);
    emulation::run(row.run, args, {shape.x, shape.y, shape.z}, shape.threads, shape.shared_bytes);
  }

  void* make_graph(std::span<const Launch> launches) override {
    ++graph_counts().made;
    auto graph = std::make_unique<Graph>();
    for (const Launch& one : launches) {
      const uint64_t* const words = static_cast<const uint64_t*>(one.args);
      graph->push_back({one.kernel, one.shape, {words, words + one.n_bytes / sizeof(uint64_t)}});
    }
    return graph.release();
  }
  void launch_graph(void* graph) override {
    ++graph_counts().launched;
    for (const Node& node : *static_cast<const Graph*>(graph))
      launch(node.kernel, node.shape, node.args.data(), node.args.size() * sizeof(uint64_t));
  }
  void release_graph(void* graph) noexcept override {
    const std::unique_ptr<Graph> gone(static_cast<Graph*>(graph));
  }

 private:
  struct Node {
    Kernel kernel;
    LaunchShape shape;
    std::vector<uint64_t> args;
  };
  using Graph = std::vector<Node>;
  struct Block {
    HostMemory memory;
    uint64_t n_bytes;
  };
  const uint64_t total_;
  uint64_t used_ = 0;
  std::unordered_map<void*, Block> blocks_;
};

}  // namespace

GraphCounts& graph_counts() {
  static thread_local GraphCounts counts;
  return counts;
}

std::unique_ptr<Gpu> make_emulated_gpu(uint64_t memory) { return std::make_unique<EmulatedGpu>(memory); }

}  // namespace quern::cuda
