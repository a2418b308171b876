#include "kernels/cpu_features.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

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

CacheSizes cpuid_cache_sizes() { return {}; }
CpuFeatures read_features() { return {}; }

#endif

// The first line; empty when the file cannot be read.
std::string read_line(const std::string& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return line;
}

std::vector<int> affinity_cpus() {
  // The kernel refuses a mask smaller than its own: grow until it fits.
  for (int n_cpus = 1024; n_cpus <= 1 << 20; n_cpus *= 2) {
    const size_t bytes = CPU_ALLOC_SIZE(n_cpus);
    cpu_set_t* const mask = CPU_ALLOC(n_cpus);
    if (mask == nullptr) break;
    CPU_ZERO_S(bytes, mask);
    const bool known = sched_getaffinity(0, bytes, mask) == 0;
    std::vector<int> cpus;
    for (int cpu = 0; known && cpu < n_cpus; ++cpu)
      if (CPU_ISSET_S(cpu, bytes, mask)) cpus.push_back(cpu);
    CPU_FREE(mask);
    if (known) return cpus;
  }
  std::vector<int> all(std::max(1u, std::thread::hardware_concurrency()));
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
  return all;
}

// quota / period in CPUs; 0 when either is not a positive number ("max", "-1", no file).
double cpus_of(const std::string& quota, const std::string& period) {
  std::istringstream quota_text(quota), period_text(period);
  double q = 0, p = 0;
  if (!(quota_text >> q) || !(period_text >> p) || !(q > 0) || !(p > 0)) return 0;
  return q / p;
}

double quota_v2(const std::string& folder) {
  std::istringstream line(read_line(folder + "/cpu.max"));
  std::string quota, period;
  line >> quota >> period;
  return cpus_of(quota, period);
}

double quota_v1(const std::string& folder) {
  return cpus_of(read_line(folder + "/cpu.cfs_quota_us"), read_line(folder + "/cpu.cfs_period_us"));
}

// True when the comma-separated list holds `item`.
bool list_has(const std::string& list, std::string_view item) {
  std::istringstream parts(list);
  for (std::string part; std::getline(parts, part, ',');)
    if (part == item) return true;
  return false;
}

// This process's path within the hierarchy whose controllers hold `controller` ("" for version 2). Lines of
// /proc/self/cgroup: "4:cpu,cpuacct:/docker/abc", and "0::/user.slice" for version 2 (cgroups(7)).
std::string cgroup_path(const std::string& root, std::string_view controller) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controller.empty() ? controllers.empty() : list_has(controllers, controller))
      return line.substr(second + 1);
  }
  return {};
}

struct Mount {
  std::string subtree;  // the path within the hierarchy that is mounted
  std::string folder;   // where
};

// The mount of the hierarchy with `controller` ("" for version 2); an empty folder when there is none. Lines
// of mountinfo: "36 35 98:0 /subtree /folder options optional* - type source super_options" (proc(5)).
Mount cgroup_mount(const std::string& root, std::string_view controller) {
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string skipped, type, source, options;
    Mount mount;
    fields >> skipped >> skipped >> skipped >> mount.subtree >> mount.folder;
    while (fields >> skipped && skipped != "-") {
    }
    fields >> type >> source >> options;
    if (controller.empty() ? type == "cgroup2" : type == "cgroup" && list_has(options, controller))
      return mount;
  }
  return {};
}

// The smallest quota in CPUs on the way from this process's group up to the mount; 0: none.
double hierarchy_quota(const std::string& root, std::string_view controller,
                       double (*quota_of)(const std::string& folder)) {
  const Mount mount = cgroup_mount(root, controller);
  if (mount.folder.empty()) return 0;
  std::string path = cgroup_path(root, controller);
  // In a container the mount may show a subtree only: the path then begins with it.
  if (mount.subtree != "/" && path.starts_with(mount.subtree)) path.erase(0, mount.subtree.size());
  double tightest = 0;
  for (;;) {
    while (path.ends_with('/')) path.pop_back();
    const double quota = quota_of(root + mount.folder + path);
    if (quota > 0 && (tightest == 0 || quota < tightest)) tightest = quota;
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return tightest;
    path.erase(slash);
  }
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = read_features();
  return features;
}

int count_physical_cores(const std::string& root, std::span<const int> cpus) {
  std::set<std::string> cores;
  for (const int cpu : cpus) {
    const std::string name = std::to_string(cpu);
    const std::string topology = root + "/sys/devices/system/cpu/cpu" + name + "/topology/";
    // Threads of one core list the same siblings. core_id alone repeats from package to package.
    std::string core = read_line(topology + "thread_siblings_list");
    if (core.empty()) {
      const std::string id = read_line(topology + "core_id");
      core = id.empty() ? "cpu " + name : "core " + read_line(topology + "physical_package_id") + " " + id;
    }
    cores.insert(core);
  }
  return static_cast<int>(cores.size());
}

int cgroup_cpu_quota(const std::string& root) {
  const double v2 = hierarchy_quota(root, "", quota_v2);
  const double v1 = hierarchy_quota(root, "cpu", quota_v1);
  const double quota = v1 > 0 && v2 > 0 ? std::min(v1, v2) : std::max(v1, v2);
  return static_cast<int>(std::ceil(std::min(quota, 1e6)));
}

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

std::string huge_page_mode(const std::string& root) {
  // "always [madvise] never"
  const std::string modes = read_line(root + "/sys/kernel/mm/transparent_hugepage/enabled");
  const size_t begin = modes.find('['), end = modes.find(']');
  return begin == std::string::npos || end == std::string::npos || end < begin
             ? std::string()
             : modes.substr(begin + 1, end - begin - 1);
}

const char* reason_of_usable(const CpuCount& count) noexcept {
  return count.usable < count.physical_cores ? "the cgroup's CPU quota" : "physical cores";
}

CpuCount count_cpus() {
  const std::vector<int> cpus = affinity_cpus();
  CpuCount count{};
  count.affinity = static_cast<int>(cpus.size());
  count.physical_cores = count_physical_cores("", cpus);
  count.quota = cgroup_cpu_quota("");
  count.usable = count.quota > 0 ? std::min(count.physical_cores, count.quota) : count.physical_cores;
  count.usable = std::max(count.usable, 1);
  return count;
}

}  // namespace quern
