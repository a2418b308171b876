// Launches of a pass, gathered: those that come again, byte for byte, go to the GPU as one graph.
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/gpu.h"

namespace quern::cuda {

// A Gpu before another one. Between begin_pass() and end_pass() launches wait until somebody looks at what
// they do (any other call but upload_ahead) or the pass ends. A run of launches whose kernels, shapes and
// arguments are those of one a short time before becomes a graph, and is launched as that from then on: so is
// every step of generation, whose positions are in the GPU's memory and in no argument. Unlike the Gpu behind
// it, it may be called by several threads at once, passes aside, which follow one another.
class LaunchQueue final : public Gpu {
 public:
  explicit LaunchQueue(std::unique_ptr<Gpu> gpu) : gpu_(std::move(gpu)) {}
  ~LaunchQueue() override;

  void begin_pass();
  void end_pass();            // errors: of its launches
  void drop_pass() noexcept;  // of a pass that failed: what waits is not launched
  // Times that launches were handed on.
  uint64_t n_flushes() const;
  // As upload(), in front of the launches that wait, none of which may use `to`.
  void upload_ahead(void* to, const void* from, uint64_t n_bytes);

  std::string name() const override { return gpu_->name(); }
  std::string driver() const override { return gpu_->driver(); }
  Memory memory() override;
  void* allocate(uint64_t n_bytes, std::string_view what) override;
  void release(void* memory) noexcept override;
  void clear(void* memory, uint64_t n_bytes) override;
  void upload(void* to, const void* from, uint64_t n_bytes) override;
  void download(void* to, const void* from, uint64_t n_bytes) override;
  void launch(Kernel kernel, const LaunchShape& shape, const void* args, size_t n_bytes) override;
  void* make_graph(std::span<const Launch> launches) override;
  void launch_graph(void* graph) override;
  void release_graph(void* graph) noexcept override;

 private:
  struct Run {
    std::vector<Launch> launches;  // args: null
    std::vector<uint8_t> args;     // of all, one behind the other
    uint64_t hash() const;
    bool operator==(const Run& other) const;
    void clear();
  };
  struct Graph {
    Run run;
    void* graph;
  };

  void flush();
  void hand_on(Run& run);
  void launch_one_by_one(const Run& run);
  std::vector<Launch> with_args(const Run& run) const;

  const std::unique_ptr<Gpu> gpu_;
  mutable std::mutex mutex_;  // of all that follows, and of the Gpu
  int n_passes_ = 0;
  uint64_t n_flushes_ = 0;
  Run waiting_, handed_on_;     // the second keeps its memory for the next one
  std::deque<uint64_t> seen_;   // hashes of the last runs that were no graph
  std::deque<Graph> graphs_;    // the last used first
  bool has_room_ = true;        // for graphs
  std::exception_ptr failure_;  // of launches that release() handed on
};

}  // namespace quern::cuda
