// Options that every command with a model shares, and those of text generation.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.h"
#include "runtime/chat_format.h"
#include "runtime/generate.h"
#include "runtime/model.h"

namespace quern {

inline constexpr int kMaxThreads = 1024;

// The options that doctor and convert share with commands that have a model.
void declare_threads(Arguments& arguments, int* n_threads);
void declare_isa(Arguments& arguments, std::string* isa);

// --ctx --threads --isa --kv --check-tensors --no-mmap. `context_help` describes the default of --ctx.
struct SessionArguments {
  ModelOptions model;  // the defaults, before declare()
  std::string kv = "f16";
  bool no_mmap = false;

  void declare(Arguments& arguments, const std::string& context_help = "min(trained, 4096)");
  // Without --threads and --ctx, for commands that have their own.
  void declare_device(Arguments& arguments);
  ModelOptions options() const;
};

// -n --temp --top-k --top-p --min-p --repeat-penalty --repeat-last-n --seed --stop --ignore-eos
struct GenerationArguments {
  GenerateOptions generate;
  std::optional<uint64_t> seed;

  void declare(Arguments& arguments, const std::string& max_tokens_help);
  // Draws a seed where one is needed and none was given, and says so.
  GenerateOptions options() const;
};

// Says on stderr that the context ended the text, when it did.
void report_full_context(const Model& model, const GenerateResult& result);
// "load 0.31 s | prompt 12 tokens, 123.4 tok/s | generation 128 tokens, 23.4 tok/s" on stderr.
void report_timings(const Model& model, const GenerateResult& result);
// The object that `--json` prints.
std::string generation_json(const Model& model, const GenerateResult& result);

// The built-in chat format that the file names, or that its template is known to describe; null: not known.
const ChatFormat* known_chat_format(const Vocabulary& vocabulary);
// Says on stderr that the file has a chat template that was not recognised, when that is so.
void warn_unknown_chat_template(const Model& model);
// The format called `name`, or, when that is empty, the vocabulary's. Throws kUsage with the list of formats.
const ChatFormat& require_chat_format(const std::string& name, const Vocabulary& vocabulary);

}  // namespace quern
