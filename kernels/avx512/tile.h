// What the AVX-512 VNNI matmul kernels share: the widths of activation tiles (kernels/vnni_tiles.h) and a few
// instructions.
//
// Everything is anonymous: each file that is compiled for AVX-512 has its own copy, so that the linker can
// never pick an AVX-512 copy for code that runs on any CPU. Included by kernels/avx512/*.cc only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/avx512/avx512_kernels.h"
#include "kernels/compiler.h"
#include "kernels/vnni_tiles.h"
#include "quant/panel_layout.h"

namespace quern::avx512 {
namespace {

using Bits = __m512i;

// Width of the tile that takes `n` tokens (1..16): the next one that there is a kernel for.
constexpr size_t tile_width(size_t n) { return n <= 4 ? n : (n + 3) / 4 * 4; }

// Keeps g++ from hoisting and spilling: the value is used and changed here.
QUERN_INLINE void pin(Bits& a) { asm volatile("" : "+v"(a)); }
QUERN_INLINE void pin(__m512& a) { asm volatile("" : "+v"(a)); }
// The compiler moves no load or store across.
QUERN_INLINE void compiler_fence() { asm volatile("" ::: "memory"); }

// t += dot of 4 unsigned bytes of w with the 4 signed bytes at `a`, in each of 16 lanes; the broadcast is
// part of the load.
QUERN_INLINE void dot4(Bits& t, Bits w, const uint8_t* a) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(t) : "v"(w), "m"(*reinterpret_cast<const uint32_t*>(a)));
}

QUERN_INLINE Bits load(const void* p) { return _mm512_loadu_si512(p); }
QUERN_INLINE Bits broadcast_i32(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, sizeof v);
  return _mm512_set1_epi32(v);
}
QUERN_INLINE __m512 broadcast_f32(const uint8_t* p) {
  float v;
  __builtin_memcpy(&v, p, sizeof v);
  return _mm512_set1_ps(v);
}
QUERN_INLINE __m512 load_f16(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// Rows of one panel that are written: all 16, or the first few of the last one.
struct Output {
  float* y;  // first row of the panel, first token of the tile
  size_t stride;
  size_t n_tokens;  // the tile's real tokens; the others are padding
  __mmask16 rows;
  bool add;
  float factor;  // of every dot
  // Where the sums wait, [C][16], when a tile is run for one chunk of k after the other.
  float* partial = nullptr;
  bool first = true, last = true;  // of the chunks
  // The next tile's activations, of which this one asks for a line of each kPanelsTogether.
  const uint8_t* next = nullptr;

  QUERN_INLINE __m512 start(size_t token) const {
    return first ? _mm512_setzero_ps() : _mm512_load_ps(partial + kPanelRows * token);
  }
  QUERN_INLINE void store(size_t token, __m512 acc) const {
    if (!last) return _mm512_store_ps(partial + kPanelRows * token, acc);
    if (token >= n_tokens) return;
    float* const out = y + token * stride;
    acc = _mm512_mul_ps(acc, _mm512_set1_ps(factor));
    if (add) acc = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, out), acc);
    _mm512_mask_storeu_ps(out, rows, acc);
  }
};

}  // namespace
}  // namespace quern::avx512
