#include "quant/machine/cgroup.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <string_view>

#include "quant/machine/system_files.h"

namespace quern {
namespace {

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

// Calls visit(folder) for the folders of this process's group and its ancestors, the mount's own last.
void visit_groups(const std::string& root, std::string_view controller,
                  const std::function<void(const std::string& folder)>& visit) {
  const Mount mount = cgroup_mount(root, controller);
  if (mount.folder.empty()) return;
  std::string path = cgroup_path(root, controller);
  // In a container the mount may show a subtree only: the path then begins with it.
  const bool shows_subtree = mount.subtree != "/" && (path + '/').starts_with(mount.subtree + '/');
  if (shows_subtree) path.erase(0, mount.subtree.size());
  for (;;) {
    while (path.ends_with('/')) path.pop_back();
    visit(root + mount.folder + path);
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return;
    path.erase(slash);
  }
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

// Page cache counts as used by a group, on one of two lists.
struct MemoryFiles {
  const char *limit, *usage, *cache[2];
};
constexpr MemoryFiles kMemoryV2 = {"/memory.max", "/memory.current", {"inactive_file", "active_file"}};
constexpr MemoryFiles kMemoryV1 = {
    "/memory.limit_in_bytes", "/memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}};

uint64_t memory_room(const std::string& folder, const MemoryFiles& files) {
  const auto limit = read_number(folder + files.limit), usage = read_number(folder + files.usage);
  if (!limit || !usage) return UINT64_MAX;
  uint64_t cache = 0;
  for (const char* list : files.cache) cache += read_field(folder + "/memory.stat", list).value_or(0);
  const uint64_t used = *usage - std::min(*usage, cache);
  return *limit - std::min(*limit, used);
}

}  // namespace

int cgroup_cpu_quota(const std::string& root) {
  double tightest = 0;
  const auto take = [&](double quota) {
    if (quota > 0 && (tightest == 0 || quota < tightest)) tightest = quota;
  };
  visit_groups(root, "", [&](const std::string& folder) { take(quota_v2(folder)); });
  visit_groups(root, "cpu", [&](const std::string& folder) { take(quota_v1(folder)); });
  if (tightest == 0) return 0;
  // Down: a thread more than there is time for makes the others wait for it at every loop's end.
  return static_cast<int>(std::max(std::floor(std::min(tightest, 1e6)), 1.0));
}

uint64_t cgroup_memory_room(const std::string& root) {
  uint64_t room = UINT64_MAX;
  visit_groups(root, "",
               [&](const std::string& folder) { room = std::min(room, memory_room(folder, kMemoryV2)); });
  visit_groups(root, "memory",
               [&](const std::string& folder) { room = std::min(room, memory_room(folder, kMemoryV1)); });
  return room;
}

}  // namespace quern
