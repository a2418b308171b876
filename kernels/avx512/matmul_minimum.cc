// Formats with a scale and a minimum per 32 weights.
#include <iterator>

#include "kernels/avx512/products.h"
#include "kernels/unpack/k_quants.h"
#include "kernels/unpack/nibbles.h"

namespace quern::avx512 {
namespace {

constexpr MatmulKernel kRows[] = {
    row_of<unpack::Q4_1>(DType::Q4_1),
    row_of<unpack::Q5_1>(DType::Q5_1),
    row_of<unpack::Q4_K>(DType::Q4_K),
    row_of<unpack::Q5_K>(DType::Q5_K),
};

}  // namespace

constinit const MatmulRows kMinimumRows = {kRows, std::size(kRows)};

}  // namespace quern::avx512
