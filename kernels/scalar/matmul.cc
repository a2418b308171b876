// Dot products as arithmetic.md "Dot product" writes them down, one operation after the other.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "kernels/scalar/scalar_kernels.h"

namespace quern::scalar {
namespace {

constexpr size_t kGroupWeights = 32;  // one activation scale
constexpr size_t kTokenTile = 16;     // tokens that share one unpacking of a row

// Adds one group's contribution to the dot product of a row and a token.
float accumulate(const WeightGroup& w, const int8_t* a, float da, const int16_t* sums, float acc) noexcept {
  int32_t half[2] = {0, 0};
  for (size_t k = 0; k < kGroupWeights; ++k) half[k / 16] += w.code[k] * a[k];
  if (w.two_steps) {
    acc = std::fma(static_cast<float>(half[0]), w.d * da, acc);
    return std::fma(static_cast<float>(half[1]), w.d_second * da, acc);
  }
  const int32_t dot = w.scale[0] * half[0] + w.scale[1] * half[1];
  const float p = w.d * da;
  acc = std::fma(static_cast<float>(dot), p, acc);
  if (!w.has_min) return acc;
  const int32_t s0 = sums[0] + sums[1], s1 = sums[2] + sums[3];
  const float offset = da * static_cast<float>(w.min[0] * s0 + w.min[1] * s1);
  return std::fma(w.mu, offset, acc);
}

void quantized_dots(const BlockFormat& format, const uint8_t* row, const MatmulArgs& args, size_t token_begin,
                    size_t token_end, float* dots) noexcept {
  const size_t n_groups = args.k / kGroupWeights;
  std::fill_n(dots, token_end - token_begin, 0.0f);
  for (size_t g = 0; g < n_groups; ++g) {
    WeightGroup w;
    format.unpack_group(row, g, &w);
    for (size_t t = token_begin; t < token_end; ++t) {
      const size_t at = t * n_groups + g;
      dots[t - token_begin] = accumulate(w, args.a.codes + at * kGroupWeights, args.a.scales[at],
                                         args.a.sums + at * 4, dots[t - token_begin]);
    }
  }
}

void float_dots(const BlockFormat& format, const uint8_t* row, const MatmulArgs& args, size_t token_begin,
                size_t token_end, float* dots) noexcept {
  std::fill_n(dots, token_end - token_begin, 0.0f);
  for (size_t k = 0; k < args.k; ++k) {
    float w;
    format.decode(row + k * format.block_bytes, 1, &w);
    for (size_t t = token_begin; t < token_end; ++t)
      dots[t - token_begin] = std::fma(w, args.x[t * args.k + k], dots[t - token_begin]);
  }
}

template <DType kDType>
void matmul(const MatmulArgs& args) noexcept {
  const BlockFormat& format = block_format(kDType);
  const size_t row_bytes = format.row_bytes(args.k);
  for (size_t row = args.row_begin; row < args.row_end; ++row) {
    const uint8_t* weights = args.weights + row * row_bytes;
    for (size_t begin = 0; begin < args.n_tokens; begin += kTokenTile) {
      const size_t end = std::min(begin + kTokenTile, args.n_tokens);
      float dots[kTokenTile];
      if (format.is_float()) {
        float_dots(format, weights, args, begin, end, dots);
      } else {
        quantized_dots(format, weights, args, begin, end, dots);
      }
      for (size_t t = begin; t < end; ++t) {
        float& y = args.y[t * args.y_stride + row];
        const float dot = dots[t - begin] * args.factor;
        y = args.add ? y + dot : dot;
      }
    }
  }
}

template <DType kDType>
constexpr MatmulKernel kRow = {kDType, TensorLayout::kRows, matmul<kDType>};

constexpr MatmulKernel kRows[] = {
    kRow<DType::F32>,   kRow<DType::F16>,     kRow<DType::BF16>,   kRow<DType::Q4_0>,   kRow<DType::Q4_1>,
    kRow<DType::Q5_0>,  kRow<DType::Q5_1>,    kRow<DType::Q8_0>,   kRow<DType::Q2_K>,   kRow<DType::Q3_K>,
    kRow<DType::Q4_K>,  kRow<DType::Q5_K>,    kRow<DType::Q6_K>,   kRow<DType::IQ4_NL>, kRow<DType::IQ4_XS>,
    kRow<DType::MXFP4>, kRow<DType::IQ2_XXS>, kRow<DType::IQ2_XS>, kRow<DType::IQ2_S>,  kRow<DType::IQ3_XXS>,
    kRow<DType::IQ3_S>, kRow<DType::IQ1_S>,   kRow<DType::IQ1_M>,  kRow<DType::TQ1_0>,  kRow<DType::TQ2_0>,
    kRow<DType::NVFP4>,
};

}  // namespace

constinit const MatmulRows kMatmulRows = {kRows, std::size(kRows)};

}  // namespace quern::scalar
