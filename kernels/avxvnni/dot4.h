// The instruction that the AVX-VNNI set is about. Tests also compile the set's files with it in the encoding
// of AVX-512 VL and VNNI (QUERN_DOT4_EVEX), and made of AVX2 instructions (QUERN_DOT4_AVX2), so that the
// kernels run and are compared where AVX-VNNI is missing. Included by kernels/avxvnni/*.cc only.
#pragma once

#include "kernels/avx2/unpack.h"

namespace quern {
namespace {

// sum += dot of 4 unsigned bytes of w with 4 signed bytes of a, in each of 8 lanes, modulo 2^32.
QUERN_INLINE void dot4(avx2::Bits& sum, avx2::Bits w, avx2::Bits a) {
#if defined(QUERN_DOT4_AVX2)
  const avx2::Bits even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(0xff)),
                                            _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8));
  const avx2::Bits odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(a, 8));
  sum = _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
#elif defined(QUERN_DOT4_EVEX)
  sum = _mm256_dpbusd_epi32(sum, w, a);
#else
  sum = _mm256_dpbusd_avx_epi32(sum, w, a);
#endif
}

}  // namespace
}  // namespace quern
