// Float formats: one FMA chain an output (arithmetic.md "Dot product, float weights"), lanes are rows.
//
// A chain's FMA waits four cycles for the one before it, so a tile keeps at least four chains going: several
// panels side by side where tokens are few, one panel where they are many.
#include <iterator>

#include "kernels/avx512/avx512_kernels.h"
#include "kernels/avx512/tile.h"

namespace quern::avx512 {
namespace {

struct F32 {
  static constexpr size_t kBytes = 64;
  static QUERN_INLINE __m512 unpack(const uint8_t* p) { return _mm512_loadu_ps(p); }
};

struct F16 {
  static constexpr size_t kBytes = 32;
  static QUERN_INLINE __m512 unpack(const uint8_t* p) { return load_f16(p); }
};

struct BF16 {
  static constexpr size_t kBytes = 32;
  static QUERN_INLINE __m512 unpack(const uint8_t* p) {
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
  }
};

// P panels x C tokens. x: first token's activations; panels are panel_bytes apart.
template <class Format, int P, int C>
QUERN_KERNEL void tile(const uint8_t* panel, size_t panel_bytes, const float* x, size_t k,
                       const Output (&out)[P]) {
  __m512 acc[P][C];
  QUERN_UNROLL
  for (int p = 0; p < P; ++p) QUERN_UNROLL
  for (int c = 0; c < C; ++c) acc[p][c] = _mm512_setzero_ps();
  for (size_t i = 0; i < k; ++i) {
    __m512 w[P];
    QUERN_UNROLL
    for (int p = 0; p < P; ++p)
      w[p] = Format::unpack(panel + static_cast<size_t>(p) * panel_bytes + i * Format::kBytes);
    QUERN_UNROLL
    for (int c = 0; c < C; ++c) {
      const __m512 xi = _mm512_set1_ps(x[static_cast<size_t>(c) * k + i]);
      QUERN_UNROLL
      for (int p = 0; p < P; ++p) acc[p][c] = _mm512_fmadd_ps(w[p], xi, acc[p][c]);
    }
  }
  QUERN_UNROLL
  for (int p = 0; p < P; ++p) QUERN_UNROLL
  for (int c = 0; c < C; ++c) out[p].store(static_cast<size_t>(c), acc[p][c]);
}

template <class Format, int P>
void multiply_panels(const MatmulArgs& args, size_t row) {
  const size_t panel_bytes = args.k * Format::kBytes;
  const uint8_t* panel = args.weights + row / kPanelRows * panel_bytes;
  for (size_t token = 0; token < args.n_tokens;) {
    const size_t n = args.n_tokens - token;
    Output out[P];
    for (size_t p = 0; p < P; ++p) {
      const size_t first = row + p * kPanelRows, left = args.row_end - first;
      const auto rows = static_cast<__mmask16>(left >= kPanelRows ? 0xffffu : (1u << left) - 1);
      out[p] = {args.y + token * args.y_stride + first, args.y_stride, n, rows, args.add, args.factor};
    }
    const float* x = args.x + token * args.k;
    if (n >= 8 && P == 1) {
      tile<Format, P, 8>(panel, panel_bytes, x, args.k, out);
      token += 8;
    } else if (n >= 4) {
      tile<Format, P, 4>(panel, panel_bytes, x, args.k, out);
      token += 4;
    } else if (n >= 2) {
      tile<Format, P, 2>(panel, panel_bytes, x, args.k, out);
      token += 2;
    } else {
      tile<Format, P, 1>(panel, panel_bytes, x, args.k, out);
      token += 1;
    }
  }
}

template <class Format>
void multiply(const MatmulArgs& args) noexcept {
  constexpr size_t kTogether = 4;
  size_t row = args.row_begin;
  if (args.n_tokens < 4)
    for (; args.row_end - row > (kTogether - 1) * kPanelRows && row < args.row_end;
         row += kTogether * kPanelRows)
      multiply_panels<Format, kTogether>(args, row);
  for (; row < args.row_end; row += kPanelRows) multiply_panels<Format, 1>(args, row);
}

constexpr MatmulKernel kRows[] = {
    {DType::F32, TensorLayout::kPanels, multiply<F32>},
    {DType::F16, TensorLayout::kPanels, multiply<F16>},
    {DType::BF16, TensorLayout::kPanels, multiply<BF16>},
};

}  // namespace

constinit const MatmulRows kFloatRows = {kRows, std::size(kRows)};

}  // namespace quern::avx512
