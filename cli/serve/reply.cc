#include "cli/serve/reply.h"

#include <fmt/format.h>

namespace quern {

std::string sse_event(std::string_view json) { return fmt::format("data: {}\n\n", json); }

std::string sse_event(std::string_view type, std::string_view json) {
  return fmt::format("event: {}\n{}", type, sse_event(json));
}

std::string sse_progress(size_t n_read, size_t n_prompt) {
  return fmt::format(": prompt {}/{}\n\n", n_read, n_prompt);
}

}  // namespace quern
