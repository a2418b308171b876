// The CPU as a Device: a kernel set and a number of threads.
#pragma once

#include <memory>

#include "kernels/device.h"
#include "kernels/kernel_set.h"

namespace quern {

// `kernels` must outlive the device (the sets of dispatch.h live for ever). n_threads >= 1. A format without
// a kernel in the set runs on the scalar set's, which `notice` is told once per format.
std::unique_ptr<Device> make_cpu_device(const KernelSet& kernels, int n_threads, Notice notice = {});

}  // namespace quern
