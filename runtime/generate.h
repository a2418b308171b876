// A completion in a session of its own: prompt in, tokens out.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/completion.h"
#include "runtime/engine/drafter.h"
#include "runtime/engine/prefix_cache.h"
#include "runtime/engine/speculation.h"
#include "runtime/session.h"

namespace quern {

struct GenerateResult {
  std::vector<int32_t> tokens;  // generated ids, the end token not included
  std::string text;             // what on_text received, joined
  FinishReason reason = FinishReason::kMaxTokens;
  bool meets_constraint = true;  // false: only the beginning of a text that the constraint takes
  size_t prompt_tokens = 0;      // evaluated (a reused prefix does not count)
  double prompt_seconds = 0;
  // Behind the prompt: tokens whose logits were used, in so many passes.
  size_t decode_tokens = 0, decode_passes = 0;
  double decode_seconds = 0;
  size_t guesses = 0, guesses_taken = 0;  // that passes evaluated; those of them that came true
};

// What a session's completions teach about guesses. Not thread-safe.
struct Speculation {
  PassCosts costs;
  GuessRates rates;
  // Of a small model that guesses too; null: none.
  Drafter::Text* draft = nullptr;
};

// What makes a completion faster; null: none.
struct GenerateAids {
  Speculation* speculation = nullptr;  // passes evaluate guesses too, where that is likely to pay
  PrefixCache* cache = nullptr;        // of what earlier prompts came to
};

// Evaluates `prompt` (ids of the whole sequence; the common prefix with the session's tokens is reused) and
// drives a completion to its end. on_text gets whole UTF-8 characters as they come (null: no tokenizer
// needed); on_token every id. Both are called between passes. control.stop is read between tokens and layers.
// The result is the same with any aids, but for times, counts of passes and how much of the prompt was
// evaluated.
// Throws what Completion and Session::eval throw; a prompt that does not fit before any work.
GenerateResult generate(Session& session, std::span<const int32_t> prompt, const CompletionOptions& options,
                        const std::function<void(std::string_view)>& on_text,
                        const std::function<void(int32_t)>& on_token, const RunControl& control,
                        const GenerateAids& aids = {});

}  // namespace quern
