#include "cli/session_options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>

#include "cli/parse.h"
#include "cli/report.h"
#include "cli/suggest.h"
#include "kernels/dispatch.h"
#include "quant/machine/random.h"
#include "quant/pre_tokenizer.h"

namespace quern {
namespace {

constexpr double kMaxNumber = std::numeric_limits<float>::max();

// "4096", or "4k", the one suffix that there is: contexts are spoken of so.
uint64_t parse_context(std::string_view name, std::string_view text) {
  constexpr uint64_t kKilo = 1024;
  const bool kilo = text.size() > 1 && (text.back() == 'k' || text.back() == 'K');
  if (!kilo) return parse_unsigned(name, text, 0, kMaxContext);
  uint64_t kilos = 0;
  const char* const end = text.data() + text.size() - 1;
  const auto [stopped, error] = std::from_chars(text.data(), end, kilos);
  if (error != std::errc() || stopped != end || kilos < 1 || kilos > kMaxContext / kKilo)
    fail(ErrorCode::kUsage, "{}: '{}' is not a whole number between 1k and {}k", name, printable(text),
         kMaxContext / kKilo);
  return kilos * kKilo;
}

void declare_gpu(Arguments& arguments, SessionArguments* session) {
  arguments.option("--gpu-layers", "N",
                   "Last layers that run on the GPU, with the output; all, or auto: as many as fit "
                   "(default auto: 0 without a GPU). No answer depends on it",
                   [session](std::string_view name, const std::string& text) {
                     session->model.gpu_layers = parse_gpu_layers(name, text);
                   });
  arguments.text(
      "--gpu", "LIST",
      "GPUs to use, 0,1 as the driver counts them, none, or auto (default auto: all; also QUERN_GPU)",
      &session->gpu);
}

}  // namespace

void declare_threads(Arguments& arguments, int* n_threads) {
  arguments.integer<int>("-t,--threads", "Threads (default: physical cores within affinity and cgroup quota)",
                         1, kMaxThreads, n_threads);
}

void declare_isa(Arguments& arguments, std::string* isa) {
  std::vector<std::string> kernel_set_names;
  for (const KernelSetRow& row : kernel_sets()) kernel_set_names.emplace_back(row.set->name);
  arguments.choice("--isa", "Instruction set (default: the best that the CPU has; also QUERN_ISA)",
                   kernel_set_names, isa);
}

void declare_pre_tokenizer(Arguments& arguments, std::string* name) {
  arguments.option("--pre", "NAME",
                   "How a BPE vocabulary's text is cut into words (default: what the file says)",
                   [name](std::string_view option, const std::string& text) {
                     if (find_pre_tokenizer(text) == nullptr) {
                       std::vector<std::string> names;
                       for (const PreTokenizer& row : pre_tokenizers()) names.emplace_back(row.name);
                       fail(ErrorCode::kUsage, "{}: '{}' is none of {}{}", option, printable(text),
                            fmt::join(names, ", "), suggestion(text, names));
                     }
                     *name = text;
                   });
}

void SessionArguments::declare(Arguments& arguments, const std::string& context_help) {
  arguments.option("-c,--ctx", "N",
                   "Positions of the context, 4k is 4096, 0 as many as the model was trained on (default " +
                       context_help + ")",
                   [this](std::string_view name, const std::string& text) {
                     model.context = parse_context(name, text);
                     model.trained_context = model.context == 0;
                   });
  declare_threads(arguments, &model.n_threads);
  declare_device(arguments);
}

void SessionArguments::declare_device(Arguments& arguments) {
  declare_isa(arguments, &model.isa);
  if (!cpu_alone) declare_gpu(arguments, this);
  arguments.choice("--kv", "Number format of the KV cache (default f16)", {"f16", "f32", "q8_0"}, &kv);
  arguments.option("--state-ram", "SIZE",
                   "Memory for earlier states of recurrent layers (500M, 2GiB, 0; default: a quarter of the "
                   "KV cache): what is repeated or taken back is then evaluated from the nearest one",
                   [this](std::string_view name, const std::string& text) {
                     model.state_bytes = text == "0" ? 0 : parse_bytes(name, text);
                   });
  arguments.yes_no("--check-tensors", "--no-check-tensors",
                   "Check at load that weights are finite (default: files below 64 MiB)",
                   &model.check_tensors);
  arguments.flag("--no-mmap", "Read the file into memory instead of mapping it", &no_mmap);
  arguments.flag("--mlock", "Keep the model in memory: no page of it goes to make room for others",
                 &model.lock_memory);
  arguments.flag("--larger-than-memory",
                 "Run a mapped file (--layout p16) that memory has no room for: every token reads it from "
                 "the disk again",
                 &model.larger_than_memory);
  declare_pre_tokenizer(arguments, &model.pre_tokenizer);
}

ModelOptions SessionArguments::options() const {
  ModelOptions options = model;
  options.kv = kv == "f32" ? KvType::kF32 : kv == "q8_0" ? KvType::kQ8_0 : KvType::kF16;
  options.allow_mmap = !no_mmap;
  options.gpu = cpu_alone ? "none" : gpu;
  if (options.lock_memory && options.larger_than_memory)
    fail(ErrorCode::kUsage, "--mlock and --larger-than-memory: what has no room cannot be kept in memory");
  return options;
}

void GenerationArguments::declare(Arguments& arguments, const std::string& max_tokens_help) {
  SamplerOptions& sampler = generate.sampler;
  arguments.integer<int64_t>("-n,--max-tokens", max_tokens_help, -1, INT32_MAX, &generate.max_tokens);
  arguments.number("--temp", "Temperature; 0 is greedy (default 0.8)", 0, kMaxNumber, &sampler.temperature);
  arguments.option("--top-k", "N", "Keep the N likeliest tokens; 0 and -1 keep all (default 40)",
                   [&sampler](std::string_view name, const std::string& text) {
                     sampler.top_k =
                         static_cast<int>(std::max<int64_t>(parse_integer(name, text, -1, INT32_MAX), 0));
                   });
  arguments.number("--top-p", "Keep the likeliest tokens of this total probability (default 0.95)", 0, 1,
                   &sampler.top_p);
  arguments.number("--min-p", "Keep tokens at least this likely, relative to the likeliest (default 0.05)", 0,
                   1, &sampler.min_p);
  arguments.number("--repeat-penalty", "Penalty on recent tokens; 1 is none (default 1)", 1e-6, kMaxNumber,
                   &sampler.repeat_penalty);
  arguments.integer<int>("--repeat-last-n", "How many tokens count as recent (default 64)", 0, INT32_MAX,
                         &sampler.repeat_last_n);
  arguments.option("--seed", "N", "Seed of the sampler; -1 draws one (default: drawn, and printed)",
                   [this](std::string_view name, const std::string& text) {
                     seed.reset();
                     if (text != "-1") seed = parse_unsigned(name, text, 0, UINT64_MAX);
                   });
  arguments.texts("--stop", "TEXT", "End before this text", &generate.stop);
  arguments.flag("--ignore-eos", "Go on where the model would end", &generate.ignore_eos);
  arguments.option("--draft", "FILE",
                   "A small model of the same vocabulary that guesses too, on the CPU (a GGUF file; the text "
                   "stays the same)",
                   [this](std::string_view name, const std::string& text) {
                     if (!text.empty() && text.find_first_not_of("0123456789") == text.npos)  // llama.cpp's
                       fail(ErrorCode::kUsage,
                            "{}: expected the small model's file, found '{}'; how many tokens it guesses "
                            "quern chooses by itself (./{} for a file of that name)",
                            name, printable(text), printable(text));
                     draft = text;
                   });
  arguments.flag(
      "--no-speculation",
      "Evaluate no guesses at what repeats the text so far (they make it faster, and change nothing "
      "else)",
      &no_speculation);
}

CompletionOptions GenerationArguments::unseeded() const {
  if (draft && no_speculation)
    fail(ErrorCode::kUsage, "--draft and --no-speculation exclude each other: one asks for guesses");
  for (const std::string& stop : generate.stop)
    if (stop.empty()) fail(ErrorCode::kUsage, "--stop: the text is empty");
  return generate;
}

CompletionOptions GenerationArguments::options() const {
  CompletionOptions options = unseeded();
  if (seed) {
    options.sampler.seed = *seed;
  } else if (options.sampler.temperature > 0) {
    options.sampler.seed = random_value<uint32_t>();  // 32 bits: short enough to type again
    print_notice("seed: {} (drawn; override: --seed)", options.sampler.seed);
  }
  return options;
}

void CacheArguments::declare(Arguments& arguments) {
  arguments.text("--cache-dir", "FOLDER",
                 "Keep what prompts and answers came to in this folder, for prompts that begin like them (a "
                 "folder of your own, mode 0700; it is made where it is not there)",
                 &folder);
  arguments.option("--cache-disk", "SIZE", "Bytes of that folder (500M, 2GiB; default 8GiB)",
                   [this](std::string_view name, const std::string& text) {
                     disk_bytes = text == "0" ? 0 : parse_bytes(name, text);
                   });
}

std::unique_ptr<PrefixCache> CacheArguments::open(const Model& model) const {
  if (folder.empty()) return nullptr;
  return std::make_unique<PrefixCache>(
      model, PrefixCacheOptions{.folder = folder, .disk_bytes = disk_bytes, .notice = notice});
}

}  // namespace quern
