// The table of kernel sets, and which one runs here.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "kernels/kernel_set.h"
#include "quant/machine/cpu_features.h"

namespace quern {

struct KernelSetRow {
  const KernelSet* set;
  bool (*supported)(const CpuFeatures& features) noexcept;
  const char* needs;  // "AVX2, FMA, F16C", for messages
};

// Best last; "scalar", the reference, first.
std::span<const KernelSetRow> kernel_sets() noexcept;

// The best supported set; or the one called `forced`, or, when that is empty, the one that the environment
// variable QUERN_ISA names. An unknown name, or a set that a CPU of these features cannot run, throws kUsage
// with the names that would work.
const KernelSet& select_kernel_set(std::string_view forced = {},
                                   const CpuFeatures& features = cpu_features());

// Why `chosen` runs on a CPU of these features and no better set does: "avx512 needs AVX-512 (F, BW, DQ, VL)
// with VNNI, which this CPU lacks"; empty when it is the best there is.
std::string explain_kernel_set(const KernelSet& chosen, const CpuFeatures& features);

}  // namespace quern
