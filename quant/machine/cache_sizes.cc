#include "quant/machine/cache_sizes.h"

#include <sstream>

#include "quant/machine/system_files.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace quern {
namespace {

void set_cache_size(int level, uint64_t bytes, CacheSizes* sizes) {
  if (level == 1) sizes->l1 = bytes;
  if (level == 2) sizes->l2 = bytes;
  if (level == 3) sizes->l3 = bytes;
}

#if defined(__x86_64__)

// Intel lists caches in leaf 4, AMD in leaf 0x8000001d, in one form (Intel SDM volume 2, CPUID; AMD APM
// volume 3, appendix E.4.15).
CacheSizes cpuid_cache_sizes() {
  CacheSizes sizes{};
  for (const uint32_t leaf : {4u, 0x8000001du}) {
    uint32_t a, b, c, d;
    for (uint32_t i = 0; i < 16 && __get_cpuid_count(leaf, i, &a, &b, &c, &d) && (a & 31) != 0; ++i) {
      if ((a & 31) == 2) continue;  // instructions
      const uint64_t ways = (b >> 22) + 1, partitions = (b >> 12 & 1023) + 1, line = (b & 4095) + 1;
      set_cache_size(static_cast<int>(a >> 5 & 7), ways * partitions * line * (uint64_t{c} + 1), &sizes);
    }
    if (sizes.l1 != 0) break;
  }
  return sizes;
}

#else

CacheSizes cpuid_cache_sizes() { return {}; }

#endif

}  // namespace

CacheSizes sysfs_cache_sizes(const std::string& root) {
  CacheSizes sizes{};
  for (int i = 0; i < 16; ++i) {
    const std::string folder = root + "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/";
    const std::string type = read_line(folder + "type");
    if (type != "Data" && type != "Unified") continue;
    std::istringstream level_text(read_line(folder + "level")), size_text(read_line(folder + "size"));
    int level = 0;
    uint64_t size = 0;
    char unit = 'B';  // "32768K"
    if (!(level_text >> level) || !(size_text >> size) || size > uint64_t{1} << 40) continue;
    size_text >> unit;
    set_cache_size(level, unit == 'K' ? size << 10 : unit == 'M' ? size << 20 : size, &sizes);
  }
  return sizes;
}

const CacheSizes& cache_sizes() {
  static const CacheSizes sizes = [] {
    CacheSizes known = sysfs_cache_sizes("");
    const CacheSizes told = cpuid_cache_sizes();
    if (known.l1 == 0) known.l1 = told.l1;
    if (known.l2 == 0) known.l2 = told.l2;
    if (known.l3 == 0) known.l3 = told.l3;
    return known;
  }();
  return sizes;
}

}  // namespace quern
