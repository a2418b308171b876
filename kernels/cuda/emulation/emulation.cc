#include "kernels/cuda/emulation/emulation.h"

#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "quant/error.h"
#include "quant/machine/host_memory.h"

namespace quern::cuda::emulation {

constinit thread_local const Place* place = nullptr;

#ifdef __x86_64__
// Keeps the registers that a call must keep on the stack, leaves the stack's place in *from, goes on from
// `to`.
extern "C" void quern_switch_fiber(void** from, void* to);
#endif

namespace {

// A multiple of 16, and no power of two: else all stacks would meet in the same lines of a cache.
constexpr size_t kStackBytes = (size_t{64} << 10) + 9 * 64;
constexpr int kMaxThreads = 1024;
constexpr uint8_t kNobodyWrote = 0xff;

#ifdef __x86_64__
asm(R"(
.text
.p2align 4
.type quern_switch_fiber, @function
quern_switch_fiber:
  pushq %rbx
  pushq %rbp
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbp
  popq %rbx
  ret
.size quern_switch_fiber, . - quern_switch_fiber
)");

class Context {
 public:
  // Begins at entry() on a stack.
  void prepare(uint8_t* stack, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + kStackBytes) - 2;  // aligned as after a call
    *top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    at_ = top;
  }
  void switch_to(Context& to) { quern_switch_fiber(&at_, to.at_); }

 private:
  void* at_ = nullptr;
};
#else
class Context {
 public:
  void prepare(uint8_t* stack, void (*entry)()) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = kStackBytes;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
  }
  void switch_to(Context& to) { swapcontext(&context_, &to.context_); }

 private:
  ucontext_t context_;
};
#endif

struct Copy {
  void* to;
  const void* from;
};

struct Fiber {
  Context context;
  Place where;
  const uint64_t* waits_for = nullptr;  // to be more than...
  uint64_t seen = 0;
  bool ended = false;
  std::vector<std::vector<Copy>> copies;  // groups, the oldest first; the last one is open
};

struct Warp {
  uint64_t n_exchanges = 0;
  int n_here = 0;
  Exchange function = nullptr;
  void* lanes[32] = {};
};

// The block that a thread of the process is running.
struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<int> order, rank;  // of threads; where each stands in the order
  uint64_t n_barriers = 0;
  size_t n_here = 0, n_ended = 0;
  int current = 0;
  Context caller;
  void (*kernel)(const void*) = nullptr;
  const void* args = nullptr;
  HostMemory stacks;
  std::vector<uint64_t> shared;  // of 8 bytes, so that it is aligned; begins at a multiple of 16
};

thread_local Block block;
thread_local Order order_of_threads = Order::kAscending;
thread_local std::mt19937 random_order(1);

Fiber& running() { return block.fibers[static_cast<size_t>(block.current)]; }

// Goes on with the next thread that does not wait; with the caller when all have ended.
void run_others() {
  Block& b = block;
  Fiber& from = running();
  const size_t n = b.fibers.size(), rank = static_cast<size_t>(b.rank[static_cast<size_t>(b.current)]);
  for (size_t i = 1; i <= n; ++i) {
    const int next = b.order[(rank + i) % n];
    Fiber& to = b.fibers[static_cast<size_t>(next)];
    if (to.ended || (to.waits_for != nullptr && *to.waits_for == to.seen)) continue;
    to.waits_for = nullptr;
    if (&to == &from) return;
    b.current = next;
    place = &to.where;
    from.context.switch_to(to.context);
    return;
  }
  if (b.n_ended == n) return from.context.switch_to(b.caller);
  fail_here("not all threads come to a barrier or an exchange between lanes");
}

void wait_for(const uint64_t* counter) {
  Fiber& fiber = running();
  fiber.waits_for = counter;
  fiber.seen = *counter;
  run_others();
}

