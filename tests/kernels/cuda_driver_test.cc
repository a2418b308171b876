// The GPU behind its driver, with a driver that is none: copies and launches wait in a queue until somebody
// synchronises, kernels run on the emulation, and any one call can be made to fail.
#include "kernels/cuda/driver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <set>

#include "kernels/cpu_device.h"
#include "kernels/cuda/cuda_device.h"
#include "quant/panel_layout.h"
#include "tests/kernels/kernel_test.h"
#include "tests/support/weight_blocks.h"

namespace quern {
namespace {

using cuda::Driver;
using test::random_values;
using test::same_bits;
using test::Values;

constexpr Driver::Result kOutOfMemory = 2, kIllegalAddress = 700, kLaunchFailed = 719, kUnknown = 999,
                         kCaptureUnsupported = 900;

// The one driver there is at a time.
struct Fake {
  std::unique_ptr<cuda::Gpu> gpu = cuda::make_emulated_gpu(uint64_t{256} << 20);
  using Work = std::vector<std::function<void()>>;
  Work queue;
  bool captures = false;  // launches go to `captured`
  Work captured;
  std::map<void*, Work> graphs;  // and what was made of them
  int n_graph_launches = 0;
  std::set<std::string> live;  // "event 3": what was taken and not given back
  int n_taken = 0;
  int n_calls = 0, failing_call = 0;  // 1: the first; 0: none
  Driver::Result failure = 0;
  bool stays_lost = false;  // after a failure every call fails
  std::string failed;       // the function that failed
};
Fake* fake;

Driver::Result call(const char* function) {
  ++fake->n_calls;
  const bool fails = fake->n_calls == fake->failing_call ||
                     (fake->stays_lost && fake->failing_call != 0 && fake->n_calls > fake->failing_call);
  if (!fails) return 0;
  if (fake->failed.empty()) fake->failed = function;
  return fake->failure;
}
void* take(const char* kind) {
  const uintptr_t n = static_cast<uintptr_t>(++fake->n_taken);
  fake->live.insert(fmt::format("{} {}", kind, n));
  return reinterpret_cast<void*>(n);
}
void give_back(const char* kind, void* handle) {
  EXPECT_EQ(fake->live.erase(fmt::format("{} {}", kind, reinterpret_cast<uintptr_t>(handle))), 1u) << kind;
}
void run_queue() {
  for (const auto& item : std::exchange(fake->queue, {})) item();
}
void* pointer(uint64_t address) { return reinterpret_cast<void*>(address); }

#define FAIL_IF_ASKED(name) \
  if (const Driver::Result result = call(name); result != 0) return result
// While a stream is captured its thread may ask for launches, and for little else.
#define REFUSED_WHILE_CAPTURING() \
  if (fake->captures) return kCaptureUnsupported

Driver fake_driver() {
  Driver d{};
  d.init = [](unsigned) -> Driver::Result { return call("init"); };
  d.driver_version = [](int* version) -> Driver::Result {
    *version = 13010;
    return call("driver_version");
  };
  d.device_count = [](int* n) -> Driver::Result {
    *n = 2;
    return call("device_count");
  };
  d.device_get = [](int* device, int index) -> Driver::Result {
    *device = index;
    return call("device_get");
  };
  d.device_name = [](char* name, int n_bytes, int) -> Driver::Result {
    std::strncpy(name, "Fake GPU", static_cast<size_t>(n_bytes));
    return call("device_name");
  };
  d.context_retain = [](void** context, int) -> Driver::Result {
    FAIL_IF_ASKED("context_retain");
    fake->live.insert("context 0");
    *context = pointer(1);
    return 0;
  };
  d.context_release = [](int) -> Driver::Result {
    FAIL_IF_ASKED("context_release");
    EXPECT_EQ(fake->live.erase("context 0"), 1u);
    return 0;
  };
  d.context_set = [](void*) -> Driver::Result { return call("context_set"); };
  d.module_load = [](void** module, const void*) -> Driver::Result {
    FAIL_IF_ASKED("module_load");
    *module = take("module");
    return 0;
  };
  d.module_unload = [](void* module) -> Driver::Result {
    FAIL_IF_ASKED("module_unload");
    give_back("module", module);
    return 0;
  };
  d.module_function = [](void** function, void*, const char* name) -> Driver::Result {
    FAIL_IF_ASKED("module_function");
    const auto* const found =
        std::find_if(std::begin(cuda::kKernelEntries), std::end(cuda::kKernelEntries),
                     [&](const cuda::KernelEntry& entry) { return std::string_view(entry.name) == name; });
    *function = pointer(static_cast<uint64_t>(found - std::begin(cuda::kKernelEntries)) + 1);
    return 0;
  };
  d.memory_info = [](size_t* free, size_t* total) -> Driver::Result {
    *free = fake->gpu->memory().free;
    *total = fake->gpu->memory().total;
    return call("memory_info");
  };
  d.memory_allocate = [](uint64_t* at, size_t n_bytes) -> Driver::Result {
    FAIL_IF_ASKED("memory_allocate");
    REFUSED_WHILE_CAPTURING();
    *at = reinterpret_cast<uint64_t>(fake->gpu->allocate(n_bytes, "a test"));
    fake->live.insert(fmt::format("memory {}", *at));
    return 0;
  };
  d.memory_free = [](uint64_t at) -> Driver::Result {
    FAIL_IF_ASKED("memory_free");
    REFUSED_WHILE_CAPTURING();
    run_queue();  // as the driver does
    give_back("memory", pointer(at));
    fake->gpu->release(pointer(at));
    return 0;
  };
  d.host_allocate = [](void** at, size_t n_bytes, unsigned) -> Driver::Result {
    FAIL_IF_ASKED("host_allocate");
    *at = std::malloc(n_bytes);
    fake->live.insert(fmt::format("host {}", reinterpret_cast<uintptr_t>(*at)));
    return 0;
  };
  d.host_free = [](void* at) -> Driver::Result {
    FAIL_IF_ASKED("host_free");
    give_back("host", at);
    std::free(at);
    return 0;
  };
  d.copy_to_device = [](uint64_t to, const void* from, size_t n, void*) -> Driver::Result {
    FAIL_IF_ASKED("copy_to_device");
    REFUSED_WHILE_CAPTURING();
    fake->queue.emplace_back([=] { fake->gpu->upload(pointer(to), from, n); });
    return 0;
  };
  d.copy_to_host = [](void* to, uint64_t from, size_t n, void*) -> Driver::Result {
    FAIL_IF_ASKED("copy_to_host");
    REFUSED_WHILE_CAPTURING();
    fake->queue.emplace_back([=] { fake->gpu->download(to, pointer(from), n); });
    return 0;
  };
  d.memory_set = [](uint64_t at, uint8_t value, size_t n, void*) -> Driver::Result {
    FAIL_IF_ASKED("memory_set");
    REFUSED_WHILE_CAPTURING();
    EXPECT_EQ(value, 0);
    fake->queue.emplace_back([=] { fake->gpu->clear(pointer(at), n); });
    return 0;
  };
  d.stream_create = [](void** stream, unsigned) -> Driver::Result {
    FAIL_IF_ASKED("stream_create");
    *stream = take("stream");
    return 0;
  };
  d.stream_destroy = [](void* stream) -> Driver::Result {
    FAIL_IF_ASKED("stream_destroy");
    give_back("stream", stream);
    return 0;
  };
  d.stream_synchronize = [](void*) -> Driver::Result {
    FAIL_IF_ASKED("stream_synchronize");
    REFUSED_WHILE_CAPTURING();
    run_queue();
    return 0;
  };
  d.event_create = [](void** event, unsigned) -> Driver::Result {
    FAIL_IF_ASKED("event_create");
    *event = take("event");
    return 0;
  };
  d.event_destroy = [](void* event) -> Driver::Result {
    FAIL_IF_ASKED("event_destroy");
    give_back("event", event);
    return 0;
  };
  d.event_record = [](void*, void*) -> Driver::Result { return call("event_record"); };
  d.event_synchronize = [](void*) -> Driver::Result {
    FAIL_IF_ASKED("event_synchronize");
    REFUSED_WHILE_CAPTURING();
    run_queue();
    return 0;
  };
  d.launch = [](void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                unsigned shared_bytes, void*, void** args, void**) -> Driver::Result {
    FAIL_IF_ASKED("launch");
    const size_t i = reinterpret_cast<uintptr_t>(function) - 1;
    const size_t n_bytes = cuda::kKernelEntries[i].args_bytes;
    std::vector<uint8_t> copy(static_cast<const uint8_t*>(args[0]),
                              static_cast<const uint8_t*>(args[0]) + n_bytes);
    const cuda::LaunchShape shape{static_cast<int>(x), static_cast<int>(y), static_cast<int>(z),
                                  static_cast<int>(threads), shared_bytes};
    (fake->captures ? fake->captured : fake->queue).emplace_back([i, shape, copy] {
      fake->gpu->launch(static_cast<cuda::Kernel>(i), shape, copy.data(), copy.size());
    });
    return 0;
  };
  d.capture_begin = [](void*, unsigned) -> Driver::Result {
    FAIL_IF_ASKED("capture_begin");
    REFUSED_WHILE_CAPTURING();
    fake->captures = true;
    fake->captured.clear();
    return 0;
  };
  d.capture_end = [](void*, void** graph) -> Driver::Result {
    EXPECT_TRUE(fake->captures);
    fake->captures = false;
    FAIL_IF_ASKED("capture_end");
    *graph = take("graph");
    fake->graphs[*graph] = std::move(fake->captured);
    return 0;
  };
  d.graph_instantiate = [](void** executable, void* graph, unsigned long long) -> Driver::Result {
    FAIL_IF_ASKED("graph_instantiate");
    *executable = take("executable graph");
    fake->graphs[*executable] = fake->graphs.at(graph);
    return 0;
  };
  d.graph_destroy = [](void* graph) -> Driver::Result {
    FAIL_IF_ASKED("graph_destroy");
    give_back("graph", graph);
    fake->graphs.erase(graph);
    return 0;
  };
  d.graph_executable_destroy = [](void* executable) -> Driver::Result {
    FAIL_IF_ASKED("graph_executable_destroy");
    give_back("executable graph", executable);
    fake->graphs.erase(executable);
    return 0;
  };
  d.graph_launch = [](void* executable, void*) -> Driver::Result {
    FAIL_IF_ASKED("graph_launch");
    REFUSED_WHILE_CAPTURING();
    ++fake->n_graph_launches;
    const Fake::Work& work = fake->graphs.at(executable);
    fake->queue.insert(fake->queue.end(), work.begin(), work.end());
    return 0;
  };
  d.error_name = [](Driver::Result result, const char** name) -> Driver::Result {
    *name = result == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_FAKE";
    return 0;
  };
  d.error_text = [](Driver::Result, const char** text) -> Driver::Result {
    *text = "made to fail";
    return 0;
  };
  return d;
}

struct Weights {
  std::vector<uint8_t> bytes;
  TensorView view;
};
Weights make_weights() {
  Weights w;
  w.view.name = "weight";
  w.view.dtype = DType::Q8_0;
  w.view.shape = {48, 64};
  w.bytes.resize(48 * 2 * 34);
  std::mt19937 random(1);
  test::RandomBlocks(block_format(DType::Q8_0), 0.1f).fill(random, w.bytes);
  w.view.data = w.bytes.data();
  w.view.n_bytes = w.bytes.size();
  return w;
}

// A small life on a device: load, keep, multiply, look; then three steps from position to position.
std::vector<float> live_on(Device& device) {
  const Weights weights = make_weights();
  const auto matrix = device.load_matrix(weights.view, MatrixUse::kProduct);
  const KvShape shape{{{1, 48, 0}}, 64, KvType::kF16};
  const auto cache = device.allocate_kv(shape);
  const auto x = device.allocate(3, 64), y = device.allocate(3, 48), out = device.allocate(3, 48);
  const std::vector<float> values = random_values(6 * 64, Values::kNormal, 2);
  const SequenceRows rows[] = {{cache.get(), 0, 0, 3}};
  std::vector<float> result(6 * 48);
  device.reserve_scratch(3, 64, {}, 64);
  device.run_pass([&] {
    device.upload(std::span(values).first(3 * 64), *x, 0);
    const Device::Product product{matrix.get(), y.get()};
    device.matmul(*x, 3, {&product, 1}, false);
    device.store_heads({1, 1, 48}, 0, rows, {}, *y, *y, *y);
    device.attention({1, 1, 48}, 0, rows, *y, *out, nullptr);
  });
  (void)device.take_nan();
  device.download(*out, 0, std::span(result).first(3 * 48));
  for (size_t position = 3; position < 6; ++position) {
    const SequenceRows row[] = {{cache.get(), position, 0, 1}};
    device.run_pass([&] {
      device.upload(std::span(values).subspan(position * 64, 64), *x, 0);
      const Device::Product product{matrix.get(), y.get()};
      device.matmul(*x, 1, {&product, 1}, false);
      device.store_heads({1, 1, 48}, 0, row, {}, *y, *y, *y);
      device.attention({1, 1, 48}, 0, row, *y, *out, nullptr);
      for (int i = 0; i < 4; ++i) device.add(*out, *y, 0.5f, 1);
    });
    device.download(*out, 0, std::span(result).subspan(position * 48, 48));
  }
  return result;
}
constexpr uint8_t kCode[] = {0};

class CudaDriver : public testing::Test {
 protected:
  void SetUp() override {
    state_ = std::make_unique<Fake>();
    fake = state_.get();
  }
  std::vector<float> live() {
    std::string why;
    if (cuda::count_gpus(driver_, &why) == 0) fail(ErrorCode::kIo, "{}", why);
    const auto device = cuda::make_cuda_device(cuda::make_driver_gpu(driver_, 1, kCode));
    EXPECT_EQ(device->name(), "GPU (Fake GPU)");
    EXPECT_EQ(device->driver(), "13.1");
    (void)device->free_memory();
    return live_on(*device);
  }

