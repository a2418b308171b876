// The GPU that tests run kernels on: the emulation, or, where the variable QUERN_TEST_GPU is a number, that
// GPU behind its driver (bench/gpu_check.sh).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/gpu.h"

namespace quern::test {

// memory: bytes that the emulation pretends to have. Every call gives the same GPU of a driver, which is
// opened once.
std::unique_ptr<cuda::Gpu> make_test_gpu(uint64_t memory);

// As --gpu takes it: "emulated", or the number.
std::string test_gpu_name();

}  // namespace quern::test
