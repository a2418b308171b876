// The kernels' vocabulary on the CPU. Every thread of a block is a fiber with a stack of its own; one runs
// until it waits for others (a barrier, an exchange between lanes), then the next one in the order asked for.
// Blocks follow one another. So a run is repeatable, and what CUDA leaves undefined shows:
//  - threads that do not all reach a barrier, lanes that reach different exchanges: an error with its place;
//  - shared memory that nobody wrote, copies that nobody awaited: bytes of 0xff, which are NaN;
//  - a missing barrier: other bits in another order of threads (set_order);
//  - loads and stores off their alignment: an error with its place.
// It does not show bank conflicts, occupancy, or what a weaker order of memory would do. Errors end the
// process: they are bugs of a kernel.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/float16.h"

#define QUERN_GPU_FN inline
#define QUERN_GPU_UNROLL

namespace quern::cuda {

namespace emulation {

// Of the running thread.
struct Place {
  int thread, lane, x, y, z, n_threads;
  uint8_t* shared;
};
extern constinit thread_local const Place* place;

[[noreturn]] void fail_here(const char* what);

// Suspends until all lanes of the warp are here with the same function; the last one calls it.
using Exchange = void (*)(void* const (&lanes)[32]);
void exchange(Exchange function, void* mine);
void barrier();
void begin_copy(void* to, const void* from);
void close_copies();
void finish_copies(size_t n_newest);

// What mma_32 and mma_16 exchange: c += a * b of `k` columns.
struct Fragments {
  const uint32_t *a, *b;
  int* c;
};
struct FloatFragments {  // of mma_f16
  const uint32_t *a, *b;
  float* c;
};
void multiply_32(void* const (&lanes)[32]);
void multiply_16(void* const (&lanes)[32]);
void multiply_f16(void* const (&lanes)[32]);

enum class Order : uint8_t { kAscending, kDescending, kRandom };
// Of the threads of the blocks that this thread of the process runs from now on.
void set_order(Order order, uint32_t seed = 1);

struct Blocks {
  int x = 1, y = 1, z = 1;
};
// Runs kernel(args) on every thread of every block. n_threads: a multiple of 32, at most 1024.
void run(void (*kernel)(const void* args), const void* args, Blocks blocks, int n_threads,
         size_t shared_bytes);

}  // namespace emulation

struct alignas(8) Words2 {
  uint32_t x, y;
};

inline int thread() { return emulation::place->thread; }
inline int lane() { return emulation::place->lane; }
inline int block_x() { return emulation::place->x; }
inline int block_y() { return emulation::place->y; }
inline int block_z() { return emulation::place->z; }
inline int block_threads() { return emulation::place->n_threads; }
inline uint8_t* shared() { return emulation::place->shared; }

inline float add(float a, float b) { return a + b; }
inline float sub(float a, float b) { return a - b; }
inline float mul(float a, float b) { return a * b; }
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float div(float a, float b) { return a / b; }
inline float sqrt(float a) { return std::sqrt(a); }
inline int round_to_int(float a) { return static_cast<int>(std::lrint(a)); }
inline float to_float(int a) { return static_cast<float>(a); }
inline uint32_t bits(float a) { return std::bit_cast<uint32_t>(a); }
inline float from_bits(uint32_t a) { return std::bit_cast<float>(a); }
inline float from_f16(uint16_t h) { return f32_from_f16(h); }
inline uint16_t to_f16(float f) { return f16_from_f32(f); }
inline uint32_t permute(uint32_t low, uint32_t high, uint32_t choice) {
  const uint64_t bytes = uint64_t{high} << 32 | low;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i)
    out |= static_cast<uint32_t>(bytes >> (8 * (choice >> (4 * i) & 7)) & 0xff) << (8 * i);
  return out;
}
inline int dot4(uint32_t a, uint32_t b, int c) {
  for (int i = 0; i < 32; i += 8) c += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return c;
}

template <class T>
inline T load(const void* p) {
  if (reinterpret_cast<uintptr_t>(p) % alignof(T) != 0) emulation::fail_here("a load off its alignment");
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
template <class T>
inline void store(T value, void* p) {
  if (reinterpret_cast<uintptr_t>(p) % alignof(T) != 0) emulation::fail_here("a store off its alignment");
  std::memcpy(p, &value, sizeof value);
}
inline Words2 load_once(const void* p) { return load<Words2>(p); }

inline void sync_block() { emulation::barrier(); }
inline void sync_warp() {
  emulation::exchange([](void* const(&)[32]) {}, nullptr);
}
template <class T>
inline T warp_shuffle(T value, int from) {
  struct Mine {
    T in, out;
    int from;
  } mine{value, value, from};
  emulation::exchange(
      [](void* const(&lanes)[32]) {
        for (void* p : lanes) {
          Mine& to = *static_cast<Mine*>(p);
          to.out = static_cast<const Mine*>(lanes[to.from & 31])->in;
        }
      },
      &mine);
  return mine.out;
}
template <class T>
inline T warp_largest(T value) {
  emulation::exchange(
      [](void* const(&lanes)[32]) {
        T all[32];
        for (int i = 0; i < 32; ++i) all[i] = *static_cast<const T*>(lanes[i]);
        for (int mask = 16; mask >= 1; mask /= 2) {  // as the lanes would among themselves
          T next[32];
          for (int i = 0; i < 32; ++i) next[i] = all[i] < all[i ^ mask] ? all[i ^ mask] : all[i];
          std::memcpy(all, next, sizeof all);
        }
        for (int i = 0; i < 32; ++i) *static_cast<T*>(lanes[i]) = all[i];
      },
      &value);
  return value;
}
inline int warp_sum(int value) {
  emulation::exchange(
      [](void* const(&lanes)[32]) {
        int sum = 0;
        for (const void* p : lanes) sum += *static_cast<const int*>(p);
        for (void* p : lanes) *static_cast<int*>(p) = sum;
      },
      &value);
  return value;
}
inline void lower(uint32_t* p, uint32_t value) {
  if (value < *p) *p = value;
}

inline void pin(uint32_t (&)[4]) {}
inline void copy_async(void* to, const void* from) { emulation::begin_copy(to, from); }
inline void commit_copies() { emulation::close_copies(); }
template <int kNewest>
inline void await_copies() {
  emulation::finish_copies(kNewest);
}

inline void mma_32(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulation::Fragments mine{a, b, c};
  emulation::exchange(emulation::multiply_32, &mine);
}
inline void mma_16(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  const uint32_t a[2] = {a0, a1};
  emulation::Fragments mine{a, &b, c};
  emulation::exchange(emulation::multiply_16, &mine);
}

inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulation::FloatFragments mine{a, b, c};
  emulation::exchange(emulation::multiply_f16, &mine);
}

}  // namespace quern::cuda
