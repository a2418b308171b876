#include "kernels/cuda/launch_queue.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace quern::cuda {
namespace {

// Fewer launches are not worth a graph.
constexpr size_t kFewestLaunches = 8;
// A step of generation is one run, another one for each number of segments of attention; a server has some
// for the sequences that take turns. A model of experts has two a layer, which this forgets before they come
// again: half of them never do.
constexpr size_t kMostGraphs = 16, kMostSeen = 32;

}  // namespace

uint64_t LaunchQueue::Run::hash() const {  // FNV-1a, of words where it is long
  uint64_t h = 0xcbf29ce484222325u;
  const auto add = [&](uint64_t word) { h = (h ^ word) * 0x100000001b3u; };
  for (const Launch& launch : launches) {
    add(static_cast<uint64_t>(launch.kernel) << 32 | static_cast<uint32_t>(launch.shape.threads));
    add(static_cast<uint64_t>(launch.shape.x) << 32 | static_cast<uint32_t>(launch.shape.y));
    add(static_cast<uint64_t>(launch.shape.z) << 32 | static_cast<uint32_t>(launch.shape.shared_bytes));
  }
  size_t at = 0;
  for (; at + sizeof(uint64_t) <= args.size(); at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, &args[at], sizeof word);
    add(word);
    h ^= h >> 29;  // high bits of addresses reach the low ones
  }
  for (; at < args.size(); ++at) add(args[at]);
  return h;
}

bool LaunchQueue::Run::operator==(const Run& other) const {
  return args == other.args && std::equal(launches.begin(), launches.end(), other.launches.begin(),
                                          other.launches.end(), [](const Launch& a, const Launch& b) {
                                            return a.kernel == b.kernel && a.shape == b.shape &&
                                                   a.n_bytes == b.n_bytes;
                                          });
}

void LaunchQueue::Run::clear() {
  launches.clear();
  args.clear();
}

LaunchQueue::~LaunchQueue() {
  for (const Graph& graph : graphs_) gpu_->release_graph(graph.graph);
}

void LaunchQueue::begin_pass() {
  const std::lock_guard lock(mutex_);
  ++n_passes_;
}

void LaunchQueue::end_pass() {
  const std::lock_guard lock(mutex_);
  --n_passes_;
  flush();
}

void LaunchQueue::drop_pass() noexcept {
  const std::lock_guard lock(mutex_);
  --n_passes_;
  waiting_.clear();
  failure_ = nullptr;  // whoever asked for the pass knows that it failed
}

void LaunchQueue::launch(Kernel kernel, const LaunchShape& shape, const void* args, size_t n_bytes) {
  const std::lock_guard lock(mutex_);
  if (n_passes_ == 0) return gpu_->launch(kernel, shape, args, n_bytes);
  waiting_.launches.push_back({kernel, shape, nullptr, n_bytes});
  const uint8_t* const bytes = static_cast<const uint8_t*>(args);
  waiting_.args.insert(waiting_.args.end(), bytes, bytes + n_bytes);
}

void LaunchQueue::flush() {
  if (failure_) {
    waiting_.clear();  // of the pass that failed
    std::rethrow_exception(std::exchange(failure_, nullptr));
  }
  if (waiting_.launches.empty()) return;
  ++n_flushes_;
  std::swap(waiting_, handed_on_);  // gone, also where it fails
  waiting_.clear();
  hand_on(handed_on_);
}

void LaunchQueue::hand_on(Run& run) {
  if (run.launches.size() < kFewestLaunches) return launch_one_by_one(run);
  const auto known =
      std::find_if(graphs_.begin(), graphs_.end(), [&](const Graph& graph) { return graph.run == run; });
  if (known != graphs_.end()) {
    std::rotate(graphs_.begin(), known, known + 1);
    return gpu_->launch_graph(graphs_.front().graph);
  }
  const uint64_t hash = run.hash();
  const auto seen = std::find(seen_.begin(), seen_.end(), hash);
  if (seen == seen_.end()) {
    seen_.push_front(hash);
    if (seen_.size() > kMostSeen) seen_.pop_back();
    return launch_one_by_one(run);
  }
  seen_.erase(seen);
  void* const graph = has_room_ ? gpu_->make_graph(with_args(run)) : nullptr;
  if (graph == nullptr) {
    has_room_ = false;
    return launch_one_by_one(run);
  }
  graphs_.push_front({std::move(run), graph});
  if (graphs_.size() > kMostGraphs) {
    gpu_->release_graph(graphs_.back().graph);
    graphs_.pop_back();
  }
  gpu_->launch_graph(graph);
}

void LaunchQueue::launch_one_by_one(const Run& run) {
  for (const Launch& launch : with_args(run))
    gpu_->launch(launch.kernel, launch.shape, launch.args, launch.n_bytes);
}

std::vector<Gpu::Launch> LaunchQueue::with_args(const Run& run) const {
  std::vector<Launch> launches = run.launches;
  const uint8_t* args = run.args.data();
  for (Launch& launch : launches) {
    launch.args = args;
    args += launch.n_bytes;
  }
  return launches;
}

uint64_t LaunchQueue::n_flushes() const {
  const std::lock_guard lock(mutex_);
  return n_flushes_;
}
void LaunchQueue::upload_ahead(void* to, const void* from, uint64_t n_bytes) {
  const std::lock_guard lock(mutex_);
  gpu_->upload(to, from, n_bytes);
}
Gpu::Memory LaunchQueue::memory() {
  const std::lock_guard lock(mutex_);
  return gpu_->memory();
}
void* LaunchQueue::allocate(uint64_t n_bytes, std::string_view what) {
  const std::lock_guard lock(mutex_);
  return gpu_->allocate(n_bytes, what);
}
void LaunchQueue::release(void* memory) noexcept {
  const std::lock_guard lock(mutex_);
  try {
    flush();  // which may use it
  } catch (...) {
    failure_ = std::current_exception();  // for whoever calls next
  }
  gpu_->release(memory);
}
void LaunchQueue::clear(void* memory, uint64_t n_bytes) {
  const std::lock_guard lock(mutex_);
  flush();
  gpu_->clear(memory, n_bytes);
}
void LaunchQueue::upload(void* to, const void* from, uint64_t n_bytes) {
  const std::lock_guard lock(mutex_);
  flush();
  gpu_->upload(to, from, n_bytes);
}
void LaunchQueue::download(void* to, const void* from, uint64_t n_bytes) {
  const std::lock_guard lock(mutex_);
  flush();
  gpu_->download(to, from, n_bytes);
}
void* LaunchQueue::make_graph(std::span<const Launch> launches) {
  const std::lock_guard lock(mutex_);
  return gpu_->make_graph(launches);
}
void LaunchQueue::launch_graph(void* graph) {
  const std::lock_guard lock(mutex_);
  flush();
  gpu_->launch_graph(graph);
}
void LaunchQueue::release_graph(void* graph) noexcept {
  const std::lock_guard lock(mutex_);
  gpu_->release_graph(graph);
}

}  // namespace quern::cuda
