#include "kernels/cuda/driver.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <mutex>

#include "quant/error.h"
#include "quant/format_size.h"

namespace quern::cuda {
namespace {

constexpr Driver::Result kOutOfMemory = 2;  // CUDA_ERROR_OUT_OF_MEMORY
constexpr unsigned kNonBlocking = 1;        // CU_STREAM_NON_BLOCKING
constexpr unsigned kNoTiming = 2;           // CU_EVENT_DISABLE_TIMING
constexpr unsigned kThisThread = 1;         // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
constexpr size_t kStagingBytes = size_t{4} << 20;
constexpr const char* kLibrary = "libcuda.so.1";

template <class Function>
bool find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

// The name of a function that is missing; null: all are there.
const char* find_all(void* library, Driver* d) {
  const char* missing = nullptr;
  const auto need = [&](const char* name, auto* function) {
    if (!find(library, name, function) && missing == nullptr) missing = name;
  };
  need("cuInit", &d->init);
  need("cuDriverGetVersion", &d->driver_version);
  need("cuDeviceGetCount", &d->device_count);
  need("cuDeviceGet", &d->device_get);
  need("cuDeviceGetName", &d->device_name);
  need("cuDevicePrimaryCtxRetain", &d->context_retain);
  need("cuDevicePrimaryCtxRelease_v2", &d->context_release);
  need("cuCtxSetCurrent", &d->context_set);
  need("cuModuleLoadData", &d->module_load);
  need("cuModuleUnload", &d->module_unload);
  need("cuModuleGetFunction", &d->module_function);
  need("cuMemGetInfo_v2", &d->memory_info);
  need("cuMemAlloc_v2", &d->memory_allocate);
  need("cuMemFree_v2", &d->memory_free);
  need("cuMemHostAlloc", &d->host_allocate);
  need("cuMemFreeHost", &d->host_free);
  need("cuMemcpyHtoDAsync_v2", &d->copy_to_device);
  need("cuMemcpyDtoHAsync_v2", &d->copy_to_host);
  need("cuMemsetD8Async", &d->memory_set);
  need("cuStreamCreate", &d->stream_create);
  need("cuStreamDestroy_v2", &d->stream_destroy);
  need("cuStreamSynchronize", &d->stream_synchronize);
  need("cuEventCreate", &d->event_create);
  need("cuEventDestroy_v2", &d->event_destroy);
  need("cuEventRecord", &d->event_record);
  need("cuEventSynchronize", &d->event_synchronize);
  need("cuLaunchKernel", &d->launch);
  need("cuStreamBeginCapture_v2", &d->capture_begin);
  need("cuStreamEndCapture", &d->capture_end);
  need("cuGraphInstantiateWithFlags", &d->graph_instantiate);
  need("cuGraphDestroy", &d->graph_destroy);
  need("cuGraphExecDestroy", &d->graph_executable_destroy);
  need("cuGraphLaunch", &d->graph_launch);
  need("cuGetErrorName", &d->error_name);
  need("cuGetErrorString", &d->error_text);
  return missing;
}

std::string text_of(const Driver& driver, Driver::Result result) {
  const char *name = nullptr, *text = nullptr;
  if (driver.error_name(result, &name) != 0 || name == nullptr) return fmt::format("error {}", result);
  if (driver.error_text(result, &text) != 0 || text == nullptr) return name;
  return fmt::format("{} ({})", name, text);
}

class DriverGpu final : public Gpu {
 public:
  DriverGpu(const Driver& driver, int index, std::span<const uint8_t> code) : driver_(driver), index_(index) {
    try {
      open(code);
    } catch (...) {
      close();
      throw;
    }
  }
  ~DriverGpu() override { close(); }

  std::string name() const override { return name_; }
  std::string driver() const override { return version_; }
  Memory memory() override {
    enter();
    size_t free = 0, total = 0;
    check(driver_.memory_info(&free, &total), "cuMemGetInfo");
    return {free, total};
  }

