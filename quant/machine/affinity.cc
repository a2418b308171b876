#include "quant/machine/affinity.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <thread>

namespace quern {

static_assert(CpuSet().size() == CPU_SETSIZE);

int this_thread_id() { return gettid(); }

int this_cpu() { return sched_getcpu(); }

std::optional<CpuSet> thread_affinity(int thread_id) {
  cpu_set_t mask;
  if (sched_getaffinity(thread_id, sizeof mask, &mask) != 0) return std::nullopt;
  CpuSet cpus;
  for (size_t cpu = 0; cpu < cpus.size(); ++cpu) cpus[cpu] = CPU_ISSET(cpu, &mask);
  return cpus;
}

bool set_thread_affinity(int thread_id, const CpuSet& cpus) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (size_t cpu = 0; cpu < cpus.size(); ++cpu)
    if (cpus[cpu]) CPU_SET(cpu, &mask);
  return sched_setaffinity(thread_id, sizeof mask, &mask) == 0;
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
  std::iota(all.begin(), all.end(), 0);
  return all;
}

}  // namespace quern
