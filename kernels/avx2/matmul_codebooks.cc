// Formats that are looked up, by rows (codebook_rows.h).
#include <iterator>

#include "kernels/avx2/avx2_kernels.h"
#include "kernels/avx2/codebook_rows.h"

namespace quern::avx2 {
namespace {

struct Isa {
  static QUERN_INLINE __m256i apply_signs(__m256i weights, const uint32_t* negative) {
    return negate_by_bits(weights, negative);
  }
  static QUERN_INLINE __m256i dot(__m256i magnitudes, __m256i a) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(magnitudes, a), _mm256_set1_epi16(1));
  }
};

}  // namespace

constinit const MatmulRows kCodebookRows = {RowKernels<Isa>::kRows, std::size(RowKernels<Isa>::kRows)};

}  // namespace quern::avx2
