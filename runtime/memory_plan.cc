#include "runtime/memory_plan.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "quant/error.h"

namespace quern {
namespace {

constexpr uint64_t kUnlimited = UINT64_MAX;

// The first number in a file of the kernel's ("max" and everything else that is no number: none).
std::optional<uint64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

// Value of "name <number>" or "name: <number> kB" in a file of such lines.
std::optional<uint64_t> read_field(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string key, unit;
    uint64_t value = 0;
    if (!(words >> key >> value)) continue;
    if (key != name && key != name + ":") continue;
    return words >> unit && unit == "kB" ? value * 1024 : value;
  }
  return std::nullopt;
}

// Page cache counts as used by a group, on one of two lists; the kernel takes it back when memory is needed.
struct CgroupFiles {
  const char *limit, *usage, *cache[2];
};

// Limits hold for a group and all its ancestors: the least room on the way up counts.
uint64_t room_in_cgroup(const std::string& mount, std::string group, const CgroupFiles& files) {
  uint64_t room = kUnlimited;
  while (true) {
    const std::string folder = mount + group + (group == "/" || group.empty() ? "" : "/");
    const auto limit = read_number(folder + files.limit), usage = read_number(folder + files.usage);
    if (limit && usage) {
      uint64_t cache = 0;
      for (const char* list : files.cache) cache += read_field(folder + "memory.stat", list).value_or(0);
      const uint64_t used = *usage - std::min(*usage, cache);
      room = std::min(room, *limit - std::min(*limit, used));
    }
    const size_t slash = group.rfind('/');
    if (group == "/" || group.empty() || slash == std::string::npos) return room;
    group = slash == 0 ? "/" : group.substr(0, slash);
  }
}

uint64_t room_in_cgroups() {
  uint64_t room = kUnlimited;
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {  // "hierarchy:controllers:group"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1),
                      group = line.substr(second + 1);
    if (controllers.empty())
      room =
          std::min(room, room_in_cgroup("/sys/fs/cgroup", group,
                                        {"memory.max", "memory.current", {"inactive_file", "active_file"}}));
    else if (("," + controllers + ",").find(",memory,") != std::string::npos)
      room = std::min(room, room_in_cgroup("/sys/fs/cgroup/memory", group,
                                           {"memory.limit_in_bytes",
                                            "memory.usage_in_bytes",
                                            {"total_inactive_file", "total_active_file"}}));
  }
  return room;
}

uint64_t room_in_address_space() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
  const uint64_t used = read_field("/proc/self/status", "VmSize").value_or(0);
  return limit.rlim_cur - std::min<uint64_t>(limit.rlim_cur, used);
}

}  // namespace

uint64_t available_memory() {
  const uint64_t system = read_field("/proc/meminfo", "MemAvailable").value_or(kUnlimited);
  return std::min({system, room_in_cgroups(), room_in_address_space()});
}

uint64_t total_memory() { return read_field("/proc/meminfo", "MemTotal").value_or(0); }
uint64_t peak_memory() { return read_field("/proc/self/status", "VmHWM").value_or(0); }

bool restart_peak_memory() {
  std::ofstream file("/proc/self/clear_refs");
  return static_cast<bool>(file << '5' << std::flush);
}

void require_memory(const MemoryPlan& plan, uint64_t available, uint64_t context,
                    std::string_view context_option,
                    const std::function<uint64_t(uint64_t context)>& session_bytes) {
  if (plan.total() <= available) return;
  uint64_t fits =
      0;  // by halving: the cache grows linearly, so half steps find a context close to the largest
  for (uint64_t low = 1, high = context; low <= high;) {
    const uint64_t middle = low + (high - low) / 2;
    if (plan.weights <= available && session_bytes(middle) <= available - plan.weights) {
      fits = middle;
      low = middle + 1;
    } else {
      high = middle - 1;
    }
  }
  const std::string advice = fits >= 64 ? fmt::format("{} {} would fit", context_option, fits / 64 * 64)
                                        : "no context fits; a smaller format (convert --type) might";
  fail(ErrorCode::kResource,
       "not enough memory: weights {} + cache {} (context of {}) + scratch {} = {} needed, {} available; {}",
       format_bytes(plan.weights), format_bytes(plan.kv), context, format_bytes(plan.scratch),
       format_bytes(plan.total()), format_bytes(available), advice);
}

std::string format_bytes(uint64_t bytes) {
  const double b = static_cast<double>(bytes);
  if (bytes >= 1000 * 1000 * 1000) return fmt::format("{:.2f} GB", b / 1e9);
  if (bytes >= 1000 * 1000) return fmt::format("{:.1f} MB", b / 1e6);
  if (bytes >= 1000) return fmt::format("{:.1f} kB", b / 1e3);
  return fmt::format("{} B", bytes);
}

}  // namespace quern
