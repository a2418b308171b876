// Formats with a scale for each 16 weights: two sums a token and group.
#include <iterator>

#include "kernels/avx512/products.h"
#include "kernels/unpack/k_quants.h"

namespace quern::avx512 {
namespace {

constexpr MatmulKernel kRows[] = {
    row_of<unpack::Q2_K>(DType::Q2_K),
    row_of<unpack::Q3_K>(DType::Q3_K),
    row_of<unpack::Q6_K>(DType::Q6_K),
};

}  // namespace

constinit const MatmulRows kTwoScalesRows = {kRows, std::size(kRows)};

}  // namespace quern::avx512
