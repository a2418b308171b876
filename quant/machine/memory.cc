#include "quant/machine/memory.h"

#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "quant/error.h"
#include "quant/format_size.h"
#include "quant/machine/cgroup.h"
#include "quant/machine/system_files.h"

namespace quern {
namespace {

uint64_t room_in_address_space() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  const uint64_t used = read_field("/proc/self/status", "VmSize").value_or(0);
  return limit.rlim_cur - std::min<uint64_t>(limit.rlim_cur, used);
}

}  // namespace

uint64_t available_memory() {
  const uint64_t system = read_field("/proc/meminfo", "MemAvailable").value_or(UINT64_MAX);
  return std::min({system, cgroup_memory_room(), room_in_address_space()});
}

uint64_t total_memory() { return read_field("/proc/meminfo", "MemTotal").value_or(0); }
uint64_t peak_memory() { return read_field("/proc/self/status", "VmHWM").value_or(0); }

bool restart_peak_memory() {
  std::ofstream file("/proc/self/clear_refs");
  return static_cast<bool>(file << '5' << std::flush);
}

void lock_memory(uint64_t needed_bytes) {
  // On fault: what was let go, or was never touched, is not brought in for this.
  if (::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0) return;
  const int error_number = errno;
  rlimit limit{};
  const bool is_limited = ::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  if (error_number != ENOMEM && error_number != EPERM)
    fail_errno(error_number, "--mlock: cannot keep the model in memory");
  fail(ErrorCode::kResource,
       "--mlock: this process may lock {} of memory, the model needs {} (and its address space counts); "
       "raise the "
       "limit (ulimit -l unlimited, LimitMEMLOCK= of a service) or leave --mlock out",
       is_limited ? format_size(limit.rlim_cur) : "too little", format_size(needed_bytes));
}

void give_back_large_blocks() {
#ifdef __GLIBC__
  constexpr int kLarge = 2 << 20;
  mallopt(M_MMAP_THRESHOLD, kLarge);
#endif
}

std::string huge_page_mode(const std::string& root) {
  // "always [madvise] never"
  const std::string modes = read_line(root + "/sys/kernel/mm/transparent_hugepage/enabled");
  const size_t begin = modes.find('['), end = modes.find(']');
  return begin == std::string::npos || end == std::string::npos || end < begin
             ? std::string()
             : modes.substr(begin + 1, end - begin - 1);
}

}  // namespace quern
