#include "runtime/memory_plan.h"

#include <string>

#include "quant/error.h"
#include "quant/format_size.h"

namespace quern {

uint64_t largest_context(const MemoryPlan& plan, uint64_t available, uint64_t most,
                         const std::function<uint64_t(uint64_t context)>& session_bytes) {
  uint64_t fits = 0;  // by halving
  for (uint64_t low = 1, high = most; low <= high;) {
    const uint64_t middle = low + (high - low) / 2;
    if (plan.weights <= available && session_bytes(middle) <= available - plan.weights) {
      fits = middle;
      low = middle + 1;
    } else {
      high = middle - 1;
    }
  }
  return fits;
}

void require_memory(const MemoryPlan& plan, uint64_t available, uint64_t context,
                    std::string_view context_option,
                    const std::function<uint64_t(uint64_t context)>& session_bytes) {
  if (plan.total() <= available) return;
  // What is available changes a little from one start to the next: the advice leaves a hundredth.
  const uint64_t fits = largest_context(plan, available - available / 100, context, session_bytes);
  std::string advice = "no context fits; a smaller format (convert --type) might";
  if (fits >= 64)
    advice = fmt::format("{} {} would fit", context_option, fits / 64 * 64);
  else if (plan.total() - plan.in_place <= available)
    advice += ", and --larger-than-memory runs this file from the disk, slowly";
  else if (session_bytes(context) <= available)
    advice += ", and --larger-than-memory runs a file of --layout p16 from the disk, slowly";
  fail(ErrorCode::kResource,
       "not enough memory: weights {} + cache {} (context of {}) + scratch {} = {} needed, {} available; {}",
       format_size(plan.weights), format_size(plan.kv), context, format_size(plan.scratch),
       format_size(plan.total()), format_size(available), advice);
}

}  // namespace quern
