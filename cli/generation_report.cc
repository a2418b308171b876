#include "cli/generation_report.h"

#include <algorithm>

#include "cli/report.h"
#include "quant/json/json_writer.h"

namespace quern {
namespace {

double per_second(size_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
}

double tokens_per_pass(const GenerateResult& result) {
  return static_cast<double>(result.decode_tokens) /
         static_cast<double>(std::max<size_t>(result.decode_passes, 1));
}

}  // namespace

std::string_view finish_reason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEndOfText:
    case FinishReason::kStopText:
      return "stop";
    case FinishReason::kMaxTokens:
    case FinishReason::kContextFull:
      return "length";
    case FinishReason::kInterrupted:
      return "interrupted";
  }
  return "";
}

std::string context_note(const Model& model) {
  return model.context() < model.hparams().context_length ? "override: --ctx"
                                                          : "all that the model was trained on";
}

void report_full_context(const Model& model, const GenerateResult& result) {
  if (result.reason == FinishReason::kContextFull)
    print_notice("warning: stopped, the context of {} tokens is full ({})", model.context(),
                 context_note(model));
}

void report_timings(const Model& model, const GenerateResult& result) {
  std::string line = fmt::format(
      "load {:.2f} s | prompt {} tokens, {:.1f} tok/s | generation {} tokens, {:.1f} tok/s",
      model.load_seconds(), result.prompt_tokens, per_second(result.prompt_tokens, result.prompt_seconds),
      result.tokens.size(), per_second(result.decode_tokens, result.decode_seconds));
  if (result.guesses > 0)
    line += fmt::format(", {:.2f} a pass ({} of {} guesses came true)", tokens_per_pass(result),
                        result.guesses_taken, result.guesses);
  timing(line);
}

std::string generation_json(const Model& model, const GenerateResult& result) {
  JsonWriter json;
  json.begin_object();
  json.key("text");
  model.has_tokenizer() ? json.value(result.text) : json.null();
  json.field("ids", result.tokens).field("finish_reason", finish_reason(result.reason));
  json.key("timings").begin_object();
  json.field("load_seconds", model.load_seconds())
      .field("prompt_tokens", result.prompt_tokens)
      .field("prompt_seconds", result.prompt_seconds)
      .field("prompt_tokens_per_second", per_second(result.prompt_tokens, result.prompt_seconds))
      .field("generated_tokens", result.tokens.size())
      .field("decode_tokens", result.decode_tokens)
      .field("decode_passes", result.decode_passes)
      .field("guesses", result.guesses)
      .field("guesses_taken", result.guesses_taken)
      .field("decode_seconds", result.decode_seconds)
      .field("decode_tokens_per_second", per_second(result.decode_tokens, result.decode_seconds));
  return json.end_object().end_object().text() + "\n";
}

}  // namespace quern