  std::unique_ptr<Fake> state_;
  const Driver driver_ = fake_driver();
};

TEST_F(CudaDriver, CarriesTheKernelsToTheScalarSetsBits) {
  EXPECT_TRUE(same_bits(live(), live_on(*make_cpu_device(test::reference_set(), 1))));
  EXPECT_EQ(state_->n_graph_launches, 2);  // of three equal steps the first is not known to come again
  EXPECT_TRUE(state_->live.empty()) << *state_->live.begin();
}

// A matrix of several pieces of staging memory, each of which is on its way while the next one is filled.
TEST_F(CudaDriver, UploadsPieceByPiece) {
  const auto gpu = cuda::make_driver_gpu(driver_, 0, kCode);
  std::vector<uint8_t> from(size_t{11} << 20), to(from.size());
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint8_t>(i * 7 + i / 65521);
  cuda::GpuMemory memory(*gpu, from.size(), "a test");
  gpu->upload(memory.as<void>(), from.data(), from.size());
  gpu->download(to.data(), memory.as<void>(), to.size());
  EXPECT_EQ(from, to);
}

// Every call fails once, for good or for that time: one line, exit code 4 or 5, and nothing stays behind but
// what a call that failed would have given back.
TEST_F(CudaDriver, AnyCallThatFailsEndsInOneLineAndLeavesNothing) {
  const std::vector<float> expected = live();
  const int n_calls = state_->n_calls;
  ASSERT_GT(n_calls, 80);
  for (const Driver::Result failure : {kOutOfMemory, kIllegalAddress, kLaunchFailed, kUnknown})
    for (const bool stays_lost : {false, true})
      for (int i = 1; i <= n_calls; ++i) {
        state_ = std::make_unique<Fake>();
        fake = state_.get();
        state_->failing_call = i;
        state_->failure = failure;
        state_->stays_lost = stays_lost;
        try {
          EXPECT_TRUE(same_bits(live(), expected)) << state_->failed;  // it failed at the end, for nobody
        } catch (const Error& error) {
          const std::string what = error.what();
          EXPECT_TRUE(error.code() == ErrorCode::kResource || error.code() == ErrorCode::kIo) << what;
          EXPECT_EQ(what.find('\n'), std::string::npos) << what;
          EXPECT_TRUE(what.find("made to fail") != std::string::npos ||
                      what.find("not enough memory") != std::string::npos)
              << what;
        }
        state_->queue.clear();
        const std::string& failed = state_->failed;
        EXPECT_FALSE(state_->captures) << failed;
        const bool gives_back = failed.ends_with("free") || failed.ends_with("destroy") ||
                                failed.ends_with("unload") || failed.ends_with("release");
        if (!stays_lost && !gives_back) {
          EXPECT_TRUE(state_->live.empty()) << *state_->live.begin() << " after " << failed << " failed";
        }
        for (const std::string& what : state_->live)  // memory of the host is the test's own to give back
          if (what.starts_with("host ")) std::free(pointer(std::stoull(what.substr(5))));
      }
}

// Memory that is given back in a pass hands on what waits; where that fails, what the pass asks for
// afterwards is not launched later, and its error is told once.
TEST_F(CudaDriver, APassWhoseLaunchesFailLeavesNone) {
  state_->failure = kLaunchFailed;
  const auto device = cuda::make_cuda_device(cuda::make_driver_gpu(driver_, 0, kCode));
  const auto x = device->allocate(1, 4);
  const std::vector<float> values{1, 2, 3, 4};
  device->upload(values, *x, 0);
  for (const bool pass_throws : {false, true}) {
    std::unique_ptr<DeviceBuffer> some = device->allocate(1, 4);
    state_->failed.clear();
    EXPECT_THROW(device->run_pass([&] {
      device->scale(*x, 2, 1);
      state_->failing_call = state_->n_calls + 2;  // behind cuCtxSetCurrent
      some.reset();
      device->scale(*x, 3, 1);
      if (pass_throws) fail(ErrorCode::kResource, "no more");
    }),
                 Error);
    EXPECT_EQ(state_->failed, "launch");
    std::vector<float> found(4);
    device->download(*x, 0, found);
    EXPECT_EQ(found, values) << pass_throws;
  }
}

TEST(FindDriver, SaysWhyThereIsNone) {
  std::string why;
  if (const Driver* const driver = cuda::find_driver(&why); driver != nullptr) GTEST_SKIP() << "there is one";
  EXPECT_TRUE(why == "this build has no kernels for a GPU" || why == "no driver: libcuda.so.1 was not found")
      << why;
}

}  // namespace
}  // namespace quern
