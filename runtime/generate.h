// The generation loop: prompt in, tokens out.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/sampler.h"
#include "runtime/session.h"

namespace quern {

struct GenerateOptions {
  SamplerOptions sampler;
  int64_t max_tokens = 128;  // -1: until the end of text or of the context
  bool ignore_eos = false;   // the end token is never picked
  // The text is a message of its own (chat), not the prompt's continuation: its first piece loses the leading
  // space.
  bool new_text = false;
  std::vector<std::string> stop;  // texts that end generation; not emitted
};

enum class FinishReason { kEndOfText, kMaxTokens, kContextFull, kStopText, kInterrupted };

struct GenerateResult {
  std::vector<int32_t> tokens;  // generated ids, the end token not included
  std::string text;             // what on_text received, joined
  FinishReason reason = FinishReason::kMaxTokens;
  size_t prompt_tokens = 0;  // evaluated (a reused prefix does not count)
  double prompt_seconds = 0;
  size_t decode_tokens = 0;  // single-token evaluations
  double decode_seconds = 0;
};

// Evaluates `prompt` (ids of the whole sequence; the common prefix with the session's tokens is reused) and
// generates. on_text gets whole UTF-8 characters as they come (null: no tokenizer needed); on_token every id.
// `stop` is polled between tokens and micro-batches. Throws kResource when the prompt does not fit (both
// numbers), before any work.
GenerateResult generate(Session& session, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<void(std::string_view)>& on_text,
                        const std::function<void(int32_t)>& on_token, const Session::StopFn& stop);

}  // namespace quern
