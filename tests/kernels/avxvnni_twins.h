// The AVX-VNNI set compiled again for CPUs without AVX-VNNI: the same source but for one instruction
// (kernels/avxvnni/dot4.h, CMakeLists.txt). No user can choose these.
#pragma once

#include <iterator>
#include <vector>

#include "kernels/dispatch.h"

namespace quern {

#if defined(__x86_64__)
namespace avxvnni_evex {
extern const KernelSet kKernelSet;
}
namespace avxvnni_emulated {
extern const KernelSet kKernelSet;
}
#endif

namespace test {

#if defined(__x86_64__)
inline constexpr KernelSetRow kAvxVnniTwins[] = {
    {&avxvnni_evex::kKernelSet,
     [](const CpuFeatures& f) noexcept { return f.avx2 && f.fma && f.f16c && f.avx512_vnni; },
     "AVX-512 (F, BW, DQ, VL) with VNNI"},
    {&avxvnni_emulated::kKernelSet, [](const CpuFeatures& f) noexcept { return f.avx2 && f.fma && f.f16c; },
     "AVX2, FMA and F16C"},
};
#endif

// The sets that users can choose, and those that stand in for one of them on other CPUs.
inline std::vector<KernelSetRow> sets_and_twins() {
  std::vector<KernelSetRow> rows(kernel_sets().begin(), kernel_sets().end());
#if defined(__x86_64__)
  rows.insert(rows.end(), std::begin(kAvxVnniTwins), std::end(kAvxVnniTwins));
#endif
  return rows;
}

}  // namespace test
}  // namespace quern
