// The words that kernels of the GPU are written in. Under nvcc they are CUDA; under a C++ compiler
// emulation/emulation.h runs the same source on the CPU, to the same bits. What makes that possible:
//  - floating-point values meet in add, sub, mul, fma, div and sqrt alone, each rounded once to nearest even,
//    never fused, never approximated (arithmetic.md, rules 1 and 2);
//  - warp_* and mma_* are reached by all 32 lanes of a warp together, sync_block() by all threads of a block;
//  - memory is read and written through load() and store() where its type is not the pointer's.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__

#define QUERN_GPU_FN __device__ __forceinline__
#define QUERN_GPU_UNROLL _Pragma("unroll")

namespace quern::cuda {

struct alignas(8) Words2 {
  uint32_t x, y;
};

QUERN_GPU_FN int thread() { return static_cast<int>(threadIdx.x); }
QUERN_GPU_FN int lane() { return static_cast<int>(threadIdx.x & 31); }
QUERN_GPU_FN int block_x() { return static_cast<int>(blockIdx.x); }
QUERN_GPU_FN int block_y() { return static_cast<int>(blockIdx.y); }
QUERN_GPU_FN int block_z() { return static_cast<int>(blockIdx.z); }
QUERN_GPU_FN int block_threads() { return static_cast<int>(blockDim.x); }
// The block's shared memory, aligned to 16 bytes, as many as the launch asked for.
QUERN_GPU_FN uint8_t* shared() {
  extern __shared__ __align__(16) uint8_t quern_shared[];
  return quern_shared;
}

QUERN_GPU_FN float add(float a, float b) { return __fadd_rn(a, b); }
QUERN_GPU_FN float sub(float a, float b) { return __fsub_rn(a, b); }
QUERN_GPU_FN float mul(float a, float b) { return __fmul_rn(a, b); }
QUERN_GPU_FN float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
QUERN_GPU_FN float div(float a, float b) { return __fdiv_rn(a, b); }
QUERN_GPU_FN float sqrt(float a) { return __fsqrt_rn(a); }
QUERN_GPU_FN int round_to_int(float a) { return __float2int_rn(a); }  // ties to even
QUERN_GPU_FN float to_float(int a) { return __int2float_rn(a); }
QUERN_GPU_FN uint32_t bits(float a) { return __float_as_uint(a); }
QUERN_GPU_FN float from_bits(uint32_t a) { return __uint_as_float(a); }
QUERN_GPU_FN float from_f16(uint16_t h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}
QUERN_GPU_FN uint16_t to_f16(float f) {  // nearest even
  uint16_t h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}
// Byte i is byte (choice >> 4i) & 7 of high:low.
QUERN_GPU_FN uint32_t permute(uint32_t low, uint32_t high, uint32_t choice) {
  return __byte_perm(low, high, choice);
}
// c + the sum of the products of four signed bytes.
QUERN_GPU_FN int dot4(uint32_t a, uint32_t b, int c) {
  return __dp4a(static_cast<int>(a), static_cast<int>(b), c);
}

template <class T>
QUERN_GPU_FN T load(const void* p) {
  return *static_cast<const T*>(p);
}
template <class T>
QUERN_GPU_FN void store(T value, void* p) {
  *static_cast<T*>(p) = value;
}
// Of weights, which a product reads once.
QUERN_GPU_FN Words2 load_once(const void* p) {
  Words2 words;
  asm("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(words.x), "=r"(words.y) : "l"(p));
  return words;
}

// The words stay in registers from here on: where many products use them, the compiler would rather work them
// out again for each (a third more instructions for Q4_0's many tokens).
QUERN_GPU_FN void pin(uint32_t (&words)[4]) {
  QUERN_GPU_UNROLL
  for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(words[i]));
}

QUERN_GPU_FN void sync_block() { __syncthreads(); }
QUERN_GPU_FN void sync_warp() { __syncwarp(); }
template <class T>
QUERN_GPU_FN T warp_shuffle(T value, int from) {
  return __shfl_sync(0xffffffffu, value, from);
}
template <class T>
QUERN_GPU_FN T warp_largest(T value) {  // a NaN is never larger than what it is compared with
  QUERN_GPU_UNROLL
  for (int mask = 16; mask >= 1; mask /= 2) {
    const T other = __shfl_xor_sync(0xffffffffu, value, mask);
    value = value < other ? other : value;
  }
  return value;
}
QUERN_GPU_FN int warp_sum(int value) {
  QUERN_GPU_UNROLL
  for (int mask = 16; mask >= 1; mask /= 2) value += __shfl_xor_sync(0xffffffffu, value, mask);
  return value;
}
QUERN_GPU_FN void lower(uint32_t* p, uint32_t value) { atomicMin(p, value); }

// 16 bytes of global memory to shared memory, in the background; both aligned to 16 bytes.
QUERN_GPU_FN void copy_async(void* to, const void* from) {
#if __CUDA_ARCH__ >= 800
  const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
#else
  *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
#endif
}
// What this thread has begun to copy since the last call becomes a group.
QUERN_GPU_FN void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// All of this thread's groups but the last kNewest have arrived; the other threads' after a sync_block().
template <int kNewest>
QUERN_GPU_FN void await_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
#endif
}

// c[16][8] += a[16][32] * b[32][8] of signed bytes. Lane 4g + t holds of a: rows g, g+8, g, g+8 at k = 4t..
// (a[0], a[1]) and 16+4t.. (a[2], a[3]); of b: column g at k = 4t.. and 16+4t..; of c: rows g, g, g+8, g+8 at
// columns 2t, 2t+1, 2t, 2t+1. PTX ISA, "Matrix fragments for mma.m16n8k32".
QUERN_GPU_FN void mma_32(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  QUERN_GPU_UNROLL
  for (int half = 0; half < 2; ++half) QUERN_GPU_UNROLL
  for (int k = 0; k < 2; ++k)
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
        : "+r"(c[2 * half]), "+r"(c[2 * half + 1])
        : "r"(a[half + 2 * k]), "r"(b[k]));
#endif
}
// The same of k < 16: a[0], a[1] and b alone.
QUERN_GPU_FN void mma_16(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(b));
#else
  asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
      : "+r"(c[0]), "+r"(c[1])
      : "r"(a0), "r"(b));
  asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
      : "+r"(c[2]), "+r"(c[3])
      : "r"(a1), "r"(b));
#endif
}

// c[16][8] += a[16][16] * b[16][8] of f16, added up in f32: the exact sum, in any order, where all are
// integers and no partial sum reaches 2^24 (which the emulation insists on, and cuda_sweep_test.cc asks a
// GPU). Lane 4g + t holds of a: rows g, g+8, g, g+8 at k = 2t.. (a[0], a[1]) and 8+2t.. (a[2], a[3]); of b:
// column g at k = 2t.. and 8+2t..; c as above. PTX ISA, "Matrix fragments for mma.m16n8k16 with floating
// point type".
QUERN_GPU_FN void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  QUERN_GPU_UNROLL
  for (int half = 0; half < 2; ++half)
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}

}  // namespace quern::cuda

#else
#include "kernels/cuda/emulation/emulation.h"
#endif