  void* allocate(uint64_t n_bytes, std::string_view what) override {
    enter();
    uint64_t pointer = 0;
    const Driver::Result result = driver_.memory_allocate(&pointer, n_bytes);
    if (result == kOutOfMemory)
      fail(ErrorCode::kResource,
           "not enough memory on the GPU ({}) for {}: {} needed; fewer --gpu-layers need less", name_, what,
           format_size(n_bytes));
    check(result, "cuMemAlloc");
    return reinterpret_cast<void*>(pointer);
  }
  void release(void* memory) noexcept override {
    (void)driver_.context_set(context_);
    (void)driver_.memory_free(address(memory));  // a GPU that was lost has nothing to give back
  }
  void clear(void* memory, uint64_t n_bytes) override {
    enter();
    check(driver_.memory_set(address(memory), 0, n_bytes, stream_), "cuMemsetD8Async");
  }
  // Through pinned memory, in turns: one piece is copied on the host while the other is on its way.
  void upload(void* to, const void* from, uint64_t n_bytes) override {
    enter();
    for (uint64_t done = 0; done < n_bytes;) {
      Staging& staging = next_staging();
      const size_t n = std::min<uint64_t>(kStagingBytes, n_bytes - done);
      std::memcpy(staging.memory, static_cast<const uint8_t*>(from) + done, n);
      check(driver_.copy_to_device(address(to) + done, staging.memory, n, stream_), "cuMemcpyHtoDAsync");
      check(driver_.event_record(staging.event, stream_), "cuEventRecord");
      staging.is_on_its_way = true;
      done += n;
    }
  }
  void download(void* to, const void* from, uint64_t n_bytes) override {
    enter();
    for (uint64_t done = 0; done < n_bytes;) {  // into memory of its own, also where a GPU fails half-way
      Staging& staging = next_staging();
      const size_t n = std::min<uint64_t>(kStagingBytes, n_bytes - done);
      check(driver_.copy_to_host(staging.memory, address(from) + done, n, stream_), "cuMemcpyDtoHAsync");
      check(driver_.stream_synchronize(stream_), "cuStreamSynchronize");
      std::memcpy(static_cast<uint8_t*>(to) + done, staging.memory, n);
      done += n;
    }
  }
  void launch(Kernel kernel, const LaunchShape& shape, const void* args, size_t n_bytes) override {
    enter();
    check(launch({kernel, shape, args, n_bytes}), "cuLaunchKernel");
  }
  // What the stream is asked for between begin and end becomes the graph, and does not run. The end comes in
  // any case, or the stream would take nothing else.
  void* make_graph(std::span<const Launch> launches) override {
    enter();
    check(driver_.capture_begin(stream_, kThisThread), "cuStreamBeginCapture");
    Driver::Result launched = 0, made = 0;
    for (const Launch& one : launches)
      if (launched == 0) launched = launch(one);
    void *graph = nullptr, *executable = nullptr;
    const Driver::Result ended = driver_.capture_end(stream_, &graph);
    if (launched == 0 && ended == 0) made = driver_.graph_instantiate(&executable, graph, 0);
    if (graph != nullptr) (void)driver_.graph_destroy(graph);  // the executable needs it no more
    check(launched, "cuLaunchKernel");
    check(ended, "cuStreamEndCapture");
    if (made == kOutOfMemory) return nullptr;
    check(made, "cuGraphInstantiate");
    return executable;
  }
  void launch_graph(void* graph) override {
    enter();
    check(driver_.graph_launch(graph, stream_), "cuGraphLaunch");
  }
  void release_graph(void* graph) noexcept override {
    (void)driver_.context_set(context_);
    (void)driver_.graph_executable_destroy(graph);
  }

 private:
  struct Staging {
    void *memory = nullptr, *event = nullptr;
    bool is_on_its_way = false;
  };

  Driver::Result launch(const Launch& one) {
    void* all[] = {const_cast<void*>(one.args)};  // copied by the driver
    return driver_.launch(functions_[static_cast<size_t>(one.kernel)], static_cast<unsigned>(one.shape.x),
                          static_cast<unsigned>(one.shape.y), static_cast<unsigned>(one.shape.z),
                          static_cast<unsigned>(one.shape.threads), 1, 1,
                          static_cast<unsigned>(one.shape.shared_bytes), stream_, all, nullptr);
  }
  static uint64_t address(const void* memory) { return reinterpret_cast<uint64_t>(memory); }
  void check(Driver::Result result, const char* call) const {
    if (result == 0) return;
    fail(result == kOutOfMemory ? ErrorCode::kResource : ErrorCode::kIo, "GPU {}{}{}: {} failed: {}", index_,
         name_.empty() ? "" : ", ", name_, call, text_of(driver_, result));
  }
  // That nothing is on its way through any more.
  Staging& next_staging() {
    Staging& staging = staging_[next_];
    next_ = 1 - next_;
    if (staging.is_on_its_way) check(driver_.event_synchronize(staging.event), "cuEventSynchronize");
    staging.is_on_its_way = false;
    return staging;
  }
  void enter() { check(driver_.context_set(context_), "cuCtxSetCurrent"); }

