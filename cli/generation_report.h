// What commands say about a completion when it has ended.
#pragma once

#include <string>
#include <string_view>

#include "runtime/generate.h"

namespace quern {

// OpenAI's words, which tools know: "length" also where the context is full; "interrupted", which is quern's.
std::string_view finish_reason(FinishReason reason);
// Behind the size of a context that is full: the option that makes it longer, unless the model was trained on
// no more, for which a longer one is no advice.
std::string context_note(const Model& model);
// Says on stderr that the context ended the text, when it did.
void report_full_context(const Model& model, const GenerateResult& result);
// "load 0.31 s | prompt 12 tokens, 123.4 tok/s | generation 128 tokens, 23.4 tok/s" on stderr; behind it,
// where passes had guesses, ", 1.52 a pass (44 of 61 guesses came true)".
void report_timings(const Model& model, const GenerateResult& result);
// The object that `--json` prints.
std::string generation_json(const Model& model, const GenerateResult& result);

}  // namespace quern
