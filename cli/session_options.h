// Options that every command with a model shares, and those of text generation.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "runtime/completion.h"
#include "runtime/engine/prefix_cache.h"
#include "runtime/model.h"

namespace quern {

inline constexpr int kMaxThreads = 1024;

// The options that doctor and convert share with commands that have a model.
void declare_threads(Arguments& arguments, int* n_threads);
void declare_isa(Arguments& arguments, std::string* isa);
void declare_pre_tokenizer(Arguments& arguments, std::string* name);

// --ctx --threads --isa --kv --gpu --gpu-layers --state-ram --check-tensors --no-mmap --mlock
// --larger-than-memory --pre.
// `context_help` describes the default of --ctx.
struct SessionArguments {
  ModelOptions model;      // the defaults, before declare()
  bool cpu_alone = false;  // without --gpu and --gpu-layers, before declare()
  std::string kv = "f16";
  bool no_mmap = false;
  std::string gpu;

  void declare(Arguments& arguments, const std::string& context_help = "min(trained, 4096)");
  // Without --threads and --ctx, for commands that have their own.
  void declare_device(Arguments& arguments);
  ModelOptions options() const;
};

// -n --temp --top-k --top-p --min-p --repeat-penalty --repeat-last-n --seed --stop --ignore-eos
// --draft --no-speculation
struct GenerationArguments {
  CompletionOptions generate;
  std::optional<uint64_t> seed;
  std::optional<std::string> draft;
  bool no_speculation = false;

  void declare(Arguments& arguments, const std::string& max_tokens_help);
  // As they were given, but for the seed. Throws kUsage.
  CompletionOptions unseeded() const;
  // Draws a seed where one is needed and none was given, and says so.
  CompletionOptions options() const;
};

// --cache-dir --cache-disk
struct CacheArguments {
  std::string folder;
  uint64_t disk_bytes = uint64_t{8} << 30;

  void declare(Arguments& arguments);
  // Null where none was asked for. Throws what PrefixCache's constructor throws.
  std::unique_ptr<PrefixCache> open(const Model& model) const;
};

}  // namespace quern
