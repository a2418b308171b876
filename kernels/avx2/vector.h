// Vectors of 8 rows, as unpackers (kernels/unpack/unpack.md) and the sets that work on 256-bit registers use
// them.
//
// Everything is anonymous (see unpack.h). Needs AVX2 and F16C.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/compiler.h"

namespace quern::avx2 {
namespace {

struct Vector8 {
  using Bits = __m256i;
  using Floats = __m256;
  static constexpr size_t kRows = 8;
  static constexpr int kSignedOffset = 0;  // signed codes stay signed

  static QUERN_INLINE Bits load(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  // A number of each row as f32: 8 f16; as int32: 8 u8, i8, u16.
  static QUERN_INLINE Floats f16(const uint8_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static QUERN_INLINE Bits bytes(const uint8_t* p) { return _mm256_cvtepu8_epi32(load8(p)); }
  static QUERN_INLINE Bits signed_bytes(const uint8_t* p) { return _mm256_cvtepi8_epi32(load8(p)); }
  static QUERN_INLINE Bits words(const uint8_t* p) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static QUERN_INLINE Floats to_floats(Bits x) { return _mm256_cvtepi32_ps(x); }
  static QUERN_INLINE Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static QUERN_INLINE Floats negated(Floats x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }

  static QUERN_INLINE Bits splat(int byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
  static QUERN_INLINE Bits splat32(int x) { return _mm256_set1_epi32(x); }
  // The same, made anew each time: not worth a register in a loop.
  static QUERN_INLINE Bits made32(int x) {
    asm volatile("" : "+r"(x));
    return splat32(x);
  }
  static QUERN_INLINE Bits both(Bits a, Bits b) { return _mm256_and_si256(a, b); }
  static QUERN_INLINE Bits plus(Bits a, Bits b) { return _mm256_add_epi32(a, b); }
  static QUERN_INLINE Bits minus(Bits a, Bits b) { return _mm256_sub_epi32(a, b); }
  static QUERN_INLINE Bits flip(Bits a, Bits b) { return _mm256_xor_si256(a, b); }
  // w | (x & mask)
  static QUERN_INLINE Bits merge(Bits w, Bits x, Bits mask) {
    return _mm256_or_si256(w, _mm256_and_si256(x, mask));
  }
  // Of 32-bit lanes: bits of other bytes come along.
  static QUERN_INLINE Bits left(Bits x, size_t n) {
    if (__builtin_constant_p(n)) return _mm256_slli_epi32(x, static_cast<int>(n));
    return _mm256_sll_epi32(x, _mm_cvtsi32_si128(static_cast<int>(n)));
  }
  static QUERN_INLINE Bits right(Bits x, size_t n) {
    if (__builtin_constant_p(n)) return _mm256_srli_epi32(x, static_cast<int>(n));
    return _mm256_srl_epi32(x, _mm_cvtsi32_si128(static_cast<int>(n)));
  }
  // table[i] for every byte i < 16.
  static QUERN_INLINE Bits lookup(const uint8_t* table, Bits i) {
    return _mm256_shuffle_epi8(
        _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table))), i);
  }
  // 2^(e - 128) for 8 bytes e; NaN for 255. Hardly any weight needs an e of 0, 1 or 255.
  static QUERN_INLINE Floats powers(const uint8_t* p) {
    const Bits e = bytes(p);
    uint64_t eight;
    __builtin_memcpy(&eight, p, sizeof eight);
    if (!has_zero_byte(eight & 0xfefefefefefefefe) && !has_zero_byte(~eight))
      return _mm256_castsi256_ps(left(minus(e, made32(1)), 23));
    const Bits small = _mm256_sllv_epi32(made32(0x00200000), e), usual = left(minus(e, made32(1)), 23);
    const Bits bits = _mm256_blendv_epi8(usual, small, _mm256_cmpgt_epi32(made32(2), e));
    return _mm256_castsi256_ps(
        _mm256_blendv_epi8(bits, made32(0x7fc00000), _mm256_cmpeq_epi32(e, made32(255))));
  }

 private:
  static QUERN_INLINE bool has_zero_byte(uint64_t x) {
    return ((x - 0x0101010101010101) & ~x & 0x8080808080808080) != 0;
  }
  static QUERN_INLINE __m128i load8(const uint8_t* p) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
};

}  // namespace
}  // namespace quern::avx2
