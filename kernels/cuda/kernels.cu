// The kernels as CUDA: one entry for each row of kernel_list.h. Compiled by nvcc alone, to a fat binary that
// the program carries (CMakeLists.txt).
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/product_kernels.h"
#include "kernels/cuda/row_kernels.h"

namespace quern::cuda {

// One block a multiprocessor is enough: registers are not spilled to make room for more.
#define QUERN_CUDA_ENTRY(name, Args, threads, function)                                             \
  extern "C" __global__ void __launch_bounds__(threads, 1)                                          \
      quern_##name(__grid_constant__ const Args args) {                                             \
    function(args);                                                                                 \
  }
QUERN_CUDA_KERNELS(QUERN_CUDA_ENTRY)
#undef QUERN_CUDA_ENTRY

}  // namespace quern::cuda
