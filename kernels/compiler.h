// What compilers must be told about inner loops whose arrays of vectors are registers. For files that are
// compiled for one instruction set.
#pragma once

// Loops over arrays of registers must be unrolled, or g++ keeps the arrays in memory.
#if defined(__clang__)
#define QUERN_UNROLL _Pragma("unroll")
#else
#define QUERN_UNROLL _Pragma("GCC unroll 32")
#endif
// The same for loops whose bounds follow from an unrolled one's counter. At the -O1 of sanitized builds g++
// has resolved some of them before it reads the annotation, which it then warns of.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define QUERN_UNROLL_INNER
#else
#define QUERN_UNROLL_INNER QUERN_UNROLL
#endif

// Kernels stay functions of their own: inlined into the walk they would share its registers and spill.
#define QUERN_KERNEL __attribute__((noinline))
#define QUERN_INLINE inline __attribute__((always_inline))
#define QUERN_INLINED __attribute__((always_inline))  // of a lambda

namespace quern {
namespace {

// Asks for the cache line at p; past the end of memory it does nothing.
QUERN_INLINE void prefetch(const unsigned char* p) { __builtin_prefetch(p, 0, 3); }

}  // namespace
}  // namespace quern
