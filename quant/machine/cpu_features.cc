#include "quant/machine/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <algorithm>
#include <cstdint>
#endif

namespace quern {
namespace {

#if defined(__x86_64__)

// The register states that the operating system saves (Intel SDM volume 1, 13.3). Only where cpuid's OSXSAVE
// bit is set.
uint64_t saved_states() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

std::string model_name() {
  uint32_t registers[12];
  if (static_cast<uint32_t>(__get_cpuid_max(0x80000000u, nullptr)) < 0x80000004u) return {};
  for (uint32_t i = 0; i < 3; ++i) {
    uint32_t* r = registers + 4 * i;
    __get_cpuid(0x80000002u + i, r, r + 1, r + 2, r + 3);
  }
  const char* text = reinterpret_cast<const char*>(registers);
  std::string name(text, std::find(text, text + sizeof(registers), '\0'));
  name.erase(0, name.find_first_not_of(' '));
  name.erase(name.find_last_not_of(' ') + 1);
  return name;
}

CpuFeatures read_features() {
  CpuFeatures f;
  f.model_name = model_name();
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return f;
  constexpr uint32_t kOsxsave = 1u << 27, kAvx = 1u << 28;
  if ((c & kOsxsave) == 0 || (c & kAvx) == 0) return f;
  const uint64_t states = saved_states();
  constexpr uint64_t kYmm = 0x6, kZmm = 0xe6;  // SSE, AVX; and opmask, ZMM0-15 high halves, ZMM16-31
  if ((states & kYmm) != kYmm) return f;
  f.fma = (c >> 12) & 1;
  f.f16c = (c >> 29) & 1;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
  f.avx2 = (b >> 5) & 1;
  const uint32_t max_subleaf = a;
  constexpr uint32_t kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  f.avx512 = (states & kZmm) == kZmm && (b & kAvx512) == kAvx512;
  f.avx512_vnni = f.avx512 && ((c >> 11) & 1);
  if (max_subleaf >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) f.avx_vnni = (a >> 4) & 1;
  return f;
}

#else

CpuFeatures read_features() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = read_features();
  return features;
}

}  // namespace quern
