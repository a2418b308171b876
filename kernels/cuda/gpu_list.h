// GPUs by name, as --gpu and QUERN_GPU give them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/cuda_device.h"

namespace quern::cuda {

// "none"; "auto", all there are; numbers of GPUs as the driver counts them ("0,1"); "emulated", or
// "emulated:MIB" with so much memory, once for each GPU ("emulated,emulated"): the kernels on the CPU, for
// tests. Empty: what the variable QUERN_GPU says, else auto. Throws kUsage for what is none of these or not
// there, kIo where a driver is there and fails.
std::vector<std::unique_ptr<CudaDevice>> open_gpus(std::string_view list);

// Why open_gpus(list) is empty: "no driver: libcuda.so.1 was not found".
std::string why_no_gpu(std::string_view list);

}  // namespace quern::cuda
