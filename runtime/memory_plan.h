// Memory: what a model and a session will take, known before anything is allocated.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "quant/checked_math.h"

namespace quern {

struct MemoryPlan {
  uint64_t weights = 0;   // mapped bytes that are used in place, and repacked copies
  uint64_t in_place = 0;  // of them: mapped bytes, which the system counts as available until they are read
  uint64_t kv = 0;
  uint64_t scratch = 0;
  // UINT64_MAX when it is more than can be counted.
  uint64_t total() const {
    uint64_t sum = 0;
    return checked_add(weights, kv, &sum) && checked_add(sum, scratch, &sum) ? sum : UINT64_MAX;
  }
};

// The largest context whose session fits beside the weights, up to `most`; 0: none.
uint64_t largest_context(const MemoryPlan& plan, uint64_t available, uint64_t most,
                         const std::function<uint64_t(uint64_t context)>& session_bytes);

// Throws kResource when plan.total() exceeds `available`: the message holds the parts, and the largest
// context that fits, behind `context_option` (ModelOptions), or what would run it from the disk.
// session_bytes(context): KV and scratch of a context.
void require_memory(const MemoryPlan& plan, uint64_t available, uint64_t context,
                    std::string_view context_option,
                    const std::function<uint64_t(uint64_t context)>& session_bytes);

}  // namespace quern
