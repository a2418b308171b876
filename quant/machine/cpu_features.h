// What the CPU and the operating system allow (cpuid and xgetbv). All false where the processor is no x86.
#pragma once

#include <string>

namespace quern {

struct CpuFeatures {
  bool avx2 = false, fma = false, f16c = false;
  bool avx512 = false;       // F, BW, VL, DQ
  bool avx512_vnni = false;  // and avx512
  bool avx_vnni = false;
  std::string model_name;  // "AMD EPYC ..."; empty when unknown
};

// Read once; the same object afterwards. Thread-safe.
const CpuFeatures& cpu_features();

}  // namespace quern
