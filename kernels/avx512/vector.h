// Vectors of 16 rows, as unpackers (kernels/unpack/unpack.md) and loops of this set use them.
//
// Everything is anonymous (see tile.h).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/compiler.h"

namespace quern::avx512 {
namespace {

struct Vector16 {
  using Bits = __m512i;
  using Floats = __m512;
  static constexpr size_t kRows = 16;
  static constexpr int kSignedOffset = 128;  // vpdpbusd wants weights unsigned

  static QUERN_INLINE Bits load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static QUERN_INLINE void store(uint8_t* p, Bits x) { _mm512_storeu_si512(p, x); }
  static QUERN_INLINE void store(uint8_t* p, Floats x) { _mm512_storeu_ps(p, x); }
  static QUERN_INLINE Floats floats(const uint8_t* p) { return _mm512_loadu_ps(p); }
  // A number of each row as f32: 16 f16; as int32: 16 u8, i8, u16.
  static QUERN_INLINE Floats f16(const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static QUERN_INLINE Bits bytes(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static QUERN_INLINE Bits signed_bytes(const uint8_t* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static QUERN_INLINE Bits words(const uint8_t* p) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static QUERN_INLINE Floats to_floats(Bits x) { return _mm512_cvtepi32_ps(x); }
  static QUERN_INLINE Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static QUERN_INLINE Floats negated(Floats x) { return _mm512_xor_ps(x, _mm512_set1_ps(-0.0f)); }

  static QUERN_INLINE Bits splat(int byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }
  static QUERN_INLINE Bits splat32(int x) { return _mm512_set1_epi32(x); }
  // The same, made anew each time: not worth a register in a loop.
  static QUERN_INLINE Bits made32(int x) {
    asm volatile("" : "+r"(x));
    return splat32(x);
  }
  static QUERN_INLINE Bits both(Bits a, Bits b) { return _mm512_and_si512(a, b); }
  static QUERN_INLINE Bits plus(Bits a, Bits b) { return _mm512_add_epi32(a, b); }
  static QUERN_INLINE Bits minus(Bits a, Bits b) { return _mm512_sub_epi32(a, b); }
  static QUERN_INLINE Bits flip(Bits a, Bits b) { return _mm512_xor_si512(a, b); }
  // w | (x & mask)
  static QUERN_INLINE Bits merge(Bits w, Bits x, Bits mask) {
    return _mm512_ternarylogic_epi32(w, x, mask, 0xf8);
  }
  // Of 32-bit lanes: bits of other bytes come along.
  static QUERN_INLINE Bits left(Bits x, size_t n) {
    if (__builtin_constant_p(n)) return _mm512_slli_epi32(x, static_cast<unsigned>(n));
    return _mm512_sll_epi32(x, _mm_cvtsi32_si128(static_cast<int>(n)));
  }
  static QUERN_INLINE Bits right(Bits x, size_t n) {
    if (__builtin_constant_p(n)) return _mm512_srli_epi32(x, static_cast<unsigned>(n));
    return _mm512_srl_epi32(x, _mm_cvtsi32_si128(static_cast<int>(n)));
  }
  // table[i] for every byte i < 16.
  static QUERN_INLINE Bits lookup(const uint8_t* table, Bits i) {
    return _mm512_shuffle_epi8(
        _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table))), i);
  }
  // 2^(e - 128) for 16 bytes e; NaN for 255.
  static QUERN_INLINE Floats powers(const uint8_t* p) {
    const Bits e = bytes(p);
    const Bits small = _mm512_sllv_epi32(made32(0x00200000), e), usual = left(minus(e, made32(1)), 23);
    const Bits bits = _mm512_mask_mov_epi32(usual, _mm512_cmplt_epi32_mask(e, made32(2)), small);
    return _mm512_castsi512_ps(
        _mm512_mask_mov_epi32(bits, _mm512_cmpeq_epi32_mask(e, made32(255)), made32(0x7fc00000)));
  }
};

}  // namespace
}  // namespace quern::avx512
