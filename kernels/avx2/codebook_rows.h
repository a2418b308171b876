// Products with rows as a file has them, of formats that are looked up (kernels/unpack/codebooks.h): four
// rows and one token at a time, so that lanes end as rows and each row's sum is added to in the order of its
// groups. Shared by the sets; they differ in how they apply signs and multiply:
//   Isa::apply_signs(weights, negative)  codebooks.h
//   Isa::dot(magnitudes, a)              sums of four products in each of eight lanes; magnitudes unsigned
//
// Blocks are taken apart once for all tokens, so this is a loop for prompts, too, where a set has no faster
// one.
//
// Everything is anonymous (see codebooks.h). Needs AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_set.h"
#include "kernels/unpack/codebooks.h"
#include "quant/tensor_layout.h"

namespace quern::avx2 {
namespace {

constexpr size_t kRowsTogether = 4;
// Tokens whose sums are on the stack.
constexpr size_t kRowSlabTokens = 512;

template <class Format>
struct FourRows {
  typename Format::Row rows[kRowsTogether];
  alignas(16) float d[Format::kSteps * Format::kGroups][kRowsTogether];  // RowBlock::d, turned
};

// A block of each row. The next four rows' are asked for: they lie right behind these, and take as long to
// read as these take to be looked up.
template <class Format>
QUERN_KERNEL void take_apart(const uint8_t* const (&block)[kRowsTogether], size_t at, size_t ahead,
                             FourRows<Format>& out) noexcept {
  for (size_t r = 0; r < kRowsTogether; ++r) {
    QUERN_UNROLL
    for (size_t line = 0; line < Format::kBytes; line += 64) prefetch(block[r] + at + ahead + line);
    Format::look_up(block[r] + at, out.rows[r]);
  }
  QUERN_UNROLL
  for (size_t i = 0; i < Format::kSteps * Format::kGroups; i += 4) {
    __m128 d[kRowsTogether];
    QUERN_UNROLL
    for (size_t r = 0; r < kRowsTogether; ++r) d[r] = _mm_load_ps(out.rows[r].d + i);
    _MM_TRANSPOSE4_PS(d[0], d[1], d[2], d[3]);
    QUERN_UNROLL
    for (size_t j = 0; j < 4; ++j) _mm_store_ps(out.d[i + j], d[j]);
  }
}

// Sums of four vectors, one each in the lanes of either half.
QUERN_INLINE __m256i add_up(const __m256i (&t)[kRowsTogether]) {
  const __m256i low = _mm256_add_epi32(_mm256_unpacklo_epi32(t[0], t[1]), _mm256_unpackhi_epi32(t[0], t[1]));
  const __m256i high = _mm256_add_epi32(_mm256_unpacklo_epi32(t[2], t[3]), _mm256_unpackhi_epi32(t[2], t[3]));
  return _mm256_add_epi32(_mm256_unpacklo_epi64(low, high), _mm256_unpackhi_epi64(low, high));
}

// Both integers of a group as often as there are pairs of weights, in int16.
QUERN_INLINE __m256i sub_scales_of(const int16_t* two) {
  int32_t both;
  __builtin_memcpy(&both, two, sizeof both);
  const __m256i order = _mm256_setr_epi32(0x01000100, 0x01000100, 0x01000100, 0x01000100, 0x03020302,
                                          0x03020302, 0x03020302, 0x03020302);
  return _mm256_shuffle_epi8(_mm256_set1_epi32(both), order);
}

// A block of four rows x n_tokens tokens, added to acc [n_tokens][4]. a, da: of the block's columns.
template <class Isa, class Format>
QUERN_KERNEL void tile_rows(const FourRows<Format>& w, const int8_t* a, size_t a_stride, const float* da,
                            size_t da_stride, size_t n_tokens, float* acc) noexcept {
  for (; n_tokens != 0; --n_tokens, a += a_stride, da += da_stride, acc += kRowsTogether) {
    __m128 sum = _mm_loadu_ps(acc);
    for (size_t g = 0; g < Format::kGroups; ++g) {
      const __m256i x = unpack::load256(a + 32 * g);
      __m256i t[kRowsTogether];
      QUERN_UNROLL
      for (size_t r = 0; r < kRowsTogether; ++r) {
        const __m256i codes = unpack::load256(w.rows[r].codes + 32 * g);
        const __m256i magnitudes = _mm256_abs_epi8(codes), signed_x = _mm256_sign_epi8(x, codes);
        static_assert(2 * Format::kLargest * 127 < 32768, "pairs of products fit in int16");
        if constexpr (Format::kSums == 2)
          t[r] = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitudes, signed_x),
                                   sub_scales_of(w.rows[r].sub_scales + 2 * g));
        else
          t[r] = Isa::dot(magnitudes, signed_x);
      }
      const __m256i dots = add_up(t);
      const __m128i first = _mm256_castsi256_si128(dots), second = _mm256_extracti128_si256(dots, 1);
      const __m128 scale = _mm_set1_ps(da[g]);
      if constexpr (Format::kSteps == 1) {
        sum = _mm_fmadd_ps(_mm_cvtepi32_ps(_mm_add_epi32(first, second)),
                           _mm_mul_ps(_mm_load_ps(w.d[g]), scale), sum);
      } else {
        sum = _mm_fmadd_ps(_mm_cvtepi32_ps(first), _mm_mul_ps(_mm_load_ps(w.d[2 * g]), scale), sum);
        sum = _mm_fmadd_ps(_mm_cvtepi32_ps(second), _mm_mul_ps(_mm_load_ps(w.d[2 * g + 1]), scale), sum);
      }
    }
    _mm_storeu_ps(acc, sum);
  }
}

