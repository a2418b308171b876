// Memory: what a model and a session will take, and what the machine can give, before anything is allocated.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "quant/checked_math.h"

namespace quern {

// Bytes that this process may still take: the least of the kernel's MemAvailable, what the memory cgroups
// above this process leave (their reclaimable page cache counts as free), and RLIMIT_AS. UINT64_MAX when
// nothing can be read.
uint64_t available_memory();

// Bytes of memory that the machine has; 0: not known.
uint64_t total_memory();

// The most bytes that this process has had in memory, since its start or the last restart_peak_memory(); 0:
// not known.
uint64_t peak_memory();
// Lets the peak begin again at what is in memory now. False: the system does not allow it, nothing changed.
bool restart_peak_memory();

struct MemoryPlan {
  uint64_t weights = 0;  // mapped bytes that are used in place, and repacked copies
  uint64_t kv = 0;
  uint64_t scratch = 0;
  // UINT64_MAX when it is more than can be counted.
  uint64_t total() const {
    uint64_t sum = 0;
    return checked_add(weights, kv, &sum) && checked_add(sum, scratch, &sum) ? sum : UINT64_MAX;
  }
};

// Throws kResource when plan.total() exceeds `available`: the message holds the parts, and the largest
// context that fits, behind `context_option` (ModelOptions). session_bytes(context): KV and scratch of a
// context.
void require_memory(const MemoryPlan& plan, uint64_t available, uint64_t context,
                    std::string_view context_option,
                    const std::function<uint64_t(uint64_t context)>& session_bytes);

// "4.03 GB" (decimal units).
std::string format_bytes(uint64_t bytes);

}  // namespace quern