void run_thread() {
  block.kernel(block.args);
  Fiber& fiber = running();
  for (const std::vector<Copy>& group : fiber.copies)
    if (!group.empty()) fail_here("a thread ends before its copies have arrived");
  fiber.ended = true;
  ++block.n_ended;
  run_others();
  std::abort();  // nobody comes back to one that has ended
}

void choose_order(size_t n_threads) {
  Block& b = block;
  b.order.resize(n_threads);
  b.rank.resize(n_threads);
  std::iota(b.order.begin(), b.order.end(), 0);
  if (order_of_threads == Order::kDescending) std::reverse(b.order.begin(), b.order.end());
  if (order_of_threads == Order::kRandom) std::shuffle(b.order.begin(), b.order.end(), random_order);
  for (size_t i = 0; i < n_threads; ++i) b.rank[static_cast<size_t>(b.order[i])] = static_cast<int>(i);
}

template <int kColumns>
void multiply(void* const (&lanes)[32]) {
  // Bytes as 16 bits: two products and their sum are one instruction of SSE2.
  int16_t a[16][kColumns], b[8][kColumns];
  for (int l = 0; l < 32; ++l) {
    const Fragments& mine = *static_cast<const Fragments*>(lanes[l]);
    const int g = l / 4, t = l % 4;
    for (int half = 0; half < kColumns / 16; ++half)
      for (int i = 0; i < 4; ++i) {
        const int k = half * 16 + 4 * t + i;
        a[g][k] = static_cast<int8_t>(mine.a[2 * half] >> (8 * i));
        a[g + 8][k] = static_cast<int8_t>(mine.a[2 * half + 1] >> (8 * i));
        b[g][k] = static_cast<int8_t>(mine.b[half] >> (8 * i));
      }
  }
  for (int l = 0; l < 32; ++l) {
    int* const c = static_cast<const Fragments*>(lanes[l])->c;
    for (int i = 0; i < 4; ++i) {
      const int16_t *const row = a[l / 4 + i / 2 * 8], *const column = b[l % 4 * 2 + i % 2];
      int sum = 0;
      for (int k = 0; k < kColumns; ++k) sum += row[k] * column[k];
      c[i] = static_cast<int>(static_cast<uint32_t>(c[i]) + static_cast<uint32_t>(sum));
    }
  }
}

}  // namespace

void fail_here(const char* what) {
  std::fprintf(stderr, "emulated GPU: block (%d, %d, %d), thread %d: %s\n", place->x, place->y, place->z,
               place->thread, what);
  std::abort();
}

void exchange(Exchange function, void* mine) {
  Warp& warp = block.warps[static_cast<size_t>(place->thread / 32)];
  if (warp.n_here == 0) warp.function = function;
  if (warp.function != function) fail_here("lanes of a warp come to different exchanges");
  warp.lanes[place->lane] = mine;
  if (++warp.n_here < 32) return wait_for(&warp.n_exchanges);
  warp.n_here = 0;
  function(warp.lanes);
  ++warp.n_exchanges;
}

void barrier() {
  if (++block.n_here < block.fibers.size()) return wait_for(&block.n_barriers);
  block.n_here = 0;
  ++block.n_barriers;
}

void begin_copy(void* to, const void* from) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 != 0)
    fail_here("a copy off its alignment");
  std::memset(to, kNobodyWrote, 16);
  running().copies.back().push_back({to, from});
}
void close_copies() { running().copies.emplace_back(); }
void finish_copies(size_t n_newest) {
  std::vector<std::vector<Copy>>& groups = running().copies;
  const size_t n_done = groups.size() > n_newest + 1 ? groups.size() - n_newest - 1 : 0;
  for (size_t i = 0; i < n_done; ++i)
    for (const Copy& copy : groups[i]) std::memcpy(copy.to, copy.from, 16);
  groups.erase(groups.begin(), groups.begin() + static_cast<ptrdiff_t>(n_done));
}

void multiply_32(void* const (&lanes)[32]) { multiply<32>(lanes); }
void multiply_16(void* const (&lanes)[32]) { multiply<16>(lanes); }