  void open(std::span<const uint8_t> code) {
    check(driver_.device_get(&device_, index_), "cuDeviceGet");
    char name[128] = {};
    check(driver_.device_name(name, sizeof name - 1, device_), "cuDeviceGetName");
    name_ = name;
    int version = 0;
    check(driver_.driver_version(&version), "cuDriverGetVersion");
    version_ = fmt::format("{}.{}", version / 1000, version % 1000 / 10);
    check(driver_.context_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
    enter();
    check(driver_.stream_create(&stream_, kNonBlocking), "cuStreamCreate");
    for (Staging& staging : staging_) {
      check(driver_.host_allocate(&staging.memory, kStagingBytes, 0), "cuMemHostAlloc");
      check(driver_.event_create(&staging.event, kNoTiming), "cuEventCreate");
    }
    check(driver_.module_load(&module_, code.data()), "cuModuleLoadData");
    for (size_t i = 0; i < kKernels; ++i)
      check(driver_.module_function(&functions_[i], module_, kKernelEntries[i].name), "cuModuleGetFunction");
  }
  // What there is of it; what fails here fails for the last time.
  void close() noexcept {
    if (context_ == nullptr) return;
    (void)driver_.context_set(context_);
    if (stream_ != nullptr) (void)driver_.stream_synchronize(stream_);
    if (module_ != nullptr) (void)driver_.module_unload(module_);
    for (const Staging& staging : staging_) {
      if (staging.event != nullptr) (void)driver_.event_destroy(staging.event);
      if (staging.memory != nullptr) (void)driver_.host_free(staging.memory);
    }
    if (stream_ != nullptr) (void)driver_.stream_destroy(stream_);
    (void)driver_.context_release(device_);
  }

  const Driver& driver_;
  const int index_;
  int device_ = 0;
  std::string name_, version_;
  void *context_ = nullptr, *stream_ = nullptr, *module_ = nullptr;
  void* functions_[kKernels] = {};
  Staging staging_[2];
  int next_ = 0;
};

}  // namespace

#ifdef QUERN_CUDA_CODE
// The fat binary, as it is.
asm(R"(
.pushsection .rodata
.balign 64
quern_device_code:
.incbin ")" QUERN_CUDA_CODE R"("
quern_device_code_end:
.byte 0
.popsection
)");
extern "C" const uint8_t quern_device_code[], quern_device_code_end[];

std::span<const uint8_t> device_code() { return {quern_device_code, quern_device_code_end}; }
#else
std::span<const uint8_t> device_code() { return {}; }
#endif

const Driver* find_driver(std::string* why) {
  static std::once_flag once;
  static Driver driver;
  static std::string problem;
  std::call_once(once, [] {
    if (device_code().empty()) {
      problem = "this build has no kernels for a GPU";
      return;
    }
    void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);  // for as long as the program runs
    if (library == nullptr) {
      problem = fmt::format("no driver: {} was not found", kLibrary);
      return;
    }
    const char* const missing = find_all(library, &driver);
    if (missing != nullptr) problem = fmt::format("the driver is too old: {} has no {}", kLibrary, missing);
  });
  *why = problem;
  return problem.empty() ? &driver : nullptr;
}

int count_gpus(const Driver& driver, std::string* why) {
  int n = 0;
  Driver::Result result = driver.init(0);
  if (result == 0) result = driver.device_count(&n);
  if (result != 0) {
    *why = fmt::format("the driver finds none: {}", text_of(driver, result));
    return 0;
  }
  if (n <= 0) *why = "the driver finds none";
  return std::max(n, 0);
}

std::unique_ptr<Gpu> make_driver_gpu(const Driver& driver, int index, std::span<const uint8_t> code) {
  return std::make_unique<DriverGpu>(driver, index, code);
}

}  // namespace quern::cuda
