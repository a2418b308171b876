// Formats that are looked up: few tokens by rows (kernels/avx2/codebook_rows.h); for many, 16 rows are taken
// apart once, in the order that tiles of signed codes read.
#include <iterator>

#include "kernels/avx2/codebook_rows.h"
#include "kernels/avx512/avx512_kernels.h"
#include "kernels/avx512/products.h"

namespace quern::avx512 {
namespace {

struct Isa {
  static QUERN_INLINE __m256i apply_signs(__m256i weights, const uint32_t* negative) {
    return _mm256_mask_sub_epi8(weights, *negative, _mm256_setzero_si256(), weights);
  }
  static QUERN_INLINE __m256i dot(__m256i magnitudes, __m256i a) {
    return _mm256_dpbusd_epi32(_mm256_setzero_si256(), magnitudes, a);
  }
};

// Rows and columns of 8 x 8 numbers change places.
QUERN_INLINE void turn(__m256i (&x)[8]) {
  __m256i pairs[8], fours[8];
  QUERN_UNROLL
  for (size_t i = 0; i < 4; ++i) {
    pairs[2 * i] = _mm256_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
    pairs[2 * i + 1] = _mm256_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
  }
  QUERN_UNROLL
  for (size_t i = 0; i < 2; ++i) {
    QUERN_UNROLL
    for (size_t j = 0; j < 2; ++j) {
      fours[4 * i + 2 * j] = _mm256_unpacklo_epi64(pairs[4 * i + j], pairs[4 * i + 2 + j]);
      fours[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(pairs[4 * i + j], pairs[4 * i + 2 + j]);
    }
  }
  QUERN_UNROLL
  for (size_t i = 0; i < 4; ++i) {
    x[i] = _mm256_permute2x128_si256(fours[i], fours[4 + i], 0x20);
    x[4 + i] = _mm256_permute2x128_si256(fours[i], fours[4 + i], 0x31);
  }
}

// Eight rows' block to half of 16 rows' groups: rows 0-7 or 8-15.
template <class Format, class Group>
QUERN_KERNEL void expand_eight(const typename Format::Row (&rows)[8], size_t half, uint8_t* out) noexcept {
  constexpr size_t kHalfBytes = 32;
  __m256i x[8];
  QUERN_UNROLL
  for (size_t r = 0; r < 8; ++r) x[r] = unpack::load256(rows[r].d);
  turn(x);
  QUERN_UNROLL
  for (size_t g = 0; g < 8; ++g) unpack::store256(out + g * Group::kBytes + kHalfBytes * half, x[g]);
  if constexpr (Group::kSums == 2) {
    QUERN_UNROLL
    for (size_t r = 0; r < 8; ++r) x[r] = unpack::load256(rows[r].sub_scales);
    turn(x);
    QUERN_UNROLL
    for (size_t g = 0; g < 8; ++g)
      unpack::store256(out + g * Group::kBytes + Group::kSubScales + kHalfBytes * half, x[g]);
  }
  for (size_t g = 0; g < 8; ++g) {
    QUERN_UNROLL
    for (size_t r = 0; r < 8; ++r) x[r] = unpack::load256(rows[r].codes + 32 * g);
    turn(x);
    uint8_t* const group = out + g * Group::kBytes;
    if constexpr (Group::kPaired) {
      __m256i squares[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
      QUERN_UNROLL
      for (size_t s = 0; s < 8; ++s) {
        const __m256i size = _mm256_abs_epi8(x[s]);
        squares[s / 4] = _mm256_dpbusd_epi32(squares[s / 4], size, size);
      }
      uint32_t largest =
                   _mm512_reduce_max_epu32(_mm512_zextsi256_si512(_mm256_max_epu32(squares[0], squares[1]))),
               other = 0;
      if (half == 1) __builtin_memcpy(&other, group + Group::kSquareSum, sizeof other);
      if (other > largest) largest = other;
      __builtin_memcpy(group + Group::kSquareSum, &largest, sizeof largest);
    }
    QUERN_UNROLL
    for (size_t s = 0; s < 8; ++s)
      unpack::store256(group + Group::kSteps + 64 * s + kHalfBytes * half,
                       _mm256_add_epi8(x[s], _mm256_set1_epi8(static_cast<char>(Group::kOffset))));
  }
}

// Rows as multiply_expanded takes weights.
template <class Format>
struct Rows {
  static constexpr size_t kGroups = Format::kGroups;
  static_assert(kGroups == 8 && Format::kSteps == 1);
  static_assert(Format::kSums == 1 || Format::kLargest <= 64);
  using Group = Expanded<Format::kSums, Format::kSums == 2 ? 64 : 128, 0>;

  static size_t row_bytes(const MatmulArgs& args) { return args.k / (32 * kGroups) * Format::kBytes; }

  // Of rows that are not there the last one stands in.
  static void expand(const MatmulArgs& args, size_t row, size_t block, size_t n, uint8_t* out) {
    const size_t last = args.row_end - 1;
    for (size_t b = 0; b < n; ++b, out += kGroups * Group::kBytes)
      for (size_t half = 0; half < 2; ++half) {
        typename Format::Row rows[8];
        for (size_t r = 0; r < 8; ++r) {
          const size_t i = row + 8 * half + r < last ? row + 8 * half + r : last;
          look_up(args.weights + i * row_bytes(args) + (block + b) * Format::kBytes, rows[r]);
        }
        expand_eight<Format, Group>(rows, half, out);
      }
  }
  static QUERN_KERNEL void look_up(const uint8_t* block, typename Format::Row& row) noexcept {
    Format::look_up(block, row);
  }
  // Asks for part `i` of `parts` of n blocks of 16 rows.
  static void ask_for(const MatmulArgs& args, size_t row, size_t block, size_t n, size_t i, size_t parts) {
    for (size_t r = kPanelRows * i / parts; r < kPanelRows * (i + 1) / parts; ++r)
      for (size_t at = 0; at < n * Format::kBytes + 63; at += 64)
        _mm_prefetch(reinterpret_cast<const char*>(args.weights + (row + r) * row_bytes(args) +
                                                   block * Format::kBytes + at),
                     _MM_HINT_T1);
  }
};

// Tokens from which rows are taken apart for tiles.
constexpr size_t kExpandRowsFrom = 16;

template <template <class> class FormatOf>
void multiply_looked_up(const MatmulArgs& args) noexcept {
  if (args.n_tokens < kExpandRowsFrom) return avx2::multiply_rows<Isa, FormatOf>(args);
  multiply_expanded<Rows<FormatOf<Isa>>>(args);
}

template <template <class> class FormatOf>
constexpr MatmulKernel looked_up(DType dtype) {
  return {dtype, TensorLayout::kRows, multiply_looked_up<FormatOf>, &kTiles, kPanelsTogether};
}

constexpr MatmulKernel kRows[] = {
    looked_up<unpack::IQ2_XXS>(DType::IQ2_XXS),      looked_up<unpack::IQ2_XS>(DType::IQ2_XS),
    looked_up<unpack::IQ2_S>(DType::IQ2_S),          looked_up<unpack::IQ3_XXS>(DType::IQ3_XXS),
    looked_up<unpack::IQ3_S>(DType::IQ3_S),          looked_up<unpack::IQ1_S>(DType::IQ1_S),
    looked_up<unpack::IQ1_M>(DType::IQ1_M),          looked_up<unpack::TQ1_0>(DType::TQ1_0),
    avx2::rows_of<Isa, unpack::NVFP4>(DType::NVFP4),
};

}  // namespace

constinit const MatmulRows kCodebookRows = {kRows, std::size(kRows)};

}  // namespace quern::avx512
