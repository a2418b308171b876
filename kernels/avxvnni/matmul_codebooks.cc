// Formats that are looked up, by rows (kernels/avx2/codebook_rows.h).
#include <iterator>

#include "kernels/avx2/codebook_rows.h"
#include "kernels/avxvnni/avxvnni_kernels.h"
#include "kernels/avxvnni/dot4.h"

namespace quern::QUERN_AVXVNNI {
namespace {

struct Isa {
  static QUERN_INLINE __m256i apply_signs(__m256i weights, const uint32_t* negative) {
    return avx2::negate_by_bits(weights, negative);
  }
  static QUERN_INLINE __m256i dot(__m256i magnitudes, __m256i a) {
    __m256i sum = _mm256_setzero_si256();
    dot4(sum, magnitudes, a);
    return sum;
  }
};

}  // namespace

constinit const MatmulRows kCodebookRows = {avx2::RowKernels<Isa>::kRows,
                                            std::size(avx2::RowKernels<Isa>::kRows)};

}  // namespace quern::QUERN_AVXVNNI
