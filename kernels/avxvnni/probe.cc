// The yardstick of the AVX-VNNI kernels.
#include "kernels/avxvnni/avxvnni_kernels.h"
#include "kernels/avxvnni/dot4.h"

namespace quern::QUERN_AVXVNNI {

// Enough independent sums to hide a latency of 5 cycles at two a cycle.
uint64_t probe_multiply(uint64_t n_macs) noexcept {
  constexpr uint64_t kSums = 10, kMacs = kSums * 32;  // of one round
  avx2::Bits w = _mm256_set1_epi8(3), a = _mm256_set1_epi8(5), sums[kSums];
  QUERN_UNROLL
  for (size_t i = 0; i < kSums; ++i) sums[i] = _mm256_setzero_si256();
  uint64_t done = 0;
  for (; done < n_macs; done += kMacs) {
    QUERN_UNROLL
    for (size_t i = 0; i < kSums; ++i) {
      dot4(sums[i], w, a);
      avx2::pin(sums[i]);
    }
  }
  return done;
}

}  // namespace quern::QUERN_AVXVNNI
