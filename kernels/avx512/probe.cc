// The yardstick of the AVX-512 kernels.
#include <immintrin.h>

#include "kernels/avx512/avx512_kernels.h"

namespace quern::avx512 {
namespace {

// Enough independent accumulators to hide the latency of 4 or 5 cycles at two a cycle.
uint64_t multiply(uint64_t n_macs) noexcept {
  constexpr uint64_t kMacs = 16 * 64;  // of one round
  __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5);
  uint64_t done = 0;
  for (; done < n_macs; done += kMacs) {
    asm volatile(
        "vpdpbusd %1, %0, %%zmm16\n\t"
        "vpdpbusd %1, %0, %%zmm17\n\t"
        "vpdpbusd %1, %0, %%zmm18\n\t"
        "vpdpbusd %1, %0, %%zmm19\n\t"
        "vpdpbusd %1, %0, %%zmm20\n\t"
        "vpdpbusd %1, %0, %%zmm21\n\t"
        "vpdpbusd %1, %0, %%zmm22\n\t"
        "vpdpbusd %1, %0, %%zmm23\n\t"
        "vpdpbusd %1, %0, %%zmm24\n\t"
        "vpdpbusd %1, %0, %%zmm25\n\t"
        "vpdpbusd %1, %0, %%zmm26\n\t"
        "vpdpbusd %1, %0, %%zmm27\n\t"
        "vpdpbusd %1, %0, %%zmm28\n\t"
        "vpdpbusd %1, %0, %%zmm29\n\t"
        "vpdpbusd %1, %0, %%zmm30\n\t"
        "vpdpbusd %1, %0, %%zmm31"
        : "+v"(x), "+v"(y)
        :
        : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26",
          "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
  }
  return done;
}

uint64_t read(const uint8_t* bytes, size_t n_bytes) noexcept {
  constexpr size_t kStreams = 4;
  const size_t part = n_bytes / kStreams;
  __m512i sums[kStreams] = {};
  for (size_t i = 0; i < part; i += 128) {
    for (size_t s = 0; s < kStreams; ++s) {
      const uint8_t* const p = bytes + s * part + i;
      sums[s] = _mm512_ternarylogic_epi64(sums[s], _mm512_load_si512(p), _mm512_load_si512(p + 64), 0x96);
    }
  }
  const __m512i sum =
      _mm512_xor_si512(_mm512_xor_si512(sums[0], sums[1]), _mm512_xor_si512(sums[2], sums[3]));
  alignas(64) uint64_t words[8];
  _mm512_store_si512(words, sum);
  return words[0] ^ words[1] ^ words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7];
}

}  // namespace

const ProbeLoops kProbeLoops = {"vpdpbusd (512 bits)", multiply, read};

}  // namespace quern::avx512
