// The text of an answer in its parts: what the model thought, what it said, which tools it called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/serve/completion_request.h"
#include "cli/thinking.h"
#include "cli/tool_calls.h"

namespace quern {

// Not thread-safe.
class AnswerSplitter {
 public:
  // What more of an answer there is, in this order.
  struct Parts {
    std::string thought, text;
    std::vector<ToolCall> calls{};  // each has an id

    bool empty() const { return thought.empty() && text.empty() && calls.empty(); }
    Parts& operator+=(Parts more);
  };

  // Splits what the request's template and tools make possible. call_seed: request.call_seed(), which takes
  // time for a long prompt. answer: its index in the request, which the ids of calls differ by.
  AnswerSplitter(const CompletionRequest& request, uint64_t call_seed, size_t answer);

  // What is certain now; joined over all calls, it does not depend on the pieces that the answer came in.
  Parts push(std::string_view text);
  // The rest, once the answer has ended.
  Parts finish();

 private:
  Parts split_calls(ThoughtSplitter::Parts parts);

  const uint64_t call_seed_;
  const size_t answer_;
  std::optional<ThoughtSplitter> thoughts_;  // none: all is text
  ToolCallSplitter calls_;
  size_t n_calls_ = 0;
};

}  // namespace quern
