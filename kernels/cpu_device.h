// The CPU as a Device: a kernel set and a number of threads.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "kernels/device.h"
#include "kernels/kernel_set.h"

namespace quern {

// `kernels` must outlive the device (the sets of dispatch.h live for ever). n_threads >= 1. A format without
// a kernel in the set runs on the scalar set's, which `notice` is told once per format.
std::unique_ptr<Device> make_cpu_device(const KernelSet& kernels, int n_threads, Notice notice = {});

// Told inside a pass, by the thread that asked for it, of the input of each product: `rows` of
// weight.columns() floats.
using ProductFn = std::function<void(const DeviceMatrix& weight, std::span<const float* const> rows)>;
// From now on `observer` is told of the products of matmul(), matmul_columns() and expert_matmul() on a
// device that make_cpu_device() made; an empty one ends that. Not while a pass is running.
void observe_products(Device& device, ProductFn observer);

}  // namespace quern
