#include "cli/session_options.h"

#include <cstdlib>
#include <limits>
#include <random>

#include "cli/json_writer.h"
#include "cli/report.h"
#include "kernels/dispatch.h"

namespace quern {
namespace {

constexpr double kMaxNumber = std::numeric_limits<float>::max();

double per_second(size_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
}

// OpenAI's words, which tools know: "length" also where the context is full.
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

std::string chat_format_names() {
  std::string names;
  for (const ChatFormat& format : chat_formats())
    names += fmt::format("{}{} ({})", names.empty() ? "" : ", ", format.name, format.description);
  return names;
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

void SessionArguments::declare(Arguments& arguments, const std::string& context_help) {
  arguments.integer<uint64_t>("-c,--ctx", "Positions of the context (default " + context_help + ")", 1,
                              kMaxContext, &model.context);
  declare_threads(arguments, &model.n_threads);
  declare_device(arguments);
}

void SessionArguments::declare_device(Arguments& arguments) {
  declare_isa(arguments, &model.isa);
  arguments.choice("--kv", "Number format of the KV cache (default f16)", {"f16", "f32", "q8_0"}, &kv);
  arguments.yes_no("--check-tensors", "--no-check-tensors",
                   "Check at load that weights are finite (default: files below 64 MiB)",
                   &model.check_tensors);
  arguments.flag("--no-mmap", "Read the file into memory instead of mapping it", &no_mmap);
}

ModelOptions SessionArguments::options() const {
  ModelOptions options = model;
  options.kv = kv == "f32" ? KvType::kF32 : kv == "q8_0" ? KvType::kQ8_0 : KvType::kF16;
  options.allow_mmap = !no_mmap;
  return options;
}

void GenerationArguments::declare(Arguments& arguments, const std::string& max_tokens_help) {
  SamplerOptions& sampler = generate.sampler;
  arguments.integer<int64_t>("-n,--max-tokens", max_tokens_help, -1, INT32_MAX, &generate.max_tokens);
  arguments.number("--temp", "Temperature; 0 is greedy (default 0.8)", 0, kMaxNumber, &sampler.temperature);
  arguments.integer<int>("--top-k", "Keep the K likeliest tokens; 0 keeps all (default 40)", 0, INT32_MAX,
                         &sampler.top_k);
  arguments.number("--top-p", "Keep the likeliest tokens of this total probability (default 0.95)", 0, 1,
                   &sampler.top_p);
  arguments.number("--min-p", "Keep tokens at least this likely, relative to the likeliest (default 0.05)", 0,
                   1, &sampler.min_p);
  arguments.number("--repeat-penalty", "Penalty on recent tokens; 1 is none (default 1)", 1e-6, kMaxNumber,
                   &sampler.repeat_penalty);
  arguments.integer<int>("--repeat-last-n", "How many tokens count as recent (default 64)", 0, INT32_MAX,
                         &sampler.repeat_last_n);
  arguments.integer<uint64_t>("--seed", "Seed of the sampler (default: drawn, and printed)", 0, UINT64_MAX,
                              &seed);
  arguments.texts("--stop", "TEXT", "End before this text; may be repeated", &generate.stop);
  arguments.flag("--ignore-eos", "Go on where the model would end", &generate.ignore_eos);
}

GenerateOptions GenerationArguments::options() const {
  GenerateOptions options = generate;
  for (const std::string& stop : options.stop)
    if (stop.empty()) fail(ErrorCode::kUsage, "--stop: the text is empty");
  if (seed) {
    options.sampler.seed = *seed;
  } else if (options.sampler.temperature > 0) {
    options.sampler.seed = std::random_device()();  // 32 bits: short enough to type again
    print_notice("seed: {} (drawn; override: --seed)", options.sampler.seed);
  }
  return options;
}

void report_full_context(const Model& model, const GenerateResult& result) {
  if (result.reason == FinishReason::kContextFull)
    print_notice("stopped: the context of {} tokens is full (override: --ctx)", model.context());
}

void report_timings(const Model& model, const GenerateResult& result) {
  print_notice("load {:.2f} s | prompt {} tokens, {:.1f} tok/s | generation {} tokens, {:.1f} tok/s",
               model.load_seconds(), result.prompt_tokens,
               per_second(result.prompt_tokens, result.prompt_seconds), result.tokens.size(),
               per_second(result.decode_tokens, result.decode_seconds));
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
      .field("decode_seconds", result.decode_seconds)
      .field("decode_tokens_per_second", per_second(result.decode_tokens, result.decode_seconds));
  return json.end_object().end_object().text() + "\n";
}

const ChatFormat* known_chat_format(const Vocabulary& vocabulary) {
  if (!vocabulary.chat_format.empty()) return find_chat_format(vocabulary.chat_format);
  return find_chat_format(recognise_chat_format(vocabulary));
}

void warn_unknown_chat_template(const Model& model) {
  if (!model.has_tokenizer()) return;
  const Vocabulary& vocabulary = model.tokenizer().vocabulary();
  if (!vocabulary.chat_template.empty() && known_chat_format(vocabulary) == nullptr)
    notice("warning: chat template not recognised (it is data and never executed); chat needs --chat-format");
}

const ChatFormat& require_chat_format(const std::string& name, const Vocabulary& vocabulary) {
  const ChatFormat* format = name.empty() ? known_chat_format(vocabulary) : find_chat_format(name);
  if (format != nullptr) return *format;
  if (!name.empty())
    fail(ErrorCode::kUsage, "--chat-format: '{}' is unknown; there is {}", printable(name),
         chat_format_names());
  fail(ErrorCode::kUsage, "the model's chat format is not known; give --chat-format NAME: {}",
       chat_format_names());
}

}  // namespace quern
