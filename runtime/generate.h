// A completion in a session of its own: prompt in, tokens out.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/completion.h"
#include "runtime/session.h"

namespace quern {

struct GenerateResult {
  std::vector<int32_t> tokens;  // generated ids, the end token not included
  std::string text;             // what on_text received, joined
  FinishReason reason = FinishReason::kMaxTokens;
  bool meets_constraint = true;  // false: only the beginning of a text that the constraint takes
  size_t prompt_tokens = 0;      // evaluated (a reused prefix does not count)
  double prompt_seconds = 0;
  size_t decode_tokens = 0;  // single-token evaluations
  double decode_seconds = 0;
};

// Evaluates `prompt` (ids of the whole sequence; the common prefix with the session's tokens is reused) and
// drives a completion to its end. on_text gets whole UTF-8 characters as they come (null: no tokenizer
// needed); on_token every id. Both are called between passes. `stop` is polled between tokens and layers.
// Throws what Completion and Session::eval throw; a prompt that does not fit before any work.
GenerateResult generate(Session& session, std::span<const int32_t> prompt, const CompletionOptions& options,
                        const std::function<void(std::string_view)>& on_text,
                        const std::function<void(int32_t)>& on_token, const StopFn& stop);

}  // namespace quern
