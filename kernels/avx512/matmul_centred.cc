// Formats with one scale per 32 weights and no minimum: codes minus an offset, and signed codes, which the
// set takes for unsigned ones with an offset.
#include <iterator>

#include "kernels/avx512/products.h"
#include "kernels/unpack/k_quants.h"
#include "kernels/unpack/nibbles.h"

namespace quern::avx512 {
namespace {

constexpr MatmulKernel kRows[] = {
    row_of<unpack::Q4_0>(DType::Q4_0),     row_of<unpack::Q5_0>(DType::Q5_0),
    row_of<unpack::Q8_0>(DType::Q8_0),     row_of<unpack::IQ4_NL>(DType::IQ4_NL),
    row_of<unpack::IQ4_XS>(DType::IQ4_XS), row_of<unpack::MXFP4>(DType::MXFP4),
    row_of<unpack::TQ2_0>(DType::TQ2_0),
};

}  // namespace

// Few columns, whose activations L1 holds: nothing to take apart for them.
void matmul_q8_0(const MatmulArgs& args) noexcept {
  multiply_direct<FromMemory<unpack::Q8_0<Vector16>>>(args);
}

constinit const MatmulRows kCentredRows = {kRows, std::size(kRows)};

}  // namespace quern::avx512