// Sums of integers below 2^24 alone, which any order gives.
void multiply_f16(void* const (&lanes)[32]) {
  const auto integer = [](float value) {
    if (!(std::fabs(value) < 0x1p24f) || value != std::nearbyint(value))
      fail_here("mma_f16 of what is no integer below 2^24");
    return static_cast<int>(value);
  };
  const auto half_of = [&](uint32_t word, int i) {
    return integer(f32_from_f16(static_cast<uint16_t>(word >> (16 * i))));
  };
  int a[16][16], b[8][16];
  for (int l = 0; l < 32; ++l) {
    const FloatFragments& mine = *static_cast<const FloatFragments*>(lanes[l]);
    const int g = l / 4, t = l % 4;
    for (int half = 0; half < 2; ++half)
      for (int i = 0; i < 2; ++i) {
        const int k = half * 8 + 2 * t + i;
        a[g][k] = half_of(mine.a[2 * half], i);
        a[g + 8][k] = half_of(mine.a[2 * half + 1], i);
        b[g][k] = half_of(mine.b[half], i);
      }
  }
  for (int l = 0; l < 32; ++l) {
    float* const c = static_cast<const FloatFragments*>(lanes[l])->c;
    for (int i = 0; i < 4; ++i) {
      const int *const row = a[l / 4 + i / 2 * 8], *const column = b[l % 4 * 2 + i % 2];
      int64_t sum = integer(c[i]), sizes = std::abs(sum);
      for (int k = 0; k < 16; ++k) {
        sum += int64_t{row[k]} * column[k];
        sizes += std::abs(int64_t{row[k]} * column[k]);
      }
      if (sizes >= int64_t{1} << 24) fail_here("mma_f16 whose partial sums may reach 2^24");
      c[i] = static_cast<float>(sum);
    }
  }
}

void set_order(Order order, uint32_t seed) {
  order_of_threads = order;
  random_order.seed(seed);
}

void run(void (*kernel)(const void* args), const void* args, Blocks blocks, int n_threads,
         size_t shared_bytes) {
  QUERN_CHECK(n_threads > 0 && n_threads <= kMaxThreads && n_threads % 32 == 0);
  Block& b = block;
  const size_t n = static_cast<size_t>(n_threads);
  if (b.stacks.size() < n * kStackBytes) b.stacks = HostMemory(n * kStackBytes, "stacks of an emulated GPU");
  b.fibers.resize(n);
  b.warps.resize(n / 32);
  b.kernel = kernel;
  b.args = args;
  b.shared.resize(shared_bytes / 8 + 3);
  uint8_t* shared = reinterpret_cast<uint8_t*>(b.shared.data());
  shared += (16 - reinterpret_cast<uintptr_t>(shared) % 16) % 16;
  for (int z = 0; z < blocks.z; ++z)
    for (int y = 0; y < blocks.y; ++y)
      for (int x = 0; x < blocks.x; ++x) {
        std::memset(shared, kNobodyWrote, shared_bytes);
        choose_order(n);
        b.n_here = b.n_ended = 0;
        for (int i = 0; i < n_threads; ++i) {
          Fiber& fiber = b.fibers[static_cast<size_t>(i)];
          fiber.where = {i, i % 32, x, y, z, n_threads, shared};
          fiber.waits_for = nullptr;
          fiber.ended = false;
          fiber.copies.resize(1);
          fiber.context.prepare(b.stacks.data() + static_cast<size_t>(i) * kStackBytes, run_thread);
        }
        b.current = b.order[0];
        place = &running().where;
        b.caller.switch_to(running().context);
      }
  place = nullptr;
#ifdef __SANITIZE_ADDRESS__
  // What ended in run_thread() left its frames marked, and the memory may become a file's next.
  __asan_unpoison_memory_region(b.stacks.data(), b.stacks.size());
#endif
}

}  // namespace quern::cuda::emulation
