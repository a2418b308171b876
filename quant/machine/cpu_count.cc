#include "quant/machine/cpu_count.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "quant/machine/affinity.h"
#include "quant/machine/cgroup.h"
#include "quant/machine/system_files.h"

namespace quern {

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