// acc [n_tokens][4] to rows [row, min(row + 4, row_end)) of y.
inline void store_rows(const MatmulArgs& args, size_t row, size_t token, size_t n_tokens,
                       const float* acc) noexcept {
  const size_t n_rows = args.row_end - row < kRowsTogether ? args.row_end - row : kRowsTogether;
  for (size_t t = 0; t < n_tokens; ++t, acc += kRowsTogether) {
    float* const y = args.y + (token + t) * args.y_stride + row;
    for (size_t r = 0; r < n_rows; ++r) {
      const float dot = acc[r] * args.factor;
      y[r] = args.add ? y[r] + dot : dot;
    }
  }
}

template <class Isa, template <class> class FormatOf>
void multiply_rows(const MatmulArgs& args) noexcept {
  using Format = FormatOf<Isa>;
  const size_t groups = args.k / 32, row_bytes = groups / Format::kGroups * Format::kBytes;
  alignas(64) float acc[kRowSlabTokens * kRowsTogether];
  FourRows<Format> taken;
  for (size_t token = 0; token < args.n_tokens; token += kRowSlabTokens) {
    const size_t n = args.n_tokens - token < kRowSlabTokens ? args.n_tokens - token : kRowSlabTokens;
    for (size_t row = args.row_begin; row < args.row_end; row += kRowsTogether) {
      const uint8_t* rows[kRowsTogether];
      for (size_t r = 0; r < kRowsTogether; ++r)
        rows[r] = args.weights + (row + r < args.row_end ? row + r : row) * row_bytes;
      __builtin_memset(acc, 0, n * kRowsTogether * sizeof(float));
      for (size_t group = 0; group < groups; group += Format::kGroups) {
        take_apart<Format>(rows, group / Format::kGroups * Format::kBytes, kRowsTogether * row_bytes, taken);
        tile_rows<Isa, Format>(taken, args.a.codes + token * args.k + 32 * group, args.k,
                               args.a.scales + token * groups + group, groups, n, acc);
      }
      store_rows(args, row, token, n, acc);
    }
  }
}

// Signs of 32 weights by AVX2.
QUERN_INLINE __m256i negate_by_bits(__m256i weights, const uint32_t* negative) {
  const __m256i bytes = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bits = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int32_t>(*negative)), bytes);
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bits), bits);
  return _mm256_sub_epi8(_mm256_xor_si256(weights, set), set);
}

template <class Isa, template <class> class FormatOf>
constexpr MatmulKernel rows_of(DType dtype) {
  return {dtype, TensorLayout::kRows, multiply_rows<Isa, FormatOf>};
}

// A table of all of them.
template <class Isa>
struct RowKernels {
  static constexpr MatmulKernel kRows[] = {
      rows_of<Isa, unpack::IQ2_XXS>(DType::IQ2_XXS), rows_of<Isa, unpack::IQ2_XS>(DType::IQ2_XS),
      rows_of<Isa, unpack::IQ2_S>(DType::IQ2_S),     rows_of<Isa, unpack::IQ3_XXS>(DType::IQ3_XXS),
      rows_of<Isa, unpack::IQ3_S>(DType::IQ3_S),     rows_of<Isa, unpack::IQ1_S>(DType::IQ1_S),
      rows_of<Isa, unpack::IQ1_M>(DType::IQ1_M),     rows_of<Isa, unpack::TQ1_0>(DType::TQ1_0),
      rows_of<Isa, unpack::NVFP4>(DType::NVFP4),
  };
};

}  // namespace
}  // namespace quern::avx2
